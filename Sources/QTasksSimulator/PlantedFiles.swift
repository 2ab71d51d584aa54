// Part of QTasks. License: see LICENSE.

import AppendLog
import Synchronization

/// The disk as a log sees it that makes a mistake with its files: between the log and the disk.
final class PlantedFiles: LogFiles {
    let disk: SimulatedDisk
    let plant: PlantedFault

    /// The meta page's file, by whoever has it open.
    private let metaFiles = Mutex<Set<LogFileHandle>>([])

    init(_ disk: SimulatedDisk, _ plant: PlantedFault) {
        self.disk = disk
        self.plant = plant
    }

    func open(_ path: String, _ mode: LogFileMode) throws(AppendLogError) -> LogFileHandle {
        let file = try disk.open(path, mode)
        if path == Self.meta { metaFiles.withLock { _ = $0.insert(file) } }
        return file
    }

    private static let meta = "\(World.store)/meta"

    func close(_ file: LogFileHandle) {
        metaFiles.withLock { _ = $0.remove(file) }
        disk.close(file)
    }

    func read(
        _ file: LogFileHandle,
        at offset: Int,
        into buffer: UnsafeMutableRawBufferPointer
    ) throws(AppendLogError) -> Int {
        try disk.read(file, at: offset, into: buffer)
    }

    func write(
        _ file: LogFileHandle,
        _ buffers: [UnsafeRawBufferPointer],
        at offset: Int
    ) throws(AppendLogError) {
        try disk.write(file, buffers, at: offset)
    }

    func syncData(_ file: LogFileHandle) throws(AppendLogError) {
        do throws(AppendLogError) {
            try disk.syncData(file)
        } catch {
            guard plant == .tailReusedAfterAFailedSync else { throw error }
            // the pages are clean now: the second call has nothing to do, and so nothing to complain of
            try disk.syncData(file)
        }
        if plant == .filesOfTheOlderMetaDeleted, metaFiles.withLock({ $0.contains(file) }) {
            removeUnnamed()
        }
    }

    /// Removes what the newest meta page alone doesn't name.
    private func removeUnnamed() {
        guard let meta = disk.contents(of: Self.meta), meta.count >= 8192 else { return }
        func number(_ offset: Int, _ bytes: Int) -> UInt64 {
            meta[offset..<offset + bytes].reversed().reduce(0) { $0 << 8 | UInt64($1) }
        }
        let page = number(16, 8) > number(4096 + 16, 8) ? 0 : 4096
        let first = number(page + 40, 4)
        for name in (try? disk.list(World.store)) ?? [] where name.hasPrefix("segment-") {
            guard let index = UInt64(name.dropFirst("segment-".count)), index < first else {
                continue
            }
            try? disk.remove("\(World.store)/\(name)")
        }
    }

    func syncDirectory(_ path: String) throws(AppendLogError) { try disk.syncDirectory(path) }

    func rename(_ path: String, to newPath: String) throws(AppendLogError) {
        try disk.rename(path, to: newPath)
    }

    func remove(_ path: String) throws(AppendLogError) {
        do throws(AppendLogError) {
            try disk.remove(path)
        } catch {
            // it went before
            guard plant == .filesOfTheOlderMetaDeleted else { throw error }
        }
    }

    func list(_ directory: String) throws(AppendLogError) -> [String] { try disk.list(directory) }

    func size(_ file: LogFileHandle) throws(AppendLogError) -> Int { try disk.size(file) }

    func createDirectory(_ path: String) throws(AppendLogError) -> Bool {
        try disk.createDirectory(path)
    }

    func lock(_ path: String) throws(AppendLogError) -> LogFileHandle { try disk.lock(path) }

    func map(_ path: String) throws(AppendLogError) -> LogMapping { try disk.map(path) }

    func fileSystem(of directory: String) throws(AppendLogError) -> LogFileSystem {
        try disk.fileSystem(of: directory)
    }

    func space(of directory: String) throws(AppendLogError) -> LogFileSystemSpace {
        try disk.space(of: directory)
    }

    func salt() -> UInt32 { disk.salt() }
}
