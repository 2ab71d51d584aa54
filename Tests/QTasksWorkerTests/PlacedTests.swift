// Part of QTasks. License: see LICENSE.

import AppendLog
import QTasksModel
import QTasksWire
import Testing

@testable import QTasksWorker

/// Arguments that a worker reads in the store.
@Suite
struct `Arguments in the store` {
    private static let directory = "/store"
    private static let head = 12

    private let disk = SimulatedDisk(seed: 3)
    private let log: Log
    private var bench = Bench()

    init() throws {
        log = try Log.open(at: Self.directory, files: disk, driver: .manual) { _ in }
    }

    private var store: LogRecords { LogRecords(Self.directory, files: disk) }

    private mutating func hear(_ bytes: [UInt8]) throws {
        bytes.withUnsafeBytes { bench.state.receive($0, now: bench.now, store: store) }
        try bench.turn()
    }

    private mutating func beginSession() throws {
        let welcome = Welcome(
            incarnation: 1,
            maxPayload: 1 << 24,
            windowTasks: 1000,
            brokerPid: 43
        )
        try hear(welcome.encoded())
        try hear(WireWriter(.reconciled).bytes)
    }

    /// A record with a task's envelope, and where its arguments lie.
    private func save(_ submission: TaskSubmission) throws -> (PayloadReference, head: [UInt8]) {
        var writer = WireWriter()
        writer.raw([UInt8](repeating: 5, count: Self.head))
        try submission.write(to: &writer)
        let (sequence, position) = try log.append(kind: 1, payload: writer.bytes)
        log.submit()
        while log.runOneWrite() {}
        let start = writer.count - submission.arguments.count
        let reference = PayloadReference(
            segment: position.segment,
            offset: position.offset,
            sequence: sequence,
            start: UInt32(start),
            count: UInt32(submission.arguments.count)
        )
        return (reference, Array(writer.bytes[Self.head..<start]))
    }

    private func task(_ number: UInt32) -> TaskSubmission {
        TaskSubmission(
            id: Bench.id(number),
            name: "work",
            arguments: (0..<70_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        )
    }

    private mutating func work(
        _ number: UInt32,
        at reference: PayloadReference,
        _ head: [UInt8]
    ) throws {
        var writer = Bench.beginWork(acknowledging: [])
        let leased = LeasedTask(
            lease: Bench.lease(number),
            attempt: 1,
            failures: 0,
            epoch: 0,
            isSuspect: false,
            addedAt: bench.now.wall,
            arguments: reference
        )
        head.withUnsafeBytes { leased.write(envelope: $0, to: &writer) }
        try hear(writer.bytes)
    }

    @Test mutating func `are what HELLO offers to read, where there is a store`() throws {
        try beginSession()
        #expect(bench.hello?.readsStore == true)
        var other = Bench()
        try other.welcome()
        #expect(other.hello?.readsStore == false)
        let elsewhere = LogRecords("/elsewhere", files: disk)
        let welcome = Welcome(incarnation: 1, maxPayload: 1, windowTasks: 1, brokerPid: 4)
        welcome.encoded().withUnsafeBytes {
            other.state.receive($0, now: other.now, store: elsewhere)
        }
        try other.turn()
        #expect(other.hello?.readsStore == false)
    }

    @Test mutating func `are mapped, checked, lent once, and let go`() throws {
        try beginSession()
        let (reference, head) = try save(task(1))
        try work(1, at: reference, head)
        let delivery = try #require(bench.effects.starts.first)
        #expect(delivery.isPlaced && delivery.arguments.isEmpty && delivery.checkArguments())
        let placed = try #require(delivery.takePlaced())
        #expect(placed.withBytes { Array($0) } == task(1).arguments)
        #expect(delivery.takePlaced() == nil, "whoever took them has them alone")
        try work(2, at: save(task(2)).0, save(task(2)).head)
        let second = try #require(bench.effects.starts.first)
        #expect(second.takeCopy() == task(2).arguments && !second.isPlaced)
    }

    @Test mutating func `whose head has rotted are unreadable, not a task that nobody knows (P9)`()
        throws
    {
        try beginSession()
        let (reference, head) = try save(task(1))
        var rotten = head
        let name = Envelope.fixedBytes
        rotten[name] ^= 1
        bench.said = []
        try work(1, at: reference, rotten)
        #expect(bench.said.first == .unreadable([Bench.holding(1)]))
        var other = task(2)
        other.name = "unknown"
        let (sound, itsHead) = try save(other)
        bench.said = []
        try work(2, at: sound, itsHead)
        #expect(bench.said.first == .handBack([Bench.holding(2)]))
    }

    @Test mutating func `that are gone are handed back at once`() throws {
        try beginSession()
        var (reference, head) = try save(task(1))
        reference.segment += 1
        bench.said = []
        try work(1, at: reference, head)
        #expect(bench.said.first == .unreadable([Bench.holding(1)]))
        #expect(bench.started.isEmpty && bench.notes == [.unreadable(Bench.id(1))])
        reference.segment -= 1
        reference.sequence += 1
        try work(2, at: reference, head)
        #expect(bench.started.isEmpty)
        reference.sequence -= 1
        reference.count += 1
        try work(3, at: reference, head)
        #expect(bench.started.isEmpty && bench.state.malformedCount == 1, "the head says otherwise")
    }

    @Test mutating func `of another task are found out before its handler runs`() throws {
        try beginSession()
        let (reference, _) = try save(task(1))
        let (_, head) = try save(task(2))
        try work(2, at: reference, head)
        let delivery = try #require(bench.effects.starts.first)
        #expect(!delivery.checkArguments())
        bench.said = []
        bench.state.unreadable(delivery.lease)
        try bench.turn()
        #expect(bench.said.first == .unreadable([Bench.holding(2)]))
        #expect(bench.state.inHand == 0)
        bench.state.unreadable(delivery.lease)
        try bench.finish(2)
        #expect(bench.pushed.isEmpty, "what was given back has no result")
    }

    @Test mutating func `that have rotted are found out before their handler runs`() throws {
        try beginSession()
        let (reference, head) = try save(task(1))
        let path = Self.directory + "/segment-0000000001"
        var bytes = try #require(disk.contents(of: path))
        bytes[Int(reference.offset + reference.start) + 5000] ^= 4
        disk.setContents(of: path, to: bytes)
        try work(1, at: reference, head)
        let delivery = try #require(bench.effects.starts.first)
        #expect(!delivery.checkArguments())
    }
}
