// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire
import Testing
import ZeroMQ

@testable import QTasksBroker

private let one = Session([0, 0, 0, 0, 1])
private let two = Session([0, 0, 0, 0, 2])

/// Who gets which task, and when.
@Suite
struct `Handing out tasks` {
    @Test func `a task goes to a free slot with its save, in one proposal`() throws {
        var bench = try BrokerBench()
        let worker = bench.join(session: one)
        bench.proposals = []
        let id = try bench.add()
        guard case .add(_, id, let lease, worker, _) = bench.proposals.first else {
            Issue.record("no add with a lease: \(bench.proposals)")
            return
        }
        #expect(lease.incarnation == 1)
        #expect(try bench.takeTasks().isEmpty, "nothing is sent before Storage has it")
        try bench.grantAll()
        #expect(try bench.takeTasks().map(\.id) == [id])
    }

    @Test func `P6: higher priority first, then the add's sequence`() throws {
        var bench = try BrokerBench()
        let low = try bench.add()
        let first = try bench.add { $0.priority = 5 }
        let second = try bench.add { $0.priority = 5 }
        let high = try bench.add { $0.priority = 9 }
        try bench.grantAll()
        bench.join(session: one)
        try bench.grantAll()
        #expect(try bench.takeTasks().map(\.id) == [high, first, second, low])
    }

    @Test func `P6: a task that came back keeps its place`() throws {
        var bench = try BrokerBench()
        let worker = bench.join(session: one, window: 1)
        let first = try bench.add()
        try bench.grantAll()
        let lease = try #require(try bench.takeTasks().first).lease
        let second = try bench.add()
        try bench.grantAll()
        bench.die(worker)
        try bench.grantAll()
        #expect(!bench.deeds.isEmpty)
        bench.join(session: two, slots: 1, window: 1)
        try bench.grantAll()
        let next = try bench.takeTasks()
        #expect(next.map(\.id) == [first])
        #expect(next.first?.lease != lease, "a lease is never used twice")
        _ = second
    }

    @Test func `an add does not overtake one whose answer is awaited`() throws {
        var bench = try BrokerBench()
        try bench.add()  // no worker yet: proposed without a lease
        bench.join(session: one)
        bench.proposals = []
        try bench.add()
        guard case .add(_, _, .none, _, _) = bench.proposals.first else {
            Issue.record("leased although an earlier add is not in line yet")
            return
        }
    }

    @Test func `a worker gets no more than its window`() throws {
        var bench = try BrokerBench()
        bench.join(session: one, slots: 2, window: 2)
        for _ in 0..<5 { try bench.add() }
        try bench.grantAll()
        try bench.grantAll()
        #expect(try bench.takeTasks().count == 2)
        bench.worker(CreditMessage.encoded(window: 3), from: one)
        try bench.grantAll()
        #expect(try bench.takeTasks().count == 1)
        bench.worker(CreditMessage.encoded(window: 3), from: one)  // a repeat changes nothing
        try bench.grantAll()
        #expect(try bench.takeTasks().isEmpty)
    }

    @Test func `free slots are filled before anybody's buffer`() throws {
        var bench = try BrokerBench()
        bench.join(session: one, slots: 2, window: 8)
        bench.join(session: two, slots: 2, window: 8)
        for _ in 0..<4 { try bench.add() }
        try bench.grantAll()
        let tasks = try bench.takeTasks()
        #expect(tasks.filter { $0.session == one }.count == 2)
        #expect(tasks.filter { $0.session == two }.count == 2)
    }

    @Test func `what nobody can run waits and holds up no other`() throws {
        var bench = try BrokerBench()
        bench.join(session: one)
        try bench.add(name: "stranger")
        let known = try bench.add()
        try bench.grantAll()
        try bench.grantAll()
        #expect(try bench.takeTasks().map(\.id) == [known])
    }

    @Test func `a delayed task waits for its time and no longer (P8)`() throws {
        var bench = try BrokerBench()
        bench.join(session: one)
        #expect(bench.broker.nextDeadline == nil)
        bench.proposals = []
        let id = try bench.add { $0.start = .after(milliseconds: 5) }
        guard case .add(let number, _, .none, _, _) = bench.takeProposals().first else {
            Issue.record("a delayed task is added without a lease")
            return
        }
        let due = bench.now.monotonic + 5_000_000
        try bench.added(number, id, due: DueTime(boot: due))
        #expect(bench.broker.nextDeadline == due)
        bench.pass(4_999_999)
        #expect(bench.takeProposals().isEmpty)
        bench.pass(1)
        try bench.grantAll()
        #expect(try bench.takeTasks().map(\.id) == [id])
        #expect(bench.broker.nextDeadline == nil)
    }

    @Test func `a worker that says goodbye gets nothing more`() throws {
        var bench = try BrokerBench()
        bench.join(session: one)
        bench.worker(WireWriter(.goodbye).bytes, from: one)
        try bench.add()
        try bench.grantAll()
        try bench.grantAll()
        #expect(try bench.takeTasks().isEmpty)
    }
}
