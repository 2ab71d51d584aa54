// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire
import Testing
import ZeroMQ

@testable import QTasksBroker

private let one = Session([0, 0, 0, 0, 1])
private let two = Session([0, 0, 0, 0, 2])
private let three = Session([0, 0, 0, 0, 3])
private let second: UInt64 = 1_000_000_000

/// A worker whose process the kernel can't show the Broker (recovery.md, H19).
@Suite
struct `A remote worker` {
    /// One that has a task in hand, in virtual time.
    private static func bench() throws -> (BrokerBench, WorkerID, Holding) {
        var bench = try BrokerBench()
        let worker = WorkerID()
        bench.remote(worker, one)
        let id = try bench.add()
        try bench.grantAll()
        let lease = try #require(try bench.takeTasks().first).lease
        bench.proposals = []
        return (bench, worker, Holding(id: id, lease: lease))
    }

    @Test func `is told how often to say that it lives, and its process is left alone (P4)`() throws
    {
        var bench = try BrokerBench()
        #expect(bench.broker.nextDeadline == nil, "P8")
        bench.remote(WorkerID(), one)
        let told = try #require(try bench.watched())
        #expect(told.intervalMilliseconds == 2000)
        #expect(told.silenceMilliseconds == 5 * told.intervalMilliseconds)
        #expect(bench.deeds.isEmpty, "its pid is another's here")
        #expect(bench.commandsToWorkers() == [.reconciled, .watched])

        bench.toWorkers = []
        bench.join(session: two)
        #expect(try bench.watched() == nil, "the kernel tells of that one")
        #expect(bench.deeds.count == 1)
    }

    @Test func `is known by a pid that isn't the one it names`() throws {
        var bench = try BrokerBench()
        bench.remote(WorkerID(), one, peer: .local(pid: BrokerBench.process.pid + 1))
        #expect(try bench.watched() != nil)
        #expect(bench.deeds.isEmpty)
    }

    @Test func `that falls silent leaves its tasks to others, and nothing is counted (P4)`() throws
    {
        var (bench, _, holding) = try Self.bench()
        bench.passUntil(10 * second - 1)
        #expect(bench.proposals.isEmpty, "not before its time")
        bench.passUntil(1)
        guard case .release(_, holding, .silence, false, false) = bench.proposals.first else {
            Issue.record("\(bench.proposals)")
            return
        }
        #expect(bench.broker.deaths == 0, "it is a guess")
        #expect(bench.deeds.isEmpty)
        #expect(bench.broker.nextDeadline == nil, "P8")
        try bench.grantAll()
        bench.join(session: two)
        try bench.grantAll()
        #expect(try bench.takeTasks().map(\.id) == [holding.id])
    }

    @Test func `lives as long as anything is heard of it (P5)`() throws {
        var (bench, _, _) = try Self.bench()
        for turn in 0..<10 {
            bench.passUntil(9 * second)
            let says = turn.isMultiple(of: 2)
            bench.worker(
                says ? WireWriter(.heartbeat).bytes : CreditMessage.encoded(window: 11),
                from: one
            )
        }
        #expect(!bench.proposals.contains { if case .release = $0 { true } else { false } })
    }

    @Test func `isn't given up by a Broker that was stopped itself, or slept with its host (P5)`()
        throws
    {
        var (bench, _, _) = try Self.bench()
        bench.pass(3600 * second)
        #expect(bench.proposals.isEmpty, "what was said meanwhile may still have to be read")
        bench.worker(WireWriter(.heartbeat).bytes, from: one)
        bench.passUntil(9 * second)
        #expect(bench.proposals.isEmpty)
    }

    @Test func `that was given up hears at its next HELLO what isn't its own any more (P5)`() throws
    {
        var (bench, worker, holding) = try Self.bench()
        bench.toWorkers = []
        bench.passUntil(10 * second)
        #expect(bench.commandsToWorkers() == [.welcome], "so that it says all anew, if it lives")
        bench.worker(WireWriter(.heartbeat).bytes, from: one)
        #expect(bench.commandsToWorkers().count == 1, "a second HELLO would cross what is sent")
        // before Storage has answered
        bench.remote(worker, one, running: [holding])
        #expect(try bench.verdicts() == [holding.lease: .abandon])
        try bench.grantAll()
        bench.remote(worker, two, running: [holding])
        #expect(try bench.verdicts() == [holding.lease: .abandon])
    }

    @Test func `has its whole window again after it was given up with a lease on its way`() throws {
        var bench = try BrokerBench()
        let worker = WorkerID()
        bench.remote(worker, one)
        try bench.add()
        bench.passUntil(10 * second)
        #expect(bench.broker.roster.count == 0)
        bench.remote(worker, two)
        // the lease is granted now, and was asked for in another session with as high a number
        try bench.grantAll()
        let number = try #require(bench.broker.roster.number(of: worker))
        #expect(bench.broker.roster[number].reserved == 0)
        #expect(bench.broker.roster[number].leases.isEmpty)
        #expect(try bench.takeTasks().isEmpty, "nobody holds it")
        let isReleased = bench.proposals.contains {
            if case .release(_, _, .notHeld, false, false) = $0 { true } else { false }
        }
        #expect(isReleased)
    }

    @Test func `of an earlier Broker is waited for, and not for ever (P5)`() throws {
        let task = BrokerBench.Stored(id: TaskID(), sequence: 1)
        let holding = Holding(id: task.id, lease: Lease(incarnation: 1, counter: 1))
        let worker = WorkerID()
        for comesBack in [true, false] {
            var bench = try BrokerBench(opened: false)
            try bench.open(
                incarnation: 2,
                [
                    .worker(id: worker, process: BrokerBench.process.asRemote),
                    .running(task, lease: holding.lease, worker: worker),
                ]
            )
            #expect(bench.deeds.isEmpty, "no process here is its own")
            bench.proposals = []
            bench.passUntil(9 * second)
            if comesBack {
                bench.remote(worker, one, running: [holding])
                #expect(try bench.verdicts() == [holding.lease: .keep])
            }
            bench.proposals = []
            bench.passUntil(second)
            let isReleased = bench.proposals.contains {
                if case .release(_, holding, .silence, false, false) = $0 { true } else { false }
            }
            #expect(isReleased == !comesBack)
        }
    }

    @Test func `isn't given up while Storage is away, when nobody can be greeted (P5)`() throws {
        var (bench, worker, holding) = try Self.bench()
        bench.broker.storageLost()
        bench.collect()
        #expect(bench.broker.nextDeadline == nil)
        bench.pass(100 * second)
        try bench.open(
            incarnation: 2,
            [
                .worker(id: worker, process: BrokerBench.process.asRemote),
                .running(
                    BrokerBench.Stored(id: holding.id, sequence: 1),
                    lease: holding.lease,
                    worker: worker
                ),
            ]
        )
        bench.proposals = []
        bench.passUntil(9 * second)
        #expect(bench.proposals.isEmpty)
        bench.passUntil(second)
        #expect(bench.proposals.count == 1)
    }

    @Test func `past a hard limit loses the attempt alone: nothing can end its process`() throws {
        var (bench, worker, holding) = try Self.bench()
        let attempt = RunningAttempt(
            lease: holding.lease,
            deadline: bench.now.monotonic + second,
            startedAt: Timestamp(nanoseconds: 77),
            retryMilliseconds: 5,
            maxAttempts: 3
        )
        bench.worker(RunningAttempt.encoded([attempt]), from: one)
        bench.passUntil(2 * second)
        guard case .overdue(let number, holding, let told) = bench.proposals.first else {
            Issue.record("\(bench.proposals)")
            return
        }
        #expect(told == OverdueAttempt(worker: worker, attempt))
        #expect(try bench.verdicts() == [holding.lease: .abandon], "it may still listen")
        try bench.verdicts(
            .released(number: number, holding: holding, status: .scheduled, isSuspect: false)
        )
        let entry = try #require(bench.broker.roster.number(of: worker))
        #expect(!bench.broker.roster[entry].isEmpty, "the handler goes on")
        bench.worker(RunningAttempt.encoded([.init(returned: holding.lease)]), from: one)
        #expect(bench.broker.roster[entry].isEmpty)
        #expect(bench.deeds.isEmpty)
    }

    @Test func `holds up no stop: its tasks are taken back when others are killed`() throws {
        var (bench, _, holding) = try Self.bench()
        bench.starts()
        bench.deeds = []
        var drain = WireWriter(.drain)
        drain.integer(UInt64(0))
        bench.worker(drain.bytes, from: three, peer: .local(pid: 1))
        bench.passUntil(1)
        bench.passUntil(second)
        guard case .release(_, holding, .drain, false, false) = bench.proposals.first else {
            Issue.record("\(bench.proposals)")
            return
        }
        try bench.grantAll()
        #expect(bench.broker.stopping == .drained)
        #expect(bench.deeds == [.drained], "nobody is killed")
        #expect(!bench.commandsToWorkers().contains(.killed), "the Starter has never started it")
    }

    @Test func `is watched as soon as the kernel shows it, and stays so`() throws {
        var bench = try BrokerBench()
        let worker = WorkerID()
        bench.remote(worker, one)
        bench.remote(worker, two, peer: .local(pid: BrokerBench.process.pid))
        #expect(bench.deeds == [.check(worker, BrokerBench.process)])
        #expect(bench.commandsToWorkers().suffix(1) == [.reconciled])
        // by a connection that is gone
        bench.remote(worker, three)
        #expect(bench.deeds.count == 1)
        bench.passUntil(100 * second)
        #expect(bench.broker.roster.number(of: worker) != nil)
    }

    @Test func `is shown as such, without numbers that are other processes' here`() throws {
        var bench = try BrokerBench()
        bench.remote(WorkerID(), one)
        var inspect = WireWriter(.inspect, number: 5)
        inspect.text("workers")
        bench.client(inspect.bytes)
        let text = String(decoding: bench.toClients.last?.message ?? [], as: UTF8.self)
        #expect(text.contains(#""remote":true"#))
        #expect(!text.contains(#""pid""#))
    }
}

extension BrokerBench {
    /// A worker that sends heartbeats says HELLO, by default from where it can't be seen.
    fileprivate mutating func remote(
        _ worker: WorkerID,
        _ session: Session,
        running: [Holding] = [],
        peer: PeerProcess = .remote
    ) {
        join(
            worker,
            session: session,
            running: running,
            reportsRunning: true,
            sendsHeartbeats: true,
            peer: peer
        )
    }

    /// The Starter connects.
    fileprivate mutating func starts() {
        worker(WireWriter(.starterHello).bytes, from: three, peer: .local(pid: 1))
    }

    /// Time passes, and every timer rings when it is due.
    fileprivate mutating func passUntil(_ nanoseconds: UInt64) {
        let end = now.monotonic + nanoseconds
        while let due = broker.nextDeadline, due <= end { pass(due - min(due, now.monotonic)) }
        now.monotonic = end
    }

    /// The last WATCHED.
    fileprivate func watched() throws -> WatchedMessage? {
        guard let message = toWorkers.last(where: { $0.message[3] == 0x36 })?.message else {
            return nil
        }
        return try message.withUnsafeBytes { bytes in
            var reader = WireReader(bytes)
            _ = try MessageHeader.read(from: &reader)
            return try WatchedMessage(from: &reader)
        }
    }

    /// What the last RECONCILED says.
    fileprivate func verdicts() throws -> [Lease: ReconcileVerdict] {
        guard let message = toWorkers.last(where: { $0.message[3] == 0x31 })?.message else {
            return [:]
        }
        return try message.withUnsafeBytes { bytes in
            var reader = WireReader(bytes)
            _ = try MessageHeader.read(from: &reader)
            var verdicts: [Lease: ReconcileVerdict] = [:]
            while !reader.isAtEnd {
                let lease = try reader.lease("lease")
                verdicts[lease] = ReconcileVerdict(rawValue: try reader.u8("verdict"))
            }
            return verdicts
        }
    }
}
