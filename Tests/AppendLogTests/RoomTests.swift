// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksProcess
import Testing

@testable import AppendLog

/// Quota, reserve and the share that stays free.
@Suite
struct `Room in a log` {
    private let disk = SimulatedDisk(seed: 1)

    private func options(quota: Int?, reserve: Int = 20_000, zeroFill: Bool = true) -> LogOptions {
        var options = LogOptions.small
        if !zeroFill { options.zeroFillAheadBytes = 0 }
        (options.quotaBytes, options.reserveBytes) = (quota, reserve)
        return options
    }

    private func run(_ log: Log) {
        while log.runOneWrite() || log.runOneSync() || log.runOnePreparation() || log.runOneKeep() {
        }
        #expect(log.failure == nil)
    }

    @Test(arguments: [true, false], [1, 7, 1000])
    func `is never used beyond the quota, however much is appended at a time`(
        zeroFill: Bool,
        burst: Int
    ) throws {
        let log = try Opened(disk, options(quota: 60_000, zeroFill: zeroFill)).log
        var isFull = false
        var sawLittle = false
        while !isFull {
            for number in 0..<burst where !isFull {
                do {
                    try log.append(kind: 1, payload: payload(number, bytes: 20 + number % 300))
                } catch {
                    #expect(error.isNoSpace)
                    isFull = true
                }
            }
            log.submit()
            run(log)
            #expect(disk.bytesUsed <= 60_000)
            #expect(log.bytesUsed == disk.bytesUsed)
            if !log.hasRoom, !isFull { sawLittle = true }
        }
        #expect(sawLittle == (burst < 1000), "the reserve is for what goes on")
        #expect(disk.bytesUsed > 60_000 - 9000)
        let last = log.lastSequence
        #expect(log.watermarks().durable == last)
        try log.close()
        #expect(try Opened(disk).log.lastSequence == last)
    }

    @Test func `short from the opening on is said at once`() throws {
        let log = try Opened(disk, options(quota: nil)).log
        for number in 0..<100 { try log.append(kind: 1, payload: payload(number, bytes: 500)) }
        try log.close()
        let used = disk.bytesUsed
        let again = try Opened(disk, options(quota: used + 5000)).log
        #expect(!again.hasRoom)
        #expect(try again.append(kind: 1, payload: []).sequence == 101, "there is the reserve")
        try again.close()
        #expect(try Opened(disk, options(quota: used + 30_000)).log.hasRoom)
    }

    @Test func `comes back when compaction has removed files, which goes through the reserve`()
        throws
    {
        let opened = try OpenedTable(disk, options(quota: 60_000))
        var table = opened.table
        let log = opened.log
        var key: UInt8 = 0
        while log.hasRoom {
            // what is put a few times over is dead but for the last
            key = (key + 1) % 10
            _ = try table.append(.put(key: key, value: payload(Int(key), bytes: 400)), to: log)
            log.submit()
            run(log)
        }
        let used = log.bytesUsed
        for _ in 0..<3 {
            #expect(log.beginCompaction())
            var step = CompactionStep.waiting
            while step != .finished {
                step = table.compact(log, carriesState: false)
                run(log)
                #expect(disk.bytesUsed <= 60_000)
            }
        }
        #expect(log.bytesUsed < used - 8000)
        #expect(log.hasRoom)
        let contents = try table.contents { position in
            try log.withRecord(at: position) { ($0.kind, [UInt8]($0.payload)) }
        }
        #expect(contents.things.count == 10)
        try log.close()
        #expect(try OpenedTable(disk).contents() == contents)
    }

    @Test func `that is missing for a carried record keeps the segment`() throws {
        let opened = try OpenedTable(disk, options(quota: 40_000, reserve: 0))
        var table = opened.table
        let log = opened.log
        var isFull = false
        while !isFull {
            let key = UInt8(truncatingIfNeeded: log.lastSequence)
            do throws(AppendLogError) {
                _ = try table.append(.put(key: key, value: payload(3, bytes: 300)), to: log)
            } catch {
                isFull = true
            }
            log.submit()
            run(log)
        }
        let first = log.segments[0].index
        #expect(log.beginCompaction())
        var failures = 0
        while log.isCompacting {
            _ = log.compactNext { record in
                let bytes = record.payload.count
                do throws(AppendLogError) {
                    _ = try log.carry(record, kind: 1, payloadBytes: bytes) { $0[0] = 0 }
                } catch {
                    failures += 1
                }
            }
            run(log)
        }
        #expect(failures > 0)
        #expect(log.segments[0].index == first)
        #expect(log.beginCompaction(), "it can be tried again")
        log.abandonCompaction()
        log.submit()
        run(log)
        #expect(disk.contents(of: segmentPath(first)) != nil)
        #expect(try OpenedTable(disk.copy()).contents().things.count == table.entries.count)
    }

    @Test func `is short where the share that stays free is reached`() throws {
        var options = options(quota: nil)
        options.freeShare = 0.25
        disk.setCapacity(80_000)
        let log = try Opened(disk, options).log
        run(log)
        #expect(log.hasRoom)
        while log.hasRoom {
            try log.append(kind: 1, payload: payload(1, bytes: 500))
            log.submit()
            run(log)
        }
        #expect((59_000...64_000).contains(disk.bytesUsed), "\(disk.bytesUsed)")
        try log.append(kind: 1, payload: payload(1, bytes: 500))
        disk.setCapacity(200_000)
        log.retrySpace()
        run(log)
        #expect(log.hasRoom)
        disk.setCapacity(disk.bytesUsed + 1000)
        try log.close()
        let again = try Opened(disk, options).log
        run(again)
        #expect(!again.hasRoom, "known without a record appended")
    }

    @Test(arguments: SimulatedDisk.Call.allCases.filter { $0 != .read })
    func `that a checkpoint lacks costs the checkpoint only`(call: SimulatedDisk.Call) throws {
        let opened = try OpenedTable(disk, options(quota: nil, zeroFill: false))
        var table = opened.table
        let log = opened.log
        for key in UInt8(0)..<20 { _ = try table.append(.put(key: key, value: [key]), to: log) }
        try log.flush()
        disk.fail(call, after: 0, errno: ENOSPC)
        for isSecond in [false, true] {
            log.beginCheckpoint()
            table.block([0, 1, 2]).withUnsafeBytes { log.addCheckpointBlock($0) }
            run(log)
            log.endCheckpoint(stamp: 0)
            run(log)
            #expect(!log.isWritingCheckpoint)
            #expect(log.failure == nil)
            let isLacking = [.write, .sync, .syncDirectory, .open, .rename].contains(call)
            #expect(log.checkpointFailure?.isNoSpace == (isSecond || !isLacking ? nil : true))
            #expect(log.checkpoints.isEmpty == (isLacking && !isSecond))
        }
        let left = try disk.list(Opened.directory).filter { $0.hasSuffix(".new") }
        #expect(left.isEmpty)
        try log.close()
        #expect(try OpenedTable(disk).log.recovery.checkpoint != nil)
    }

    @Test func `an opening that meets a full disk leaves nothing behind`() throws {
        let log = try Opened(disk).log
        for number in 0..<20 { try log.append(kind: 1, payload: payload(number, bytes: 300)) }
        log.submit()
        while log.runOneWrite() {}
        disk.endProcess()
        let used = disk.bytesUsed
        disk.setCapacity(used + 1000)
        for _ in 0..<3 {
            #expect(throws: AppendLogError.self) { try Opened(disk) }
            #expect(disk.bytesUsed <= used + 16, "the lock alone")
            disk.endProcess()
        }
        disk.setCapacity(.max)
        #expect(try Opened(disk).entries.count == 20)
    }
}

/// The kernel's own full disk.
@Suite(.timeLimit(.minutes(10)))
struct `A file system that is full` {
    private static let canMount: Bool = {
        guard let mount = try? Mount(bytes: 1 << 20) else { return false }
        return mount.isMounted
    }()

    @Test(.enabled(if: canMount, "mounting needs root"))
    func `stops new work, loses nothing, and goes on when there is room`() throws {
        let mount = try Mount(bytes: 6 << 20)
        let options = LogOptions(
            segmentBytes: 1 << 20,
            recordBytesMax: 1 << 16,
            zeroFillAheadBytes: 1 << 19,
            zeroFillChunkBytes: 1 << 17
        )
        let filler = "\(mount.path)/filler"
        let file = try PosixFiles().open(filler, .create)
        let zeros = [UInt8](repeating: 1, count: 2 << 20)
        try zeros.withBytes { (bytes) throws(AppendLogError) in
            try PosixFiles().write(file, [bytes], at: 0)
        }
        PosixFiles().close(file)

        let directory = "\(mount.path)/store"
        let log = try Log.open(at: directory, options: options) { _ in }
        #expect(log.isInMemory)
        while log.hasRoom {
            try log.append(kind: 1, payload: payload(1, bytes: 4000))
            try log.flush()
        }
        var isFull = false
        while !isFull {
            do throws(AppendLogError) {
                try log.append(kind: 1, payload: payload(2, bytes: 4000))
                try log.flush()
            } catch {
                guard case .outOfSpace = error else { throw error }
                isFull = true
            }
        }
        #expect(log.failure == nil)
        unlink(filler)
        let until = ContinuousClock.now + .seconds(20)
        while !log.hasRoom, ContinuousClock.now < until {
            log.retrySpace()
            sched_yield()
        }
        #expect(log.hasRoom)
        try log.append(kind: 1, payload: payload(3, bytes: 4000))
        let last = log.lastSequence
        try log.close()
        var count: UInt64 = 0
        let again = try Log.open(at: directory, options: options) { _ in count += 1 }
        #expect(count == last)
        try again.close()
    }

    /// A tmpfs, gone with the value.
    final class Mount {
        private let home: TemporaryFolder
        let isMounted: Bool

        var path: String {
            home.path
        }

        init(bytes: Int) throws {
            home = try TemporaryFolder()
            isMounted = mount("tmpfs", home.path, "tmpfs", 0, "size=\(bytes)") == 0
        }

        deinit {
            if isMounted { umount2(home.path, Int32(MNT_DETACH)) }
        }
    }
}
