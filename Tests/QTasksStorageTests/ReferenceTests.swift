// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksStorage
import QTasksWire
import Testing

/// Large arguments and results, which are told by their place.
@Suite
struct `What is large` {
    private static let arguments = String(repeating: "a", count: 500)
    private static let lease = Lease(incarnation: 7, counter: 1)
    private var bench = Bench()

    init() {
        var settings = Bench.settings()
        settings.placedBytesMin = 200
        bench.state = StorageState(settings: settings, now: bench.now)
        bench.state.brokerSession(incarnation: bench.log.incarnation, globalConfigPid: 0)
        _ = bench.state.flush()
        bench.propose(.reader(id: Bench.worker, true))
    }

    private var held: Int { bench.log.holds[1, default: 0] }

    private mutating func running(_ lease: Lease = Self.lease) throws -> TaskID {
        let id = try bench.addedTask(bench.submission("t", Self.arguments))
        bench.lease(id, lease)
        return id
    }

    /// The only grant that is told.
    private mutating func grant() throws -> LeasedTask? {
        for case .leased(_, let task, _) in try bench.synced() { return task }
        return nil
    }

    /// What the log has there.
    private func bytes(at place: PayloadReference) -> [UInt8] {
        let record = bench.log.records[Int(place.offset)].payload
        return Array(record[Int(place.start)..<Int(place.start + place.count)])
    }

    @Test mutating func `is leased by its place, which stays until the task isn't running`() throws
    {
        let id = try running()
        let place = try #require(try grant()?.arguments)
        #expect(bytes(at: place) == Array(Self.arguments.utf8))
        #expect(place.sequence == bench.place(of: id).sequence)
        #expect(held == 1 && bench.state.referenceCount == 1)
        bench.push(id, Self.lease)
        #expect(held == 0 && bench.state.referenceCount == 0)
    }

    @Test(arguments: [ReleaseCause.death, .handedBack, .notHeld, .drain, .goneBefore])
    mutating func `lets its segment go when the lease ends`(cause: ReleaseCause) throws {
        let id = try running()
        #expect(try grant()?.arguments != nil && held == 1)
        bench.release(id, Self.lease, cause, counts: cause == .death)
        #expect(held == 0)
    }

    @Test mutating func `is held once for a lease after the other, and over a Broker's sessions`()
        throws
    {
        let id = try running()
        #expect(try grant()?.arguments != nil)
        _ = try bench.snapshot()
        #expect(held == 1, "it still runs")
        bench.release(id, Self.lease)
        #expect(held == 0)
        let next = Lease(incarnation: 7, counter: 2)
        bench.lease(id, next)
        #expect(try grant()?.arguments == nil, "a new session's Broker has named no readers yet")
        bench.release(id, next)
        bench.propose(.reader(id: Bench.worker, true))
        bench.lease(id, Lease(incarnation: 7, counter: 3))
        #expect(try grant()?.arguments != nil && held == 1)
    }

    @Test mutating func `begins at 64 KiB, unless told otherwise`() throws {
        bench = Bench()
        bench.propose(.reader(id: Bench.worker, true))
        let text = String(repeating: "a", count: 64 << 10)
        for (counter, arguments) in [(1, String(text.dropLast())), (2, text)] as [(UInt32, String)]
        {
            let id = try bench.addedTask(bench.submission("t", arguments))
            bench.lease(id, Lease(incarnation: 7, counter: counter))
            let grant = try #require(try grant())
            #expect((grant.arguments != nil) == (counter == 2))
        }
    }

    @Test mutating func `comes with its bytes after a worker couldn't read it`() throws {
        let id = try running()
        #expect(try grant()?.arguments != nil)
        bench.release(id, Self.lease, .unreadable)
        let told = try bench.synced()
        #expect(told.contains(.released(3, .new, isSuspect: false)))
        let next = Lease(incarnation: 7, counter: 2)
        bench.lease(id, next)
        #expect(
            try bench.synced().contains {
                guard case .leased(_, let task, let arguments) = $0 else { return false }
                return task.arguments == nil && arguments == Array(Self.arguments.utf8)
            }
        )
        #expect(held == 0)
        // the log's format has no such cause
        try bench.reopen()
        bench.release(id, next)
        #expect(try bench.status(id) == .new)
    }

    @Test mutating func `comes with its bytes for who can't read the store`() throws {
        bench.propose(.reader(id: Bench.worker, false))
        _ = try running()
        #expect(try grant()?.arguments == nil && held == 0)
    }

    @Test mutating func `is told by its place with the add that brings the lease`() throws {
        let submission = bench.submission("t", Self.arguments)
        try bench.add(submission, lease: Self.lease)
        let place = try #require(try bench.placeWithAdd())
        #expect(bytes(at: place) == Array(Self.arguments.utf8))
        #expect(held == 1)
        bench.push(submission.id, Self.lease)
        #expect(held == 0)
    }

    @Test mutating func `isn't what is small`() throws {
        let id = try bench.addedTask(bench.submission("t", String(repeating: "a", count: 150)))
        bench.lease(id, Self.lease)
        #expect(try grant()?.arguments == nil && held == 0)
    }

    @Test(arguments: [(10, 10), (500, 10), (10, 500), (500, 500)])
    mutating func `is told to clients by its place, and comes to the same record`(
        sizes: (arguments: Int, result: Int)
    ) throws {
        let arguments = String(repeating: "a", count: sizes.arguments)
        let id = try bench.addedTask(bench.submission("t", arguments))
        bench.lease(id, Self.lease)
        _ = try bench.synced()
        let result = [UInt8](repeating: 9, count: sizes.result)
        bench.push(id, Self.lease, .success(result: result, contentType: nil))
        _ = try bench.synced()
        let whole = try bench.rawRecord(id, isWhole: true)
        let told = try bench.rawRecord(id, isWhole: false)
        let isLarge = sizes.arguments > 200 || sizes.result > 200
        #expect(isLarge == (told.first == PlacedRecord.mark))
        guard isLarge else { return #expect(told == whole) }
        let assembled = try told.withUnsafeBytes { bytes -> [UInt8] in
            let placed = try PlacedRecord(bytes)
            #expect(placed.count == whole.count && placed.status == .success)
            var target = [UInt8](repeating: 0, count: placed.count)
            let isRead = target.withUnsafeMutableBytes { target in
                placed.assemble(into: target) { place, target in
                    target.copyBytes(from: self.bytes(at: place))
                    return true
                }
            }
            #expect(isRead)
            return target
        }
        #expect(assembled == whole)
        #expect(told.count < 400 + min(sizes.arguments, 200) + min(sizes.result, 200))
    }

    @Test mutating func `is an add's envelope in a frame of its own`() throws {
        let submission = bench.submission("t", Self.arguments)
        var envelope = WireWriter()
        try submission.write(to: &envelope)
        var message = WireWriter(.propose, number: bench.state.sessionNumber ?? 0)
        Proposal.add(
            number: 1,
            isWatched: false,
            lease: .none,
            worker: Bench.worker,
            envelope: UnsafeRawBufferPointer(start: nil, count: 0)
        ).write(to: &message)
        message.bytes.withUnsafeBytes { message in
            envelope.bytes.withUnsafeBytes { envelope in
                bench.state.brokerMessage(
                    message,
                    attachment: envelope,
                    now: bench.now,
                    log: bench.log
                )
            }
        }
        #expect(
            try bench.synced() == [.added(1, sequence: 1, leased: false, isDelayed: false)]
        )
        #expect(try bench.record(submission.id)?.submission == submission)
    }
}

extension Bench {
    /// Where the arguments lie of the task that was added with a lease, as the verdict says.
    fileprivate mutating func placeWithAdd() throws -> PayloadReference? {
        log.sync()
        var place: PayloadReference?
        try forEachVerdict { verdict in
            if case .added(_, _, _, _, _, let arguments) = verdict { place = arguments }
        }
        return place
    }

    fileprivate mutating func rawRecord(_ id: TaskID, isWhole: Bool) throws -> [UInt8] {
        propose(.read(number: 78, id: id, isWhole: isWhole))
        log.sync()
        var bytes: [UInt8] = []
        try forEachVerdict { verdict in
            if case .record(78, let record) = verdict { bytes = Array(record) }
        }
        return bytes
    }

    private mutating func forEachVerdict(_ body: (Verdict) -> Void) throws {
        state.watermarks(log.marks, log: log)
        for message in state.flush().toBroker {
            try message.withUnsafeBytes { bytes in
                var reader = WireReader(bytes)
                guard try MessageHeader.read(from: &reader).command == .verdicts else { return }
                _ = try reader.raw(16, "watermarks")
                while !reader.isAtEnd { body(try Verdict(from: &reader)) }
            }
        }
    }
}
