// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire
import Testing
import ZeroMQ

@testable import QTasksBroker

private let one = Session([0, 0, 0, 0, 1])

/// What cancels and requeues make of the lines, and what workers hear.
@Suite
struct `Changing tasks` {
    @Test func `a cancelled task goes out of its line, wherever it stands`() throws {
        var bench = try BrokerBench()
        var ids: [TaskID] = []
        for _ in 0..<4 { ids.append(try bench.add()) }
        try bench.grantAll()
        // the first, and one in the middle
        for id in [ids[0], ids[2]] {
            try bench.change(.cancel, id, .withdrawn(try bench.placement(of: id), due: .none))
        }
        #expect(
            try bench.takeChanges() == [
                ChangeReceipt(id: ids[0], verdict: .done, status: .cancel),
                ChangeReceipt(id: ids[2], verdict: .done, status: .cancel),
            ]
        )
        #expect(bench.broker.lanes.waiting == 2)
        bench.join(session: one)
        try bench.grantAll()
        #expect(try bench.takeTasks().map(\.id) == [ids[1], ids[3]])
        #expect(bench.broker.lanes.waiting == 0)
    }

    @Test func `a cancelled delayed task doesn't come when it is due`() throws {
        var bench = try BrokerBench()
        let id = try bench.add { $0.start = .after(milliseconds: 5) }
        guard case .add(let number, _, _, _, _) = try #require(bench.proposals.last) else { return }
        bench.proposals = []
        let due = DueTime(boot: bench.now.monotonic + 5_000_000)
        try bench.added(number, id, due: due)
        try bench.change(.cancel, id, .withdrawn(try bench.placement(of: id), due: due))
        bench.join(session: one)
        bench.proposals = []
        bench.pass(10_000_000)
        #expect(bench.proposals.isEmpty && bench.broker.lanes.waiting == 0)
        #expect(bench.broker.nextDeadline == nil, "P8")
    }

    @Test func `a task that is cancelled, requeued and cancelled again comes at none of its times`()
        throws
    {
        var bench = try BrokerBench()
        let worker = bench.join(session: one)
        let id = try bench.add { $0.start = .after(milliseconds: 5) }
        guard case .add(let number, _, _, _, _) = try #require(bench.proposals.last) else { return }
        bench.proposals = []
        let first = DueTime(boot: bench.now.monotonic + 5_000_000)
        try bench.added(number, id, due: first)
        let placement = try bench.placement(of: id)
        try bench.change(.cancel, id, .withdrawn(placement, due: first))
        try bench.change(.requeue, id, .requeued(placement))
        try bench.grantAll()
        let lease = try #require(try bench.takeTasks().first).lease
        let second = DueTime(boot: bench.now.monotonic + 8_000_000)
        let holding = Holding(id: id, lease: lease)
        try bench.finish(holding, worker, status: .scheduled, due: second)
        try bench.change(.cancel, id, .withdrawn(placement, due: second))
        bench.proposals = []
        bench.pass(6_000_000)
        bench.pass(6_000_000)
        #expect(bench.proposals.isEmpty && bench.broker.lanes.waiting == 0)
        #expect(bench.broker.withdrawnTimes.isEmpty)
    }

    @Test func `a suspect that is requeued while its lease is asked for is none any more`() throws {
        var bench = try BrokerBench()
        let suspect = BrokerBench.Stored(id: TaskID(), sequence: 1, isSuspect: true)
        try bench.open(incarnation: 2, [.queued(suspect)])
        let worker = bench.join(session: one)
        let leases = bench.proposals.filter { proposal in
            if case .lease = proposal { true } else { false }
        }
        #expect(leases.count == 1)
        let asked = try bench.placement(of: suspect.id, isSuspect: true)
        try bench.change(.cancel, suspect.id, .withdrawn(asked, due: .none))
        let placement = try bench.placement(of: suspect.id)
        try bench.change(.requeue, suspect.id, .requeued(placement))
        bench.proposals = leases
        try bench.grantAll()
        let lease = try #require(try bench.takeTasks().first).lease
        // others may run beside it
        let other = try bench.add()
        try bench.grantAll()
        #expect(try bench.takeTasks().map(\.id) == [other])
        let due = DueTime(boot: bench.now.monotonic + 1_000_000)
        let holding = Holding(id: suspect.id, lease: lease)
        try bench.finish(holding, worker, status: .scheduled, due: due)
        bench.pass(2_000_000)
        #expect(bench.broker.lanes.suspectsWaiting == 0)
        try bench.grantAll()
        #expect(try bench.takeTasks().map(\.id) == [suspect.id])
    }

    @Test func `a cancelled running task is taken from its worker, after what it was sent`() throws
    {
        var bench = try BrokerBench()
        bench.join(session: one)
        let id = try bench.add()
        try bench.grantAll()
        let lease = try #require(try bench.takeTasks().first).lease
        bench.toWorkers = []
        try bench.change(.cancel, id, .revoked(lease))
        #expect(try bench.takeAbandoned() == [lease])
        #expect(bench.broker.leases.isEmpty)
    }

    @Test func `a task that is cancelled while its lease is asked for is never sent`() throws {
        var bench = try BrokerBench()
        let id = try bench.add()
        try bench.grantAll()
        bench.join(session: one)
        guard case .lease(let number, id, _, _, _) = try #require(bench.proposals.last) else {
            Issue.record("\(bench.proposals)")
            return
        }
        try bench.change(.cancel, id, .withdrawn(try bench.placement(of: id), due: .none))
        #expect(bench.broker.lanes.waiting == 0)
        try bench.verdicts(.stale(number: number, status: .cancel))
        #expect(try bench.takeTasks().isEmpty)
        #expect(bench.broker.leases.isEmpty && bench.broker.lanes.waiting == 0)
    }

    @Test func `a requeued task is leased at its old place (P6)`() throws {
        var bench = try BrokerBench()
        let ids = [try bench.add(), try bench.add(), try bench.add()]
        try bench.grantAll()
        for id in ids.prefix(2) {
            try bench.change(.cancel, id, .withdrawn(try bench.placement(of: id), due: .none))
        }
        try bench.change(.requeue, ids[1], .requeued(try bench.placement(of: ids[1])))
        #expect(bench.broker.lanes.waiting == 2)
        bench.join(session: one)
        try bench.grantAll()
        #expect(try bench.takeTasks().map(\.id) == [ids[1], ids[2]])
    }

    @Test func `a task that is cancelled and requeued while its lease is asked for runs once`()
        throws
    {
        var bench = try BrokerBench()
        let id = try bench.add()
        try bench.grantAll()
        bench.join(session: one)
        let leases = bench.proposals.filter { proposal in
            if case .lease = proposal { true } else { false }
        }
        #expect(leases.count == 1)
        let place = try bench.placement(of: id)
        try bench.change(.cancel, id, .withdrawn(place, due: .none))
        try bench.change(.requeue, id, .requeued(place))
        #expect(bench.broker.lanes.waiting == 0)
        bench.proposals = leases
        try bench.grantAll()
        #expect(try bench.takeTasks().map(\.id) == [id])
        #expect(bench.broker.lanes.waiting == 0)
    }

    @Test func `a worker that is kept empty for a suspect which is cancelled gets others again`()
        throws
    {
        var bench = try BrokerBench()
        bench.join(session: one)
        let busy = try bench.add()
        try bench.grantAll()
        let lease = try #require(try bench.takeTasks().first).lease
        let suspect = try bench.add()
        try bench.grantAll()
        let suspectLease = try #require(try bench.takeTasks().first).lease
        let holding = Holding(id: suspect, lease: suspectLease)
        try bench.verdicts(
            .released(number: 1, holding: holding, status: .new, isSuspect: true)
        )
        let placement = try bench.placement(of: suspect, isSuspect: true)
        let other = try bench.add()
        try bench.grantAll()
        #expect(try bench.takeTasks().isEmpty, "\(busy) under \(lease) is still there")
        try bench.change(.cancel, suspect, .withdrawn(placement, due: .none))
        try bench.grantAll()
        #expect(try bench.takeTasks().map(\.id) == [other])
    }

    @Test func `a change that Storage hasn't answered is asked for again when it is back`() throws {
        var bench = try BrokerBench()
        let id = try bench.add()
        try bench.grantAll()
        bench.client(ChangeMessage(.cancel, ids: [id]).encoded(number: 88))
        bench.proposals = []
        try bench.open(incarnation: 2, [])
        guard case .change(let number, .cancel, id) = try #require(bench.proposals.last) else {
            Issue.record("\(bench.proposals)")
            return
        }
        // it was done, and the answer got lost
        try bench.verdicts(.changed(number: number, .unchanged(.cancel)))
        #expect(
            try bench.takeChanges() == [ChangeReceipt(id: id, verdict: .done, status: .cancel)]
        )
    }

    @Test func `what can't be changed is told as it is`() throws {
        var bench = try BrokerBench()
        let id = TaskID()
        try bench.change(.requeue, id, .unchanged(.success))
        try bench.change(.cancel, id, .unchanged(nil))
        try bench.change(.forget, id, .forgotten)
        try bench.change(.forget, id, .unchanged(.error))
        #expect(
            try bench.takeChanges() == [
                ChangeReceipt(id: id, verdict: .notPossible, status: .success),
                ChangeReceipt(id: id, verdict: .unknown, status: nil),
                ChangeReceipt(id: id, verdict: .done, status: .dead),
                ChangeReceipt(id: id, verdict: .notPossible, status: .error),
            ]
        )
    }

    @Test func `a message without IDs, or cut off, is refused (P7)`() throws {
        var bench = try BrokerBench()
        bench.client(ChangeMessage(.cancel, ids: []).encoded(number: 88))
        let message = ChangeMessage(.cancel, ids: [TaskID()]).encoded(number: 89)
        bench.client(message.dropLast())
        #expect(try bench.takeErrors().map(\.code) == [.malformed, .malformed])
        #expect(bench.proposals.isEmpty)
    }
}

extension BrokerBench {
    /// The leases that workers shall let go of, since the last look.
    mutating func takeAbandoned() throws -> [Lease] {
        var leases: [Lease] = []
        for (_, message) in toWorkers {
            try message.withUnsafeBytes { bytes in
                var reader = WireReader(bytes)
                guard try MessageHeader.read(from: &reader).command == .reconciled else { return }
                while !reader.isAtEnd {
                    let lease = try reader.lease("lease")
                    if try reader.u8("verdict") == ReconcileVerdict.abandon.rawValue {
                        leases.append(lease)
                    }
                }
            }
        }
        toWorkers = []
        return leases
    }

    fileprivate mutating func client(_ message: ArraySlice<UInt8>) {
        client(Array(message))
    }
}
