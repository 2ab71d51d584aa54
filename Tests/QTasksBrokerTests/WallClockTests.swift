// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire
import Testing
import ZeroMQ

@testable import QTasksBroker

private let one = Session([0, 0, 0, 0, 1])

@Suite
struct `A task due at a moment of the wall clock` {
    /// Added five seconds before its moment.
    private func added(to bench: inout BrokerBench) throws -> (id: TaskID, due: DueTime) {
        bench.proposals = []
        let moment = Timestamp(nanoseconds: bench.now.wall.nanoseconds + 5_000_000_000)
        let id = try bench.add { $0.start = .at(moment) }
        guard case .add(let number, _, .none, _, _) = bench.takeProposals().first else {
            Issue.record("a task for later is added without a lease")
            return (id, .none)
        }
        try bench.added(number, id, due: DueTime(wall: moment))
        return (id, DueTime(wall: moment))
    }

    private func step(_ bench: inout BrokerBench, by nanoseconds: Int64) {
        bench.now.wall = Timestamp(nanoseconds: bench.now.wall.nanoseconds + nanoseconds)
        bench.pass(0)
    }

    @Test func `starts when that clock is set to it, whatever time has passed`() throws {
        var bench = try BrokerBench()
        bench.join(session: one)
        let (id, due) = try added(to: &bench)
        #expect(bench.broker.nextWallDeadline == due.wall)
        #expect(bench.broker.nextDeadline == nil, "P8: no other clock is waited for")
        bench.pass(3_600_000_000_000)
        step(&bench, by: 4_999_999_999)
        #expect(bench.takeProposals().isEmpty)
        step(&bench, by: 1)
        try bench.grantAll()
        #expect(try bench.takeTasks().map(\.id) == [id])
        #expect(bench.broker.nextWallDeadline == nil, "P8")
    }

    @Test func `leaves delays where they are`() throws {
        var bench = try BrokerBench()
        bench.join(session: one)
        bench.proposals = []
        let id = try bench.add { $0.start = .after(milliseconds: 5) }
        guard case .add(let number, _, _, _, _) = bench.takeProposals().first else { return }
        let due = bench.now.monotonic + 5_000_000
        try bench.added(number, id, due: DueTime(boot: due))
        step(&bench, by: 3_600_000_000_000)
        step(&bench, by: -7_200_000_000_000)
        #expect(bench.takeProposals().isEmpty)
        #expect(bench.broker.nextDeadline == due && bench.broker.nextWallDeadline == nil)
        bench.pass(5_000_000)
        try bench.grantAll()
        #expect(try bench.takeTasks().map(\.id) == [id])
    }

    @Test func `waits again where Storage finds that the clock was set back`() throws {
        var bench = try BrokerBench()
        let (id, due) = try added(to: &bench)
        step(&bench, by: 5_000_000_000)
        #expect(bench.broker.lanes.waiting == 1)
        step(&bench, by: -1_000_000_000)
        bench.join(session: one)
        guard case .lease(let number, _, _, _, _) = bench.takeProposals().last else {
            Issue.record("it is in its line")
            return
        }
        try bench.verdicts(.early(number: number, due: due))
        #expect(bench.takeProposals().isEmpty && bench.broker.lanes.waiting == 0)
        #expect(bench.broker.nextWallDeadline == due.wall)
        step(&bench, by: 1_000_000_000)
        try bench.grantAll()
        #expect(try bench.takeTasks().map(\.id) == [id])
    }

    @Test(arguments: [false, true])
    func `doesn't come once it is cancelled, also where the clock was set to and fro`(
        isInLine: Bool
    ) throws {
        var bench = try BrokerBench()
        let (id, due) = try added(to: &bench)
        if isInLine { step(&bench, by: 6_000_000_000) }
        step(&bench, by: -3_000_000_000)
        try bench.change(.cancel, id, .withdrawn(try bench.placement(of: id), due: due))
        #expect(bench.broker.nextWallDeadline == nil, "P8")
        bench.join(session: one)
        bench.proposals = []
        step(&bench, by: 60_000_000_000)
        #expect(bench.proposals.isEmpty && bench.broker.lanes.waiting == 0)
    }
}

@Suite
struct `The alarm of the wall clock` {
    @Test(arguments: [-1_000_000_000, 5_000_000])
    func `wakes the loop once the clock is there, and not again`(after nanoseconds: Int64) throws {
        var poll = try PollLoop()
        var alarm = try WallClockAlarm()
        try poll.watch(descriptor: alarm.descriptor, token: WallClockAlarm.token)
        let moment = Timestamp(nanoseconds: Timestamp.now.nanoseconds + nanoseconds)
        try alarm.set(at: moment)
        try alarm.set(at: moment)
        #expect(try poll.wait([]).tokens == [WallClockAlarm.token])
        #expect(Timestamp.now >= moment)
        alarm.take()
        #expect(try poll.poll([]).tokens.isEmpty)
        try alarm.set(at: moment)
        #expect(try poll.wait([]).tokens == [WallClockAlarm.token], "it can be set again")
        try alarm.set(at: nil)
        #expect(try poll.poll([]).tokens.isEmpty, "P8")
        try poll.unwatch(descriptor: alarm.descriptor)
    }
}
