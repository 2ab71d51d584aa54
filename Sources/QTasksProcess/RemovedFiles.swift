// Part of QTasks. License: see LICENSE.

import Glibc

/// Files that were removed and that processes still hold: they take up room that nobody sees.
package enum RemovedFiles {
    /// A process that holds some.
    package struct Holder: Hashable, Sendable {
        package var pid: Int32
        package var files: Int
        /// What they have room for, each counted once.
        package var bytes: Int
    }

    /// How `proc(5)` marks the path of a file that is gone.
    private static let mark = " (deleted)"

    /// Who holds removed files of a folder, as far as this user may know.
    ///
    /// - Parameter directory: Absolute, without links.
    /// - Returns: By process ID.
    package static func held(in directory: String) -> [Holder] {
        names(in: "/proc").compactMap { Int32($0) }.sorted().compactMap { pid in
            var found: [String: Int] = [:]
            addMapped(of: pid, in: directory, to: &found)
            addOpen(of: pid, in: directory, to: &found)
            guard !found.isEmpty else { return nil }
            return Holder(pid: pid, files: found.count, bytes: found.values.reduce(0, +))
        }
    }

    /// Lines such as `7f20..-7f24.. r--s 00000000 fe:01 917 /srv/q/store/segment-0000000001 (deleted)`.
    private static func addMapped(
        of pid: Int32,
        in directory: String,
        to found: inout [String: Int]
    ) {
        for line in text(of: "/proc/\(pid)/maps").split(separator: "\n") where line.hasSuffix(mark)
        {
            guard let slash = line.firstIndex(of: "/"), line[slash...].hasPrefix(directory + "/")
            else { continue }
            let ends = line.prefix { $0 != " " }.split(separator: "-").compactMap {
                Int($0, radix: 16)
            }
            guard ends.count == 2 else { continue }
            found[String(line[slash...].dropLast(mark.count)), default: 0] += ends[1] - ends[0]
        }
    }

    private static func addOpen(
        of pid: Int32,
        in directory: String,
        to found: inout [String: Int]
    ) {
        for name in names(in: "/proc/\(pid)/fd") {
            let link = "/proc/\(pid)/fd/\(name)"
            guard let target = CanonicalPath.target(ofLink: link), target.hasSuffix(mark),
                target.hasPrefix(directory + "/")
            else { continue }
            var about = stat()
            guard stat(link, &about) == 0 else { continue }
            found[String(target.dropLast(mark.count))] = Int(about.st_size)
        }
    }

    private static func names(in directory: String) -> [String] {
        guard let stream = opendir(directory) else { return [] }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            names.append(
                withUnsafeBytes(of: &entry.pointee.d_name) {
                    String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
                }
            )
        }
        return names
    }

    private static func text(of path: String) -> String {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return "" }
        defer { close(descriptor) }
        var text: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = read(descriptor, &chunk, chunk.count)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { return String(decoding: text, as: UTF8.self) }
            text += chunk[..<count]
        }
    }
}
