// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire
import Testing
import ZeroMQ

@testable import QTasksBroker

private let starter = Session([0, 0, 0, 0, 9])
private let one = Session([0, 0, 0, 0, 1])
private let two = Session([0, 0, 0, 0, 2])

/// What the Broker and the Starter, its parent (pid 1), tell each other.
@Suite struct `The Starter's connection` {
    private func said(_ bench: inout BrokerBench, to session: Session) throws -> [Command] {
        let messages = bench.toWorkers.filter { $0.session == session }
        bench.toWorkers.removeAll { $0.session == session }
        return try messages.map { message in
            try message.message.withUnsafeBytes { bytes in
                var reader = WireReader(bytes)
                return try MessageHeader.read(from: &reader).command
            }
        }
    }

    private func tell(_ bench: inout BrokerBench, _ message: [UInt8]) {
        bench.worker(message, from: starter, peer: .local(pid: 1))
    }

    private func greeted(
        _ change: (inout QueueConfig) -> Void = { _ in }
    ) throws -> BrokerBench {
        var bench = try BrokerBench(change)
        tell(&bench, WireWriter(.starterHello).bytes)
        #expect(try said(&bench, to: starter) == [.ready])
        return bench
    }

    private func run(_ bench: inout BrokerBench, _ worker: WorkerID) throws {
        let id = try bench.add()
        try bench.grantAll()
        let lease = try #require(try bench.takeTasks().last).lease
        try bench.finish(Holding(id: id, lease: lease), worker)
    }

    @Test func `tells of each worker that joins, and of all of them to one that comes back`() throws
    {
        var bench = try greeted()
        bench.join(session: one)
        #expect(try said(&bench, to: starter) == [.joined])
        tell(&bench, WireWriter(.starterHello).bytes)
        #expect(try said(&bench, to: starter) == [.ready, .joined])
    }

    private func exit(_ pid: Int32 = 50) -> ExitMessage {
        ExitMessage(
            pid: pid,
            startTime: 7,
            wasSignal: false,
            code: 3,
            maxResidentBytes: 0,
            userMicroseconds: 0,
            systemMicroseconds: 0
        )
    }

    private func evidence(_ bench: inout BrokerBench) -> [(number: UInt64, exit: ExitMessage)] {
        bench.takeProposals().compactMap {
            if case .evidence(let number, let exit) = $0 { (number, exit) } else { nil }
        }
    }

    @Test func `takes an end once, and answers with its number once it is on record (P4)`() throws {
        var bench = try greeted()
        tell(&bench, exit().encoded(number: 5))
        tell(&bench, exit().encoded(number: 5))
        let proposed = evidence(&bench)
        #expect(proposed.map(\.exit) == [exit()])
        #expect(try said(&bench, to: starter).isEmpty, "a Broker that dies now is to be told again")
        try bench.verdicts(.evidence(number: proposed[0].number))
        let answer = bench.toWorkers.last
        #expect(answer?.message == WireWriter(.exit, number: 5).bytes)
        #expect(try said(&bench, to: starter) == [.exit])
        tell(&bench, exit().encoded(number: 5))
        #expect(try said(&bench, to: starter) == [.exit], "the answer was lost")
        #expect(evidence(&bench).isEmpty)
        bench.worker(exit(51).encoded(number: 6), from: two, peer: .local(pid: 51))
        #expect(evidence(&bench).isEmpty, "nobody else may say so")
    }

    @Test(arguments: [true, false])
    func `has a death recorded behind the releases of what it ended`(isToldBefore: Bool) throws {
        var bench = try greeted()
        let worker = bench.join(session: one)
        try bench.add()
        try bench.grantAll()
        bench.proposals = []
        if isToldBefore {
            tell(&bench, exit().encoded(number: 5))
            #expect(evidence(&bench).isEmpty, "its leases have not ended yet")
        }
        bench.die(worker)
        if !isToldBefore { tell(&bench, exit().encoded(number: 5)) }
        let kinds = bench.takeProposals().map { proposal in
            switch proposal {
            case .release: "release"
            case .evidence: "evidence"
            default: "other"
            }
        }
        #expect(kinds == ["release", "evidence"])
    }

    @Test func `asks a Storage that comes back again, and keeps no more than the Starter`() throws {
        var bench = try greeted()
        for pid in 1...Int32(StarterView.evidenceMax) {
            tell(&bench, exit(pid).encoded(number: UInt64(pid)))
        }
        #expect(evidence(&bench).count == StarterView.evidenceMax)
        #expect(try said(&bench, to: starter).isEmpty)
        tell(&bench, exit(9999).encoded(number: 9999))
        #expect(evidence(&bench).isEmpty)
        #expect(try said(&bench, to: starter) == [.exit], "dropped, and nobody keeps it")
        try bench.open(incarnation: 2, [])
        #expect(evidence(&bench).count == StarterView.evidenceMax)
    }

    @Test(arguments: [true, false])
    func `brings a death and its cause together, whichever is heard of first`(
        isToldBefore: Bool
    ) throws {
        var register = DeathRegister()
        let worker = WorkerID()
        let holding = Holding(id: TaskID(), lease: Lease(incarnation: 1, counter: 1))
        let exit = ExitMessage(
            pid: BrokerBench.process.pid,
            startTime: BrokerBench.process.startTime,
            wasSignal: true,
            code: 9,
            maxResidentBytes: 1,
            userMicroseconds: 2,
            systemMicroseconds: 3,
            errorTail: Array("last words".utf8)
        )
        var found: [DeathEvidence?] = []
        if isToldBefore { found.append(register.take(exit, number: 4, isExpected: true)) }
        found.append(register.died(worker, BrokerBench.process, holding: [holding]))
        if !isToldBefore { found.append(register.take(exit, number: 4, isExpected: false)) }
        found.append(register.take(exit, number: 4, isExpected: false))
        let all = DeathEvidence(exit: exit, worker: worker, holdings: [holding], number: 4)
        #expect(found.compactMap(\.self) == [all], "once")
    }

    @Test func `takes the cause of a death that was before its time, and forgets old ones`() {
        var register = DeathRegister()
        #expect(register.take(exit(1), isExpected: false) == DeathEvidence(exit: exit(1)))
        #expect(register.take(exit(1), isExpected: false) == nil)
        for pid in 2...Int32(DeathRegister.toldMax + 1) {
            _ = register.take(exit(pid), isExpected: false)
        }
        #expect(register.take(exit(1), isExpected: false) != nil)
    }

    @Test func `recycles a worker after its share of tasks, and counts no death (P4)`() throws {
        var bench = try greeted { $0.workerRules.recycleTasks = 2 }
        let worker = bench.join(session: one)
        try run(&bench, worker)
        #expect(try !said(&bench, to: one).contains(.retire))
        try run(&bench, worker)
        #expect(try said(&bench, to: one).contains(.retire))
        _ = try said(&bench, to: starter)
        bench.worker(WireWriter(.goodbye).bytes, from: one)
        #expect(try said(&bench, to: starter) == [.killed], "its end is in order")
        bench.die(worker)
        #expect(bench.broker.deaths == 0)
    }

    @Test func `has a worker weighed after a task, and recycles one that is too heavy`() throws {
        var bench = try greeted { $0.workerRules.recycleRSS = 1000 }
        let worker = bench.join(session: one)
        let id = try bench.add()
        try bench.grantAll()
        let lease = try #require(try bench.takeTasks().last).lease
        var finished = WireWriter(.verdicts)
        finished.integer(bench.sequence)
        finished.integer(bench.durable)
        [].withUnsafeBytes {
            Verdict.finished(
                holding: Holding(id: id, lease: lease),
                worker: worker,
                verdict: .committed,
                status: .success,
                due: .none,
                record: $0
            ).write(to: &finished)
        }
        try finished.bytes.withUnsafeBytes { try bench.broker.storageMessage($0) }
        #expect(bench.broker.flush().toWeigh == [worker: 50])
        bench.broker.weighed(worker, residentBytes: 999)
        bench.collect()
        #expect(try !said(&bench, to: one).contains(.retire))
        bench.broker.weighed(worker, residentBytes: 1000)
        bench.collect()
        #expect(try said(&bench, to: one) == [.retire])
    }

    @Test func `leaves workers alone that somebody else started`() throws {
        var bench = try greeted { $0.workerRules.recycleTasks = 1 }
        let hello = Hello(
            worker: WorkerID(),
            process: BrokerBench.process,
            parentPid: 77,
            slots: 1,
            window: 1,
            names: ["work"],
            running: [],
            done: []
        )
        bench.worker(hello.encoded(), from: one)
        try run(&bench, hello.worker)
        #expect(try !said(&bench, to: one).contains(.retire))
    }

    @Test func `counts no death of a worker that is let go, or never spoke to this Broker`() throws
    {
        var bench = try greeted()
        let worker = bench.join(session: one)
        try bench.add()
        try bench.grantAll()
        bench.proposals = []
        tell(&bench, WorkerNews.encoded(.retire, pid: BrokerBench.process.pid))
        #expect(try said(&bench, to: one).contains(.retire))
        bench.die(worker)
        let release = bench.takeProposals().contains {
            if case .release(_, _, .death, false, false) = $0 { true } else { false }
        }
        #expect(release)

        // one of a run whose Starter was killed: the kernel may take seconds to end it
        let earlier = WorkerID()
        let task = BrokerBench.Stored(id: TaskID(), sequence: 9)
        try bench.open(
            incarnation: 2,
            [
                .worker(id: earlier, process: BrokerBench.process),
                .running(task, lease: Lease(incarnation: 1, counter: 9), worker: earlier),
            ]
        )
        bench.proposals = []
        bench.die(earlier)
        let gone = bench.takeProposals().contains {
            if case .release(_, _, .goneBefore, false, false) = $0 { true } else { false }
        }
        #expect(gone)
    }

    @Test func `passes a client's restart on, and its end back`() throws {
        var bench = try greeted()
        bench.client(RestartMessage.asking(number: 4))
        #expect(try said(&bench, to: starter) == [.roll])
        #expect(bench.toClients.isEmpty)
        tell(&bench, RestartMessage.answer(.roll, number: 0, failure: "no luck"))
        let answer = RestartMessage.answer(.restart, number: 4, failure: "no luck")
        #expect(bench.toClients.map(\.message) == [answer])
        tell(&bench, RestartMessage.answer(.roll, number: 0, failure: ""))
        #expect(bench.toClients.count == 1)
    }

    @Test(arguments: [false, true])
    func `ends an idle system in the step in which it finds it so`(isByWall: Bool) throws {
        var bench = try greeted()
        let runner = bench.join(session: one)
        let id = try bench.add()
        tell(&bench, WireWriter(.idle).bytes)
        #expect(try !said(&bench, to: starter).contains(.idle), "an add is unanswered")
        try bench.grantAll()
        try bench.makeDurable()
        let task = try #require(try bench.takeTasks().last)
        let later = try bench.add { $0.start = .after(milliseconds: 5) }
        #expect(try !said(&bench, to: starter).contains(.idle), "a task runs")
        let number = bench.proposals.compactMap { proposal -> UInt64? in
            if case .add(let number, later, _, _, _) = proposal { number } else { nil }
        }.last
        let moment = Timestamp(nanoseconds: bench.now.wall.nanoseconds + 5_000_000)
        let due =
            isByWall ? DueTime(wall: moment) : DueTime(boot: bench.now.monotonic + 5_000_000)
        try bench.added(try #require(number), later, due: due)
        try bench.makeDurable()
        bench.proposals = []
        try bench.finish(Holding(id: id, lease: task.lease), runner)
        #expect(try !said(&bench, to: starter).contains(.idle), "one is scheduled")
        bench.now.wall = moment
        bench.pass(5_000_000)
        try bench.grantAll()
        let second = try #require(try bench.takeTasks().last)
        try bench.finish(Holding(id: later, lease: second.lease), runner)
        #expect(try said(&bench, to: starter) == [.idle, .drained])
        try bench.add()
        let refused = bench.toClients.last.map { String(decoding: $0.message, as: UTF8.self) }
        #expect(refused?.contains("stopped") == true)
    }
}
