// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire
import Testing
import ZeroMQ

@testable import QTasksBroker

private let one = Session([0, 0, 0, 0, 1])
private let two = Session([0, 0, 0, 0, 2])
private let millisecond: UInt64 = 1_000_000
private let second: UInt64 = 1_000_000_000

/// What a worker doesn't end by itself is ended with the worker.
@Suite
struct `A hard limit` {
    /// A worker that runs so many tasks, the first of them limited to 100 ms.
    private static func bench(
        tasks: Int,
        killAfter: Duration = .seconds(1)
    ) throws -> (BrokerBench, WorkerID, [Holding], RunningAttempt) {
        var bench = try BrokerBench { $0.killAfter = killAfter }
        let worker = WorkerID()
        bench.hello(worker, one)
        for _ in 0..<tasks { try bench.add() }
        try bench.grantAll()
        let sent = try bench.takeTasks()
        let attempt = RunningAttempt(
            lease: try #require(sent.first).lease,
            deadline: bench.now.monotonic + 100 * millisecond,
            startedAt: Timestamp(nanoseconds: 77),
            retryMilliseconds: 5,
            maxAttempts: 3
        )
        bench.worker(RunningAttempt.encoded([attempt]), from: one)
        bench.deeds = []
        bench.proposals = []
        return (bench, worker, sent.map { Holding(id: $0.id, lease: $0.lease) }, attempt)
    }

    @Test(arguments: [0, 20, 1000])
    func `ends the worker in two steps, and its attempt as past its time (P4)`(
        killAfter: Int
    ) throws {
        var (bench, worker, holdings, attempt) = try Self.bench(
            tasks: 3,
            killAfter: .milliseconds(killAfter)
        )
        let grace = UInt64(killAfter) * millisecond
        #expect(bench.broker.nextDeadline == attempt.deadline + grace)
        bench.pass(100 * millisecond + grace - 1)
        #expect(bench.deeds.isEmpty, "not before its time")
        bench.pass(1)
        #expect(bench.deeds == [.terminate(worker)])
        if grace > 0 { bench.pass(grace - 1) }
        #expect(bench.deeds == [.terminate(worker)], "it may yet end by itself")
        bench.pass(1)
        #expect(bench.deeds == [.terminate(worker), .kill(worker)])
        #expect(bench.proposals.isEmpty, "its process lives: its tasks are its own")
        bench.die(worker)
        let overdue = OverdueAttempt(worker: worker, attempt)
        var others: Set<Lease> = []
        for proposal in bench.proposals {
            switch proposal {
            case .overdue(_, let holding, let told):
                #expect(holding == holdings[0] && told == overdue)
            case .release(_, let holding, let cause, let isShared, let counts):
                #expect(cause == .neighbour && !isShared && !counts, "counted against nobody")
                others.insert(holding.lease)
            default: Issue.record("\(proposal)")
            }
        }
        #expect(others == [holdings[1].lease, holdings[2].lease])
        #expect(bench.broker.limits.isEmpty && bench.broker.nextDeadline == nil, "P8")
    }

    @Test func `is no more once the handler has returned`() throws {
        var (bench, _, holdings, attempt) = try Self.bench(tasks: 1)
        bench.worker(RunningAttempt.encoded([RunningAttempt(returned: attempt.lease)]), from: one)
        #expect(bench.broker.nextDeadline == nil, "P8")
        bench.pass(10 * second)
        #expect(bench.deeds.isEmpty)
        #expect(bench.broker.leases[holdings[0].lease] != nil)
    }

    @Test func `holds on after the attempt's end, as long as its handler goes on`() throws {
        var (bench, worker, holdings, _) = try Self.bench(tasks: 1)
        try bench.finish(holdings[0], worker, status: .error)
        #expect(bench.broker.leases.isEmpty)
        bench.pass(2 * second)
        #expect(bench.deeds == [.terminate(worker)])
        bench.proposals = []
        bench.die(worker)
        #expect(bench.proposals.isEmpty, "its end is told")
    }

    @Test func `of another worker's lease is nobody's to tell (P7)`() throws {
        var (bench, worker, _, attempt) = try Self.bench(tasks: 1)
        bench.hello(WorkerID(), two)
        bench.worker(RunningAttempt.encoded([RunningAttempt(returned: attempt.lease)]), from: two)
        bench.pass(2 * second)
        #expect(bench.deeds.contains(.terminate(worker)))
    }

    @Test func `is told anew in each session`() throws {
        var (bench, worker, holdings, _) = try Self.bench(tasks: 1)
        bench.hello(worker, two, running: holdings)
        #expect(bench.broker.nextDeadline == nil, "the older session's word is void")
    }

    @Test func `comes upon a cancelled task whose handler goes on`() throws {
        var bench = try BrokerBench()
        let worker = WorkerID()
        bench.hello(worker, one)
        let id = try bench.add()
        let other = try bench.add()
        try bench.grantAll()
        let sent = try bench.takeTasks()
        let lease = try #require(sent.first { $0.id == id }).lease
        bench.deeds = []
        try bench.change(.cancel, id, .revoked(lease))
        bench.pass(bench.broker.settings.killAfterNanoseconds)
        #expect(bench.deeds == [.terminate(worker)])
        bench.proposals = []
        bench.die(worker)
        guard case .release(_, let holding, .neighbour, false, false) = bench.proposals.first else {
            Issue.record("\(bench.proposals)")
            return
        }
        #expect(holding.id == other && bench.proposals.count == 1)
    }

    @Test func `spares a worker that says the cancelled task's handler has returned`() throws {
        var bench = try BrokerBench()
        bench.hello(WorkerID(), one)
        let id = try bench.add()
        try bench.grantAll()
        let lease = try #require(try bench.takeTasks().first).lease
        bench.deeds = []
        try bench.change(.cancel, id, .revoked(lease))
        bench.worker(RunningAttempt.encoded([RunningAttempt(returned: lease)]), from: one)
        bench.pass(10 * second)
        #expect(bench.deeds.isEmpty && bench.broker.nextDeadline == nil)
    }

    @Test func `knows that a lingering handler was in the process that died (P4)`() throws {
        var (bench, worker, holdings, _) = try Self.bench(tasks: 2)
        try bench.finish(holdings[0], worker, status: .error)
        bench.proposals = []
        bench.die(worker)
        guard case .release(_, holdings[1], .death, true, false) = bench.proposals.first else {
            Issue.record("not shared: \(bench.proposals)")
            return
        }
    }
}

extension BrokerBench {
    /// A worker joins that sends RUNNING.
    fileprivate mutating func hello(
        _ worker: WorkerID,
        _ session: Session,
        running: [Holding] = []
    ) {
        join(worker, session: session, running: running, reportsRunning: true)
    }
}
