// Part of QTasks. License: see LICENSE.

import Glibc

/// What /proc says of processes, and plain files.
enum ProcFile {
    /// A whole file; empty where it can't be read.
    static func text(at path: String) -> String {
        String(decoding: (try? bytes(at: path)) ?? [], as: UTF8.self)
    }

    static func bytes(at path: String) throws -> [UInt8] {
        guard let file = fopen(path, "re") else { throw Failure("\(path): errno \(errno)") }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        var count = fread(&chunk, 1, chunk.count, file)
        while count > 0 {
            bytes += chunk[..<count]
            count = fread(&chunk, 1, chunk.count, file)
        }
        return bytes
    }

    /// - Throws: ``Failure`` where not all of it could be written.
    static func write(_ text: String, to path: String) throws {
        try write(Array(text.utf8), to: path)
    }

    static func write(_ bytes: [UInt8], to path: String) throws {
        guard let file = fopen(path, "we") else { throw Failure("\(path): errno \(errno)") }
        let count = fwrite(bytes, 1, bytes.count, file)
        guard fclose(file) == 0, count == bytes.count else {
            throw Failure("\(path): errno \(errno)")
        }
    }

    /// Where a link leads; empty where there is none.
    static func target(ofLink path: String) -> String {
        var buffer = [CChar](repeating: 0, count: 4096)
        let count = readlink(path, &buffer, buffer.count)
        return String(
            decoding: buffer[..<max(0, count)].map { UInt8(bitPattern: $0) },
            as: UTF8.self
        )
    }

    /// The names in a folder, without `.` and `..`.
    static func names(in folder: String) -> [String] {
        guard let stream = opendir(folder) else { return [] }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names
    }

    /// The value of a line `KEY: VALUE` of `/proc/PID/status`, or of a file like it.
    static func value(of key: String, in path: String) -> Int? {
        for line in text(at: path).split(separator: "\n") where line.hasPrefix(key + ":") {
            return line.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Int($0) }
        }
        return nil
    }

    static func parent(of pid: Int32) -> Int32? {
        value(of: "PPid", in: "/proc/\(pid)/status").map { Int32($0) }
    }

    /// Children, their children, and so on.
    static func descendants(of pid: Int32) -> Set<Int32> {
        var found: Set<Int32> = []
        for thread in names(in: "/proc/\(pid)/task") {
            let children = text(at: "/proc/\(pid)/task/\(thread)/children")
            for child in children.split(separator: " ").compactMap({ Int32($0) }) {
                found.formUnion(descendants(of: child).union([child]))
            }
        }
        return found
    }

    /// How often the threads of a process gave the CPU up by themselves: it woke up as often.
    static func voluntarySwitches(of pid: Int32) -> Int {
        names(in: "/proc/\(pid)/task").reduce(0) { sum, thread in
            let status = "/proc/\(pid)/task/\(thread)/status"
            return sum + (value(of: "voluntary_ctxt_switches", in: status) ?? 0)
        }
    }
}
