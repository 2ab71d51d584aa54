// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire
import Testing
import ZeroMQ

@testable import QTasksBroker

private let one = Session([0, 0, 0, 0, 1])
private let two = Session([0, 0, 0, 0, 2])

/// Connections that break, workers that die, a Storage that comes back.
@Suite
struct `Sessions and deaths` {
    private func verdict(_ bench: BrokerBench, _ lease: Lease) throws -> ReconcileVerdict? {
        for (_, message) in bench.toWorkers.reversed() {
            let found: ReconcileVerdict? = try message.withUnsafeBytes { bytes in
                var reader = WireReader(bytes)
                guard try MessageHeader.read(from: &reader).command == .reconciled else {
                    return nil
                }
                while !reader.isAtEnd {
                    let told = try reader.lease("lease")
                    let verdict = ReconcileVerdict(rawValue: try reader.u8("verdict"))
                    if told == lease { return verdict }
                }
                return nil
            }
            if let found { return found }
        }
        return nil
    }

    @Test func `a lease that its living worker does not list goes back, uncounted (H2)`() throws {
        var bench = try BrokerBench()
        let worker = bench.join(session: one)
        let id = try bench.add()
        try bench.grantAll()
        let lease = try #require(try bench.takeTasks().first).lease
        bench.proposals = []
        bench.join(worker, session: two)
        let holding = Holding(id: id, lease: lease)
        let release = bench.takeProposals().contains {
            if case .release(_, holding, .notHeld, false, false) = $0 { true } else { false }
        }
        #expect(release)
    }

    @Test func `P5: a lease that its worker lists is kept`() throws {
        var bench = try BrokerBench()
        let worker = bench.join(session: one)
        let id = try bench.add()
        try bench.grantAll()
        let lease = try #require(try bench.takeTasks().first).lease
        bench.proposals = []
        bench.join(worker, session: two, running: [Holding(id: id, lease: lease)])
        #expect(try verdict(bench, lease) == .keep)
        let released = bench.proposals.contains { if case .release = $0 { true } else { false } }
        #expect(!released)
    }

    @Test func `a lease that the log doesn't know is abandoned`() throws {
        var bench = try BrokerBench()
        let stranger = Lease(incarnation: 9, counter: 9)
        bench.join(session: one, running: [Holding(id: TaskID(), lease: stranger)])
        #expect(try verdict(bench, stranger) == .abandon)
    }

    @Test func `an old session's credit is ignored after a new HELLO`() throws {
        var bench = try BrokerBench()
        let worker = bench.join(session: one, window: 0)
        bench.join(worker, session: two, window: 0)
        bench.worker(CreditMessage.encoded(window: 10), from: one)
        try bench.add()
        try bench.grantAll()
        try bench.grantAll()
        #expect(try bench.takeTasks().isEmpty)
    }

    @Test func `a lease granted for an old session is released, not sent`() throws {
        var bench = try BrokerBench()
        let worker = bench.join(session: one)
        bench.proposals = []
        try bench.add()
        let asked = bench.takeProposals()
        bench.join(worker, session: two)
        bench.proposals = asked
        try bench.grantAll()
        #expect(try bench.takeTasks().isEmpty)
        let released = bench.proposals.contains { if case .release = $0 { true } else { false } }
        #expect(released)
    }

    @Test func `P4: a death counts against a task that was alone`() throws {
        var bench = try BrokerBench()
        let worker = bench.join(session: one)
        try bench.add()
        try bench.grantAll()
        bench.proposals = []
        bench.die(worker)
        guard case .release(_, _, .death, false, true) = bench.takeProposals().first else {
            Issue.record("the death of a task that ran alone counts")
            return
        }
        #expect(bench.deeds.contains(.kill(worker)))
    }

    @Test func `P4: sharers are handed on uncounted and run alone next`() throws {
        var bench = try BrokerBench()
        let worker = bench.join(session: one)
        try bench.add()
        try bench.add()
        try bench.grantAll()
        _ = try bench.takeTasks()
        bench.proposals = []
        bench.die(worker)
        for proposal in bench.proposals {
            guard case .release(_, _, .death, true, false) = proposal else {
                Issue.record("sharers are not to blame: \(proposal)")
                continue
            }
        }
        try bench.grantAll()
        bench.join(session: two)
        try bench.grantAll()
        #expect(try bench.takeTasks().count == 1, "a suspect runs alone")
        let plain = try bench.add()
        try bench.grantAll()
        try bench.grantAll()
        #expect(try bench.takeTasks().allSatisfy { $0.id != plain }, "and nothing beside it")
    }

    @Test func `a suspect's lease is synced before it is sent`() throws {
        var bench = try BrokerBench(opened: false)
        let placement = BrokerBench.Stored(
            id: TaskID(),
            sequence: 1,
            priority: 0,
            isSuspect: true,
            name: "work",
            queue: "default"
        )
        try bench.open(incarnation: 1, [.queued(placement)])
        bench.join(session: one)
        let synced = bench.proposals.contains {
            if case .lease(_, placement.id, _, _, true) = $0 { true } else { false }
        }
        #expect(synced)
    }

    @Test func `while a suspect waits and nobody is empty, one worker gets nothing more`() throws {
        var bench = try BrokerBench()
        let first = bench.join(session: one)
        let busy = try bench.add()
        try bench.grantAll()
        let running = try #require(try bench.takeTasks().first)
        try bench.open(
            incarnation: 2,
            [
                .running(
                    BrokerBench.Stored(
                        id: busy,
                        sequence: 1,
                        priority: 0,
                        isSuspect: false,
                        name: "work",
                        queue: "default"
                    ),
                    lease: running.lease,
                    worker: first
                ),
                .queued(
                    BrokerBench.Stored(
                        id: TaskID(),
                        sequence: 2,
                        priority: 0,
                        isSuspect: true,
                        name: "work",
                        queue: "default"
                    )
                ),
            ]
        )
        bench.proposals = []
        try bench.add()
        try bench.grantAll()
        try bench.grantAll()
        #expect(try bench.takeTasks().isEmpty)
        try bench.finish(Holding(id: busy, lease: running.lease), first)
        try bench.grantAll()
        #expect(try bench.takeTasks().count == 1, "now it is empty and takes the suspect")
    }

    @Test func `P5: after a restart running tasks wait for their living worker`() throws {
        var bench = try BrokerBench(opened: false)
        let worker = WorkerID()
        let lease = Lease(incarnation: 1, counter: 4)
        let placement = BrokerBench.Stored(
            id: TaskID(),
            sequence: 1,
            priority: 0,
            isSuspect: false,
            name: "work",
            queue: "default"
        )
        try bench.open(
            incarnation: 2,
            [
                .worker(id: worker, process: BrokerBench.process),
                .running(placement, lease: lease, worker: worker),
            ]
        )
        #expect(bench.deeds.contains(.check(worker, BrokerBench.process)))
        bench.join(session: two)
        try bench.grantAll()
        #expect(try bench.takeTasks().isEmpty, "it isn't given to another")
        bench.join(
            worker,
            session: one,
            running: [Holding(id: placement.id, lease: lease)]
        )
        #expect(try verdict(bench, lease) == .keep)
    }

    @Test
    func
        `P5: a result that its worker still has keeps its lease when the old Storage's end of it is lost`()
        throws
    {
        var bench = try BrokerBench(opened: false)
        // the end of the task is in this Storage's memory alone
        try bench.open(incarnation: 2, [])
        let task = BrokerBench.Stored(id: TaskID(), sequence: 1)
        let lease = Lease(incarnation: 1, counter: 4)
        let worker = bench.join(session: one, done: [Holding(id: task.id, lease: lease)])
        #expect(try verdict(bench, lease) == .sendAgain)
        bench.broker.storageLost()
        bench.proposals = []
        try bench.open(incarnation: 3, [.running(task, lease: lease, worker: worker)])
        let released = bench.proposals.contains { if case .release = $0 { true } else { false } }
        #expect(!released, "it would be executed a second time")
    }

    @Test func `a death found only after a restart counts for none`() throws {
        var bench = try BrokerBench(opened: false)
        let worker = WorkerID()
        let placement = BrokerBench.Stored(
            id: TaskID(),
            sequence: 1,
            priority: 0,
            isSuspect: false,
            name: "work",
            queue: "default"
        )
        try bench.open(
            incarnation: 2,
            [
                .worker(id: worker, process: BrokerBench.process),
                .running(placement, lease: Lease(incarnation: 1, counter: 1), worker: worker),
            ]
        )
        bench.proposals = []
        bench.die(worker, wasSeen: false)
        guard case .release(_, _, .goneBefore, false, false) = bench.takeProposals().first else {
            Issue.record("not released, or counted")
            return
        }
    }

    @Test func `P1: adds that were not acknowledged are proposed again to a new Storage`() throws {
        var bench = try BrokerBench()
        let silent = try bench.add()
        _ = bench.takeProposals()
        let logged = try bench.add()
        try bench.grantAll()
        bench.broker.storageLost()
        bench.proposals = []
        try bench.open(incarnation: 2, [])
        let again = bench.proposals.compactMap { proposal -> TaskID? in
            if case .add(_, let id, .none, _, _) = proposal { id } else { nil }
        }
        #expect(Set(again) == [silent, logged], "also what was written and not yet durable")
        #expect(try bench.takeReceipts().isEmpty)
    }

    @Test func `P9: while Storage can't open the store, adds are refused, and taken when it can`()
        throws
    {
        var bench = try BrokerBench()
        let pending = try bench.add()
        bench.broker.storageLost()
        bench.collect()
        #expect(try bench.takeReceipts().isEmpty, "it is started again, and may well come back")
        bench.broker.storageLost()
        bench.collect()
        #expect(try refusals(&bench) == [pending: .storageUnavailable])
        bench.client([])
        #expect(!bench.toClients.isEmpty, "who connects now is greeted, and can ask")
        let refused = try bench.add()
        #expect(try refusals(&bench) == [refused: .storageUnavailable])
        try bench.open(incarnation: 2, [])
        bench.proposals = []
        try bench.add()
        try bench.grantAll()
        try bench.makeDurable()
        #expect(try bench.takeReceipts().map(\.verdict) == [.added])
    }

    private func refusals(_ bench: inout BrokerBench) throws -> [TaskID: RefusalCode] {
        var codes: [TaskID: RefusalCode] = [:]
        for receipt in try bench.takeReceipts() {
            if case .refused(let refusal) = receipt.verdict { codes[receipt.id] = refusal.code }
        }
        return codes
    }

    @Test
    func
        `what ended while Storage was away is taken from its worker once that is durable (P4, P5)`()
        throws
    {
        var bench = try BrokerBench()
        let worker = bench.join(session: one, reportsRunning: true)
        try bench.add()
        let kept = try bench.add()
        try bench.grantAll()
        let leases = try bench.takeTasks().map(\.lease)
        bench.toWorkers = []
        let running = BrokerBench.Stored(id: kept, sequence: 2)
        try bench.open(
            incarnation: 2,
            [
                .worker(id: worker, process: BrokerBench.process),
                .running(running, lease: leases[1], worker: worker),
            ]
        )
        try bench.verdicts()
        #expect(try bench.takeAbandoned().isEmpty)
        // until it has let go, neither is alone
        bench.proposals = []
        var dying = bench
        dying.die(worker)
        #expect(
            dying.proposals.contains {
                if case .release(_, _, .death, true, false) = $0 { true } else { false }
            }
        )
        try bench.makeDurable()
        #expect(try bench.takeAbandoned() == [leases[0]])
    }

    @Test func `workers hear of a Storage that came back`() throws {
        var bench = try BrokerBench()
        bench.join(session: one)
        bench.toWorkers = []
        try bench.open(incarnation: 2, [])
        #expect(bench.commandsToWorkers().contains(.notice))
    }

    @Test func `only the Starter can stop the system`() throws {
        var bench = try BrokerBench()
        bench.worker(WireWriter(.stop).bytes, from: two, peer: .local(pid: 999))
        try bench.add()
        try bench.grantAll()
        #expect(!bench.broker.stopping.isUnderWay)
    }

    @Test func `a worker that can't be watched and sends no heartbeats is refused`() throws {
        var bench = try BrokerBench()
        let hello = Hello(
            worker: WorkerID(),
            process: BrokerBench.process,
            parentPid: 1,
            slots: 1,
            window: 1,
            names: ["work"],
            running: [],
            done: []
        )
        bench.worker(hello.encoded(), from: one, peer: .remote)
        #expect(bench.broker.roster.count == 0)
        bench.worker(hello.encoded(), from: one, peer: .local(pid: 51))
        #expect(bench.broker.roster.count == 0, "nor one that says another's pid")
    }
}
