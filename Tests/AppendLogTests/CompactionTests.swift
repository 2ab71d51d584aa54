// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc
import QTasksProcess
import Testing

@testable import AppendLog

/// The steps of a compaction and of a checkpoint, one by one, and where each may break off.
@Suite
struct `A compaction` {
    private let disk = SimulatedDisk(seed: 1)
    private var opened: OpenedTable
    private var log: Log {
        opened.log
    }

    /// One thing in the first segment, and another that fills the second.
    init() throws {
        opened = try OpenedTable(disk, .small)
        try put(1, bytes: 100)
        while log.segments.count < 3 { try put(2, bytes: 1000) }
        try log.flush()
        settle()
    }

    private mutating func put(_ key: UInt8, bytes: Int) throws {
        let change = Change.put(key: key, value: payload(Int(key), bytes: bytes))
        _ = try opened.table.append(change, to: opened.log)
    }

    private func settle() {
        while log.runOneWrite() || log.runOneSync() || log.runOnePreparation() || log.runOneKeep() {
        }
    }

    private mutating func compact() {
        #expect(log.beginCompaction())
        while log.isCompacting {
            if opened.table.compact(log, carriesState: true) == .waiting { _ = log.runOneKeep() }
        }
    }

    @Test mutating func `removes its segment when the copies are durable and both pages say so`() {
        compact()
        let path = segmentPath(1)
        #expect(!log.runOneKeep(), "the copies aren't even written")
        while log.runOneWrite() {}
        #expect(!log.runOneKeep(), "the copies aren't synced")
        #expect(log.runOneSync())
        #expect(!log.runOneKeep(), "no page says so")
        #expect(log.runOneSync())
        #expect(!log.runOneKeep(), "the other page leads there yet")
        #expect(disk.contents(of: path) != nil)
        #expect(log.runOneSync())
        #expect(log.runOneKeep())
        #expect(disk.contents(of: path) == nil)
    }

    @Test mutating func `keeps a segment that is held, until it isn't`() throws {
        let position = try #require(opened.table.entries[1]?.position)
        let before = try log.read(position)
        log.hold(1)
        log.hold(1)
        compact()
        settle()
        #expect(try log.read(position) == before)
        log.unhold(1)
        settle()
        #expect(try log.read(position) == before)
        log.unhold(1)
        settle()
        #expect(disk.contents(of: segmentPath(1)) == nil)
        #expect(log.segments.first?.index == 2)
        let moved = try #require(opened.table.entries[1]?.position)
        #expect(try log.read(moved).suffix(100) == before.suffix(100))
    }

    /// A carried record behind a tear used to count: it contained a change that was torn away, whose
    /// sequence the next change then got.
    @Test mutating func `gives nothing away that was torn before it`() throws {
        let last = log.lastSequence
        #expect(log.beginCompaction())
        _ = try opened.table.append(.update(key: 1, with: 7), to: log)
        log.submit(sync: false)
        #expect(log.runOneWrite())
        let torn = log.segments.last?.index ?? 0
        let updates = try #require(disk.contents(of: segmentPath(torn)))
        while log.isCompacting, opened.table.entries[1]?.position.segment == 1 {
            if opened.table.compact(log, carriesState: true) == .waiting { _ = log.runOneKeep() }
        }
        log.submit(sync: false)
        #expect(log.runOneWrite())
        disk.endProcess()
        for bytesTorn in [24 + 32, 32, 24] {
            // the group with the update reads as zeros, or half of it does
            let copy = disk.copy()
            var bytes = try #require(copy.contents(of: segmentPath(torn)))
            let end = try #require(lastRecordEnd(updates))
            for index in end - bytesTorn..<end { bytes[index] = 0 }
            copy.setContents(of: segmentPath(torn), to: bytes)

            let isUpdateThere = bytesTorn == 24 && end - 24 > updates.count
            var again = try OpenedTable(copy, .small)
            #expect(again.log.lastSequence == last + (isUpdateThere ? 1 : 0), "\(bytesTorn)")
            #expect(again.table.entries[1]?.updates == [], "\(bytesTorn)")
            _ = try again.table.append(.update(key: 1, with: 9), to: again.log)
            try again.log.close()
            let found = try OpenedTable(copy, .small)
            #expect(found.table.entries[1]?.updates == [9], "\(bytesTorn)")
        }
    }

    /// Where the last record ends, before zeros.
    private func lastRecordEnd(_ bytes: [UInt8]) -> Int? {
        bytes.lastIndex { $0 != 0 }.map { $0 / 8 * 8 + 8 }
    }

    @Test func `takes no late answer for its own`() {
        var keeping = LogKeeping()
        let read = CompactionRead(segment: 1, salt: 1, limit: 5000, offset: 1024)
        keeping.beginCompaction(read)
        keeping.beginRead()
        keeping.wasRead(CompactionBatch(read, path: segmentPath(9), disk))
        keeping.endCompaction()

        var later = read
        later.offset = 3000
        keeping.beginCompaction(read)
        keeping.beginRead()
        keeping.wasRead(CompactionBatch(later, path: segmentPath(9), disk))
        #expect(keeping.takeBatch() == nil, "it would have passed over everything before 3000")
    }

    @Test func `is read for while a checkpoint waits for the disk`() {
        var keeping = LogKeeping()
        let checkpoint = Checkpoint(
            number: 1,
            salt: 1,
            incarnation: 1,
            startSequence: 0,
            start: RecordPosition(segment: 1, offset: 0)
        )
        keeping.beginCheckpoint(checkpoint)
        keeping.addToCheckpoint(GroupBuffer(capacity: 64), at: 0)
        let write = keeping.job(durableEnd: RecordPosition(segment: 1, offset: 0), pages: [])
        if let write { keeping.begin(write) }
        #expect(keeping.isBusy)
        keeping.beginCompaction(CompactionRead(segment: 1, salt: 1, limit: 5000, offset: 1024))
        #expect(keeping.nextRead?.offset == 1024)
        keeping.beginRead()
        #expect(keeping.nextRead == nil, "one at a time")
    }

    @Test mutating func `that can't read its segment leaves it, and the log goes on`() throws {
        disk.fail(.read, after: 0, errno: EIO)
        #expect(log.beginCompaction())
        var step = CompactionStep.waiting
        while step == .waiting {
            _ = log.runOneKeep()
            step = opened.table.compact(log, carriesState: true)
        }
        #expect(step == .damaged(RecordPosition(segment: 1, offset: 1024)))
        #expect(log.failure == nil && !log.isCompacting)
        compact()
        settle()
        #expect(log.segments.first?.index == 2)
    }

    @Test mutating func `stops at a record that has rotted, and drops none unread`() throws {
        var bytes = try #require(disk.contents(of: segmentPath(1)))
        bytes[1024 + 24 + 24 + 50] ^= 1
        disk.setContents(of: segmentPath(1), to: bytes)
        #expect(log.beginCompaction())
        var step = CompactionStep.waiting
        while step == .waiting || step == .record {
            step = opened.table.compact(log, carriesState: true)
            _ = log.runOneKeep()
        }
        #expect(step == .damaged(RecordPosition(segment: 1, offset: 1048)))
        settle()
        #expect(log.segments.first?.index == 1)
        #expect(disk.contents(of: segmentPath(1)) != nil)
    }

    @Test mutating func `reads a segment that is longer than what is read at a time`() throws {
        let disk = SimulatedDisk(seed: 2)
        let options = LogOptions(
            segmentBytes: 5 << 20,
            recordBytesMax: 3 << 20,
            zeroFillAheadBytes: 0
        )
        var opened = try OpenedTable(disk, options)
        for key in UInt8(0)..<60 {
            let bytes = key % 20 == 7 ? (2 << 20) + 77 : 60_000
            let change = Change.put(key: key, value: payload(Int(key), bytes: bytes))
            _ = try opened.table.append(change, to: opened.log)
        }
        try opened.log.flush()
        let contents = try opened.contents()
        let first = opened.log.segments[0].index
        #expect(opened.log.beginCompaction())
        while opened.log.isCompacting {
            if opened.table.compact(opened.log, carriesState: false) == .waiting {
                _ = opened.log.runOneKeep()
            }
        }
        #expect(opened.log.segments[0].index == first + 1)
        try opened.log.close()
        #expect(try OpenedTable(disk, options).contents() == contents)
    }
}

@Suite
struct `A checkpoint` {
    private let disk = SimulatedDisk(seed: 1)

    private func write(_ opened: OpenedTable) {
        opened.log.beginCheckpoint()
        opened.table.block([0, 1, 2, 3]).withUnsafeBytes { opened.log.addCheckpointBlock($0) }
        opened.log.endCheckpoint(stamp: 5)
        while opened.log.runOneWrite() || opened.log.runOneSync() || opened.log.runOneKeep() {}
    }

    @Test func `gets its name when the log is as far as it`() throws {
        var opened = try OpenedTable(disk)
        _ = try opened.table.append(.put(key: 1, value: [1]), to: opened.log)
        opened.log.beginCheckpoint()
        opened.log.endCheckpoint(stamp: 5)
        while opened.log.runOneKeep() {}
        #expect(opened.log.checkpoints.isEmpty)
        #expect(opened.log.runOneWrite())
        while opened.log.runOneKeep() {}
        #expect(opened.log.checkpoints.isEmpty)
        #expect(opened.log.runOneSync())
        #expect(opened.log.runOneKeep())
        #expect(opened.log.checkpoints.map(\.stamp) == [5])
    }

    /// An opening drops a last segment without records; a checkpoint that began there spoke of a place
    /// that was gone.
    @Test func `of an idle log counts, however often the process is killed`() throws {
        var opened = try OpenedTable(disk)
        for key in UInt8(0)..<3 {
            _ = try opened.table.append(.put(key: key, value: [key]), to: opened.log)
        }
        try opened.log.flush()
        disk.endProcess()
        opened = try OpenedTable(disk)
        write(opened)
        for _ in 0..<4 {
            disk.endProcess()
            opened = try OpenedTable(disk)
            #expect(opened.log.recovery.checkpoint == 1)
            #expect(opened.log.recovery.records == 0)
            #expect(try opened.contents().things.count == 3)
        }
    }

    @Test func `is passed over by an owner that can't use it, and the older one tried`() throws {
        var opened = try OpenedTable(disk)
        for key in UInt8(0)..<3 {
            _ = try opened.table.append(.put(key: key, value: [key]), to: opened.log)
            try opened.log.flush()
            write(opened)
        }
        try opened.log.close()
        var begun = 0
        var records = 0
        let listener = LogListener(
            restore: { part in
                if case .begin = part { begun += 1 }
                if case .end = part { return begun == 3 }
                return true
            },
            replay: { _ in records += 1 }
        )
        let log = try Log.open(
            at: Opened.directory,
            options: .small,
            files: disk,
            driver: .manual,
            listener: listener
        )
        #expect(log.recovery.checkpoint == 1)
        #expect(records == 2)
        #expect(log.checkpoints.map(\.number) == [1])
    }

    @Test func `leaves nothing of an earlier attempt behind its end`() throws {
        let opened = try OpenedTable(disk)
        let path = "\(Opened.directory)/checkpoint-0000000001.new"
        disk.setContents(of: path, to: [UInt8](repeating: 7, count: 10_000))
        write(opened)
        try opened.log.close()
        #expect(try OpenedTable(disk).log.recovery.checkpoint == 1)
    }

    @Test func `and segments keep the owner's stamp, which never falls`() throws {
        for round in 0..<3 {
            let log = try OpenedTable(disk).log
            #expect(log.stamp == UInt64(round * 100))
            log.stamp = UInt64((round + 1) * 100)
            log.stamp = 3
            for number in 0..<30 { try log.append(kind: 3, payload: payload(number, bytes: 900)) }
            try log.flush()
            let stamps = log.segments.map(\.stamp)
            #expect(stamps == stamps.sorted())
            #expect(stamps.last == UInt64((round + 1) * 100))
            if round == 1 { disk.endProcess() } else { try log.close() }
        }
    }
}

/// The whole of it with the log's own threads, on the real file system.
@Suite(.timeLimit(.minutes(10)))
struct `An owner with threads` {
    private static let options = {
        var options = LogOptions(
            segmentBytes: 64 << 10,
            recordBytesMax: 10_000,
            zeroFillAheadBytes: 16 << 10,
            zeroFillChunkBytes: 8 << 10
        )
        (options.quotaBytes, options.reserveBytes) = (2 << 20, 256 << 10)
        return options
    }()

    @Test func `compacts and checkpoints while it appends, and others read`() throws {
        let home = try TemporaryFolder()
        let event = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
        defer { close(event) }
        var expected = Contents()
        for round in 0..<4 {
            var table = Table()
            let listener = LogListener(
                restore: { table.restore($0) },
                replay: { table.replay($0) }
            )
            // let go of without a close in every other round
            let log = try Log.open(
                at: home.path,
                options: Self.options,
                onProgress: { eventfd_write(event, 1) },
                listener: listener
            )
            #expect(try contents(table, log) == expected)
            #expect(log.recovery.wasClean == (round == 2))
            let reader = Reader(home.path)
            try work(&table, log, &expected, event)
            #expect(try contents(table, log) == expected)
            reader.end()
            if round % 2 == 1 { try log.close() }
        }
    }

    private func contents(_ table: Table, _ log: Log) throws -> Contents {
        try table.contents { position in
            try log.withRecord(at: position) { ($0.kind, [UInt8]($0.payload)) }
        }
    }

    private func work(
        _ table: inout Table,
        _ log: Log,
        _ expected: inout Contents,
        _ event: Int32
    ) throws {
        var chance = SimulatedDisk.Chance(seed: UInt64(log.incarnation))
        var compactions = 0
        for turn in 0..<3000 {
            let key = UInt8.random(in: 0..<40, using: &chance)
            let size = Int.random(in: 0..<600, using: &chance)
            let change: Change =
                switch turn % 5 {
                case 0, 1: .put(key: key, value: payload(turn, bytes: size))
                case 2, 3: .update(key: key, with: UInt8(truncatingIfNeeded: turn))
                default: .end(key: key)
                }
            // the number of updates is a byte in a state
            guard expected.things[key]?.updates.count ?? 0 < 90 || turn % 5 != 2 && turn % 5 != 3
            else {
                continue
            }
            _ = try table.append(change, to: log)
            expected.apply(change)
            if turn % 4 == 0 { log.submit(sync: turn % 8 == 0) }
            // an owner that never waits for its disk leaves nothing durable to compact
            while log.bytesNotDurable > 64 << 10 {
                log.submit(sync: true)
                try wait(event)
            }
            if log.isCompacting {
                if table.compact(log, carriesState: turn % 2 == 0) == .waiting {
                    log.submit()
                    try wait(event)
                }
                if !log.isCompacting { compactions += 1 }
            } else if log.segments.count > 2 {
                _ = log.beginCompaction()
            }
            if turn % 500 == 250, !log.isWritingCheckpoint {
                for old in log.checkpoints.dropLast() { log.removeCheckpoint(old.number) }
                log.beginCheckpoint()
                table.block(ArraySlice(0..<20)).withUnsafeBytes { log.addCheckpointBlock($0) }
                table.block(ArraySlice(20..<40)).withUnsafeBytes { log.addCheckpointBlock($0) }
                log.endCheckpoint(stamp: UInt64(turn))
            }
        }
        try log.flush()
        #expect(compactions > 1)
        #expect(log.failure == nil)
    }

    private func wait(_ event: Int32) throws {
        var waiting = pollfd(fd: event, events: Int16(POLLIN), revents: 0)
        let isReady = poll(&waiting, 1, 20_000)
        try #require(isReady == 1, "no word in 20 s")
        var count: eventfd_t = 0
        eventfd_read(event, &count)
    }

    /// Reads the store over and over on a thread of its own.
    ///
    /// Unchecked, because: only the atomics are shared while the thread runs.
    private final class Reader: @unchecked Sendable {
        private let directory: String
        private var thread = pthread_t()
        private let isOver = Flag()

        init(_ directory: String) {
            self.directory = directory
            let argument = Unmanaged.passRetained(self)
            pthread_create(
                &thread,
                nil,
                { argument in
                    guard let argument else { return nil }
                    Unmanaged<Reader>.fromOpaque(argument).takeRetainedValue().work()
                    return nil
                },
                argument.toOpaque()
            )
        }

        func end() {
            isOver.raise()
            pthread_join(thread, nil)
        }

        private func work() {
            var last: UInt64 = 0
            repeat {
                do {
                    let reader = try LogReader(directory)
                    let report = reader.forEach { _ in }
                    if report.isDamaged || report.lastSequence < last {
                        Issue.record("a reader meanwhile: \(report), after \(last)")
                    }
                    last = report.lastSequence
                } catch {
                    Issue.record("a reader meanwhile: \(error)")
                }
            } while !isOver.isRaised
        }
    }
}
