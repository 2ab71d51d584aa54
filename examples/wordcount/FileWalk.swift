// Part of QTasks. License: see LICENSE.

import Glibc

/// All plain files under some paths: those that `find PATH... -type f` prints, as it prints them.
///
/// Hidden files count, symbolic links are not followed, and a name may hold any byte.
struct FileWalk {
    /// A path that could not be looked into, or that is nothing to count.
    struct Failure: Hashable, Sendable {
        var path: ByteText
        var reason: String
    }

    /// In the order of the paths given, below each in the order of their bytes.
    private(set) var files: [ByteText] = []
    /// What is missing from `files`; whoever hears of the files must hear of these.
    private(set) var failures: [Failure] = []
    /// Paths given that are no plain file and no folder: nothing to count, and no failure.
    private(set) var passedOver: [Failure] = []

    init(_ paths: [ByteText]) {
        for path in paths { walk(path) }
    }

    private enum Kind {
        case file, folder, link, other
    }

    private mutating func walk(_ path: ByteText) {
        var found: [ByteText] = []
        do {
            switch try Self.kind(of: path) {
            case .file: found = [path]
            case .folder: found = walkFolders(below: path)
            case .link: passOver(path, "a symbolic link, which is not followed")
            case .other: passOver(path, "neither a file nor a folder")
            }
        } catch {
            failures.append(Failure(path: path, reason: error.description))
        }
        found.sort { $0.bytes.lexicographicallyPrecedes($1.bytes) }
        files += found
    }

    private mutating func passOver(_ path: ByteText, _ reason: String) {
        passedOver.append(Failure(path: path, reason: reason))
    }

    /// A list of folders still to read, instead of recursion: folders can be nested very deep.
    private mutating func walkFolders(below top: ByteText) -> [ByteText] {
        var found: [ByteText] = []
        var folders = [top]
        while let folder = folders.popLast() {
            do {
                for (path, kind) in try Self.entries(of: folder) {
                    switch kind {
                    case .file: found.append(path)
                    case .folder: folders.append(path)
                    case .link, .other: break
                    }
                }
            } catch {
                failures.append(Failure(path: folder, reason: error.description))
            }
        }
        return found
    }

    private static func entries(
        of folder: ByteText
    ) throws(FileError) -> [(path: ByteText, kind: Kind)] {
        guard let stream = opendir(folder.cString) else { throw .latest }
        defer { closedir(stream) }
        var prefix = folder.bytes
        if prefix.last != UInt8(ascii: "/") { prefix.append(UInt8(ascii: "/")) }
        var entries: [(path: ByteText, kind: Kind)] = []
        while true {
            // readdir(3): null with errno unchanged is the end
            errno = 0
            guard let entry = readdir(stream) else {
                if errno != 0 { throw .latest }
                return entries
            }
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { Array($0.prefix { $0 != 0 }) }
            if name == Array(".".utf8) || name == Array("..".utf8) { continue }
            let path = ByteText(prefix + name)
            // a file that is gone by now is none of those that are there
            guard let kind = try? kind(of: path, type: Int32(entry.pointee.d_type)) else {
                continue
            }
            entries.append((path, kind))
        }
    }

    // `type` is what readdir(3) said; some file systems leave it to lstat(2)
    private static func kind(of path: ByteText, type: Int32) throws(FileError) -> Kind {
        switch type {
        case Int32(DT_REG): .file
        case Int32(DT_DIR): .folder
        case Int32(DT_LNK): .link
        case Int32(DT_UNKNOWN): try kind(of: path)
        default: .other
        }
    }

    private static func kind(of path: ByteText) throws(FileError) -> Kind {
        var status = stat()
        guard lstat(path.cString, &status) == 0 else { throw .latest }
        switch status.st_mode & S_IFMT {
        case S_IFREG: return .file
        case S_IFDIR: return .folder
        case S_IFLNK: return .link
        default: return .other
        }
    }
}

extension ByteText {
    /// The same path from the root on, where `folder` is the working directory.
    func absolute(in folder: ByteText) -> ByteText {
        guard bytes.first != UInt8(ascii: "/") else { return self }
        let separator = folder.bytes.last == UInt8(ascii: "/") ? [] : [UInt8(ascii: "/")]
        return ByteText(folder.bytes + separator + bytes)
    }

    /// This process's working directory.
    static func workingDirectory() throws(FileError) -> ByteText {
        // getcwd(3) with a null buffer, as glibc has it, makes one that is long enough
        guard let path = getcwd(nil, 0) else { throw .latest }
        defer { free(path) }
        return ByteText(Array(UnsafeRawBufferPointer(start: path, count: strlen(path))))
    }

    /// Arguments of this process as they were before Swift `mended` what is no UTF-8 in them.
    static func arguments(_ mended: [String]) -> [ByteText] {
        var raw: [String: ByteText] = [:]
        for case let argument? in UnsafeBufferPointer(
            start: CommandLine.unsafeArgv,
            count: Int(CommandLine.argc)
        ) {
            let bytes = Array(UnsafeRawBufferPointer(start: argument, count: strlen(argument)))
            raw[String(decoding: bytes, as: UTF8.self)] = ByteText(bytes)
        }
        return mended.map { raw[$0] ?? ByteText($0) }
    }
}
