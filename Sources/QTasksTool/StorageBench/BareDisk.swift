// Part of QTasks. License: see LICENSE.

import Glibc
import QTasks
import QTasksProcess

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

    /// Waits until nothing of what was written or removed before is still under way, 20 seconds at most: what a
    /// row leaves behind, gigabytes at times, isn't the next one's to pay for.
    ///
    /// Where the file system has the disk discard what is freed, whoever frees something waits behind that.
    static func waitUntilQuiet(_ folder: TemporaryFolder) throws {
        Glibc.sync()
        let start = Stopwatch.now()
        var quick = 0
        while quick < 50, Stopwatch.seconds(since: start) < 20 {
            let before = Stopwatch.now()
            let path = "\(folder.path)/quiet"
            let file = try makeFile(path, 1 << 20)
            ftruncate(file, 0)
            fsync(file)
            close(file)
            unlink(path)
            quick = Stopwatch.now() - before < 15_000_000 ? quick + 1 : 0
            usleep(20_000)
        }
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
