// Part of QTasks. License: see LICENSE.

import Glibc

/// Files of a few hundred bytes that are read whole: those of /proc, and lock files.
enum SmallFile {
    /// More than any of them has, `comm` and all 52 fields of `/proc/PID/stat` included.
    private static let bytesMax = 4096

    /// - Returns: What the file at `path` holds, or `nil` where it can't be opened or read.
    static func text(at path: String) -> String? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        return text(of: descriptor)
    }

    /// - Returns: The first 4 KiB of an open file, from its start; broken UTF-8 is repaired.
    static func text(of descriptor: Int32) -> String? {
        withUnsafeTemporaryAllocation(byteCount: bytesMax, alignment: 1) { buffer in
            let count = pread(descriptor, buffer.baseAddress, buffer.count, 0)
            guard count >= 0 else { return nil }
            return String(
                decoding: UnsafeRawBufferPointer(rebasing: buffer[..<count]),
                as: UTF8.self
            )
        }
    }
}
