// Part of QTasks. License: see LICENSE.

import Glibc

/// One name for each folder, so that all processes of a system derive the same from it.
enum CanonicalPath {
    /// The absolute path without links, `.` and `..`, as `realpath(3)` gives it, where the last
    /// parts need not exist.
    ///
    /// - Throws: `ENOENT` where `path` is relative and the working directory is gone; `EACCES`,
    ///   `ELOOP`.
    static func of(_ path: String) throws(ProcessError) -> String {
        var existing = path.hasPrefix("/") ? path : "./" + path
        var missing: [Substring] = []
        while true {
            if let found = try resolve(existing) {
                return missing.reversed().reduce(found) { append($1, to: $0) }
            }
            while existing.hasSuffix("/") { existing.removeLast() }
            guard let slash = existing.lastIndex(of: "/") else {
                throw .system(call: "realpath", subject: path, code: ENOENT)
            }
            missing.append(existing[slash...].dropFirst())
            existing = slash == existing.startIndex ? "/" : String(existing[..<slash])
        }
    }

    /// Where the link at `path` leads; `nil` where there is no link.
    static func target(ofLink path: String) -> String? {
        let capacity = Int(PATH_MAX)
        return withUnsafeTemporaryAllocation(byteCount: capacity, alignment: 1) { buffer in
            guard let start = buffer.baseAddress else { return nil }
            let count = readlink(path, start.assumingMemoryBound(to: CChar.self), capacity)
            guard count > 0 else { return nil }
            return String(
                decoding: UnsafeRawBufferPointer(rebasing: buffer[..<count]),
                as: UTF8.self
            )
        }
    }

    private static func resolve(_ path: String) throws(ProcessError) -> String? {
        guard let found = realpath(path, nil) else {
            guard errno == ENOENT else { throw .last("realpath", path) }
            return nil
        }
        defer { free(found) }
        return String(cString: found)
    }

    private static func append(_ part: Substring, to path: String) -> String {
        let base = path == "/" ? "" : path
        switch part {
        case "", ".": return path
        case "..": return base.lastIndex(of: "/").map { String(base[..<$0]) }.nonEmpty ?? "/"
        default: return "\(base)/\(part)"
        }
    }
}

extension String? {
    fileprivate var nonEmpty: String? { self?.isEmpty == false ? self : nil }
}
