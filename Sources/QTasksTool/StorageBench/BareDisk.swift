// Part of QTasks. License: see LICENSE.

import Glibc
import QTasks

/// What the disk can do without a log: plain writes and syncs of a file that is filled with zeros.
struct BareDisk: ~Copyable {
    private let file: Int32
    private var offset = 0
    private let size: Int

    init(_ path: String, bytes: Int) throws {
        file = try Self.makeFile(path, bytes)
        size = bytes
    }

    private static func makeFile(_ path: String, _ bytes: Int) throws -> Int32 {
        let file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard file >= 0 else { throw QTasksError(.badHome, "\(path): errno \(errno)") }
        let zeros = [UInt8](repeating: 0, count: 1 << 20)
        for place in stride(from: 0, to: bytes, by: zeros.count) {
            guard pwrite(file, zeros, zeros.count, place) == zeros.count else {
                close(file)
                throw QTasksError(.storageUnavailable, "\(path): errno \(errno)")
            }
        }
        fdatasync(file)
        return file
    }

    deinit {
        close(file)
    }

    /// Writes the next bytes, from the beginning again where the file ends.
    mutating func write(_ bytes: [UInt8]) {
        if offset + bytes.count > size { offset = 0 }
        _ = pwrite(file, bytes, bytes.count, offset)
        offset += bytes.count
    }

    func sync() {
        fdatasync(file)
    }
}
