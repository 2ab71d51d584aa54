// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire
import Testing
import ZeroMQ

@testable import QTasksBroker

private let one = Session([0, 0, 0, 0, 1])
private let holder = TaskID()

/// What clients hear of an add whose unique key another task holds.
@Suite
struct `A repeat of a unique key` {
    private static func addNumber(_ bench: inout BrokerBench) throws -> UInt64 {
        guard case .add(let number, _, _, _, _) = try #require(bench.takeProposals().last) else {
            Issue.record("the add goes to Storage")
            return 0
        }
        return number
    }

    private static func same(
        _ number: UInt64,
        _ sequence: UInt64,
        isSynced: Bool = true
    ) -> Verdict {
        .same(number: number, id: holder, sequence: sequence, isSynced: isSynced)
    }

    @Test(arguments: [Durability.synced, .written])
    func `is answered with the holder's ID, no earlier than that one could be acknowledged (P1)`(
        level: Durability
    ) throws {
        var bench = try BrokerBench()
        let id = try bench.add { $0.durability = level }
        let number = try Self.addNumber(&bench)
        try bench.verdicts(Self.same(number, bench.sequence + 1))
        #expect(try bench.takeReceipts().isEmpty, "the holder has to be durable")
        bench.sequence += 1
        try bench.makeDurable()
        #expect(try bench.takeReceipts() == [AddReceipt(id: id, verdict: .same(holder))])
    }

    @Test func `gives back the slot that was kept for it`() throws {
        var bench = try BrokerBench()
        bench.join(session: one)
        try bench.add()
        let number = try Self.addNumber(&bench)
        #expect(bench.broker.leases.count == 1)
        try bench.verdicts(Self.same(number, 0, isSynced: false))
        #expect(bench.broker.leases.isEmpty && bench.broker.lanes.unanswered == 0)
        #expect(bench.broker.lanes.waiting == 0)
    }

    @Test func `waits for the holder's end, and is told of it under its ID`() throws {
        var bench = try BrokerBench()
        let id = try bench.add(options: .wait)
        let number = try Self.addNumber(&bench)
        try bench.verdicts(Self.same(number, 0))
        #expect(try bench.takeReceipts() == [AddReceipt(id: id, verdict: .same(holder))])
        #expect(bench.takeProposals() == [.watch(holder)])
        // there is no task of its own ID
        try bench.final(id, [])
        #expect(try bench.takeRecords().isEmpty)
        try bench.final(holder, [4, 9, 9])
        let records = try bench.takeRecords()
        #expect(records.map(\.id) == [holder])
        #expect(records.first?.record == [4, 9, 9])
        #expect(bench.broker.clients.isOwedNothing)
    }

    @Test func `in a message of several waits for nothing before that is answered`() throws {
        var bench = try BrokerBench()
        var message = AddMessage.begin(number: 6, options: .wait)
        let ids = [TaskID(), TaskID()]
        for id in ids { message.raw(try BrokerBench.envelope(id: id)) }
        bench.client(message.bytes)
        let numbers = bench.takeProposals().compactMap { proposal -> UInt64? in
            if case .add(let number, _, _, _, _) = proposal { number } else { nil }
        }
        try #require(numbers.count == 2)
        try bench.verdicts(Self.same(numbers[0], 0))
        // a record of a task that the client knows nothing of would be lost on it
        #expect(bench.takeProposals().isEmpty)
        try bench.verdicts(Self.same(numbers[1], 0))
        #expect(try bench.takeReceipts().count == 2)
        #expect(bench.takeProposals() == [.watch(holder)])
        try bench.final(holder, [4, 9, 9])
        #expect(try bench.takeRecords().map(\.id) == [holder], "one request hears of a task once")
    }

    @Test func `whose wait is over is told the holder's record as it is`() throws {
        var bench = try BrokerBench()
        var message = AddMessage.begin(number: 6, options: .wait, waitMilliseconds: 10)
        message.raw(try BrokerBench.envelope(id: TaskID()))
        bench.client(message.bytes)
        let number = try Self.addNumber(&bench)
        try bench.verdicts(Self.same(number, 0))
        bench.proposals = []
        bench.pass(10_000_000)
        guard case .read(_, holder, false)? = bench.takeProposals().first else {
            Issue.record("no read of the holder when the wait is over")
            return
        }
        #expect(bench.broker.nextDeadline == nil, "P8")
    }

    @Test func `that Storage hadn't answered for good is asked for again when it is back`() throws {
        var bench = try BrokerBench()
        let id = try bench.add(options: .wait)
        let number = try Self.addNumber(&bench)
        try bench.verdicts(Self.same(number, bench.sequence + 1))
        // the holder went with the power, so that this one is added now
        try bench.open(incarnation: 2, [])
        try bench.grantAll()
        try bench.makeDurable()
        #expect(try bench.takeReceipts() == [AddReceipt(id: id, verdict: .added)])
        try bench.final(id, [4, 9, 9])
        #expect(try bench.takeRecords().map(\.id) == [id])
    }

    @Test func `of a task that ended unleased is one that is withdrawn without being asked for`()
        throws
    {
        var bench = try BrokerBench()
        let ids = [try bench.add(), try bench.add()]
        try bench.grantAll()
        try bench.verdicts(
            .changed(number: 0, .withdrawn(try bench.placement(of: ids[0]), due: .none))
        )
        #expect(bench.broker.lanes.waiting == 1)
        bench.join(session: one)
        try bench.grantAll()
        #expect(try bench.takeTasks().map(\.id) == [ids[1]])
    }
}

extension BrokerBench {
    fileprivate mutating func final(_ id: TaskID, _ record: [UInt8]) throws {
        try record.withUnsafeBytes { try verdicts(.final(id: id, record: $0)) }
    }
}
