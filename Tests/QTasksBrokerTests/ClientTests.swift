// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire
import Testing
import ZeroMQ

@testable import QTasksBroker

private let one = Session([0, 0, 0, 0, 1])

/// What clients hear.
@Suite
struct `Answering clients` {
    @Test func `P1: an add is acknowledged when it is durable, not when it is written`() throws {
        var bench = try BrokerBench()
        let id = try bench.add()
        try bench.grantAll()
        #expect(try bench.takeReceipts().isEmpty)
        try bench.makeDurable()
        #expect(try bench.takeReceipts() == [AddReceipt(id: id, verdict: .added)])
    }

    @Test(arguments: [Durability.written, .interval(milliseconds: 50)])
    func `an add that asks for no more is acknowledged when it is written`(level: Durability) throws
    {
        var bench = try BrokerBench()
        let id = try bench.add { $0.durability = level }
        try bench.grantAll()
        #expect(try bench.takeReceipts() == [AddReceipt(id: id, verdict: .added)])
    }

    @Test func `P1: a repeated add is acknowledged no earlier than the first (H29)`() throws {
        var bench = try BrokerBench()
        let id = try bench.add()
        try bench.grantAll()
        bench.proposals = []
        try bench.add(id)
        guard case .add(let number, id, _, _, _) = bench.takeProposals().first else {
            Issue.record("the repeat goes to Storage too")
            return
        }
        try bench.verdicts(.exists(number: number, sequence: bench.sequence, status: .new))
        #expect(try bench.takeReceipts().isEmpty, "the first one isn't durable yet")
        try bench.makeDurable()
        #expect(try bench.takeReceipts().count == 2)
    }

    @Test func `a client that waits hears the end once it is committed`() throws {
        var bench = try BrokerBench()
        let worker = bench.join(session: one)
        let id = try bench.add(options: .wait)
        try bench.grantAll()
        let task = try #require(try bench.takeTasks().first)
        #expect(try bench.takeRecords().isEmpty)
        try bench.finish(Holding(id: id, lease: task.lease), worker, record: [4, 9, 9])
        let records = try bench.takeRecords()
        #expect(records.map(\.id) == [id])
        #expect(records.first?.state == .found)
        #expect(records.first?.record == [4, 9, 9])
    }

    @Test func `a wait that is over is told the record as it is`() throws {
        var bench = try BrokerBench()
        let id = TaskID()
        bench.client(
            GetMessage(options: .wait, waitMilliseconds: 10, ids: [id]).encoded(number: 5)
        )
        #expect(bench.takeProposals() == [.watch(id)])
        bench.pass(10_000_000)
        guard case .read(let number, id, false) = bench.takeProposals().first else {
            Issue.record("no read when the wait is over")
            return
        }
        try [UInt8]([2, 0]).withUnsafeBytes {
            try bench.verdicts(.record(number: number, record: $0))
        }
        #expect(try bench.takeRecords().first?.state == .timedOut)
        #expect(bench.broker.nextDeadline == nil, "P8: nothing is awaited any more")
    }

    @Test func `an unknown task is said to be unknown`() throws {
        var bench = try BrokerBench()
        let id = TaskID()
        bench.client(GetMessage(options: [], ids: [id]).encoded(number: 5))
        guard case .read(let number, id, false) = bench.takeProposals().first else {
            Issue.record("no read")
            return
        }
        try bench.verdicts(
            .record(number: number, record: UnsafeRawBufferPointer(start: nil, count: 0))
        )
        #expect(try bench.takeRecords().first?.state == .notFound)
    }

    @Test func `a wait that came with an add isn't told of a task that was there before`() throws {
        var bench = try BrokerBench()
        let id = TaskID()
        bench.client(
            GetMessage(options: .wait, ids: [id]).encoded(number: 5),
            from: BrokerBench.otherClient
        )
        try bench.add(id, options: .wait)
        // to the first one's question; the add is still under way
        try bench.verdicts(.final(id: id, record: UnsafeRawBufferPointer(start: nil, count: 0)))
        #expect(bench.toClients.map(\.session) == [BrokerBench.otherClient])
        #expect(try bench.takeRecords().map(\.state) == [.notFound])
        try bench.grantAll()
        // once it is there, it may go as others do
        try bench.verdicts(.final(id: id, record: UnsafeRawBufferPointer(start: nil, count: 0)))
        #expect(try bench.takeRecords().map(\.state) == [.notFound])
    }

    @Test func `bad adds are refused one by one, by name`() throws {
        var bench = try BrokerBench { $0.maxPayload = 1024 }
        try bench.add { $0.arguments = Array(repeating: 0, count: 1025) }
        #expect(try refusalCodes(&bench) == [.payloadTooLarge])

        var message = AddMessage.begin(number: 1)
        var envelope = try BrokerBench.envelope(id: TaskID(), name: "ab")
        envelope[Envelope.fixedBytes] = 0x07  // a control character in the name
        message.raw(envelope)
        bench.client(message.bytes)
        #expect(try refusalCodes(&bench) == [.badName])

        let good = try bench.add()
        try bench.grantAll()
        try bench.makeDurable()
        #expect(try bench.takeReceipts() == [AddReceipt(id: good, verdict: .added)])
    }

    private func refusalCodes(_ bench: inout BrokerBench) throws -> [RefusalCode] {
        try bench.takeReceipts().compactMap {
            if case .refused(let refusal) = $0.verdict { refusal.code } else { nil }
        }
    }

    @Test func `a full queue pushes back`() throws {
        var bench = try BrokerBench { $0.maxQueued = 2 }
        for _ in 0..<3 { try bench.add() }
        #expect(try refusalCodes(&bench) == [.overloaded])
    }

    @Test func `P7: what can't be read gets an error and harms nobody`() throws {
        var bench = try BrokerBench()
        bench.client([1, 2, 3])
        #expect(try bench.takeErrors().map(\.code) == [.malformed])
        bench.client(Array("QT".utf8) + [9, 1] + Array(repeating: 0, count: 8))
        #expect(try bench.takeErrors().map(\.code) == [.unsupportedVersion])
        bench.client(Array("QT".utf8) + [1, 0xEE] + Array(repeating: 0, count: 8))
        #expect(try bench.takeErrors().map(\.code) == [.unknownCommand])
        bench.client(AddMessage.begin(number: 3).bytes)
        #expect(try bench.takeErrors().map(\.code) == [.malformed], "an add of nothing")
    }

    @Test(arguments: 0..<200)
    func `P7: no bytes at all can stop the Broker`(seed: UInt64) throws {
        var random = TaskIDGenerator(seed: (seed, 1))
        var bench = try BrokerBench()
        bench.join(session: one)
        for round in 0..<50 {
            var message = Array("QT".utf8) + [1]
            let commands: [Command] = [
                .add, .get, .ping, .inspect, .compact, .hello, .credit, .handBack,
            ]
            message.append(commands[Int(random.next(milliseconds: 0).low % 8)].rawValue)
            message += Array(repeating: 0, count: 8)
            let count = random.next(milliseconds: 0).low % 80
            for _ in 0..<count {
                message.append(UInt8(truncatingIfNeeded: random.next(milliseconds: 0).low))
            }
            if round % 2 == 0 { bench.client(message) } else { bench.worker(message, from: one) }
        }
        bench.toClients = []
        bench.client(WireWriter(.ping, number: 1).bytes)
        #expect(bench.toClients.count == 1, "seed \(seed)")
    }

    @Test func `a compaction is Storage's, and told when it is over`() throws {
        var bench = try BrokerBench()
        bench.client(WireWriter(.compact, number: 41).bytes)
        guard case .compact(let first) = bench.takeProposals().first else {
            Issue.record("Storage isn't asked")
            return
        }
        #expect(bench.toClients.isEmpty)
        // a Storage that was restarted is asked again
        try bench.open(incarnation: 9, [])
        #expect(bench.takeProposals() == [.compact(number: first)])
        let compacted = Compacted(bytesBefore: 7, bytesAfter: 3)
        try bench.verdicts(.compacted(number: first, compacted))
        #expect(bench.toClients.map(\.message) == [compacted.encoded(number: 41)])
        bench.toClients = []

        bench.client(WireWriter(.compact, number: 42).bytes)
        guard case .compact(let second) = bench.takeProposals().first else {
            Issue.record("Storage isn't asked")
            return
        }
        try bench.verdicts(.notCompacted(number: second, Refusal(.damaged, "segment 1")))
        #expect(try bench.takeErrors() == [Refusal(.damaged, "segment 1")])

        bench.client(WireWriter(.compact, number: 43).bytes)
        var drain = WireWriter(.drain)
        drain.integer(UInt64(1000))
        bench.worker(drain.bytes, from: one, peer: .local(pid: 1))
        #expect(try bench.takeErrors().map(\.code) == [.stopping])
    }

    @Test func `while stopping, adds are turned away and waiters hear of it`() throws {
        var bench = try BrokerBench()
        let id = try bench.add(options: .wait)
        try bench.grantAll()
        var drain = WireWriter(.drain)
        drain.integer(UInt64(1000))
        bench.worker(drain.bytes, from: one, peer: .local(pid: 1))
        #expect(bench.deeds.contains(.drained))
        #expect(try bench.takeRecords().map(\.state) == [.stopping])
        try bench.add()
        #expect(try refusalCodes(&bench) == [.stopping])
        _ = id
    }

    @Test func `a drain waits for what runs, asks it to end, then kills its worker`() throws {
        var bench = try BrokerBench()
        let worker = bench.join(session: one)
        try bench.add()
        try bench.grantAll()
        _ = try bench.takeTasks()
        var drain = WireWriter(.drain)
        drain.integer(UInt64(1000))
        bench.worker(drain.bytes, from: Session([9]), peer: .local(pid: 1))
        #expect(!bench.deeds.contains(.drained))
        bench.pass(1_000_000_000)
        #expect(bench.commandsToWorkers().contains(.softCancel))
        bench.pass(1_000_000_000)
        #expect(bench.deeds.contains(.kill(worker)))
        bench.proposals = []
        bench.die(worker)
        guard case .release(_, _, .drain, false, false) = bench.proposals.first else {
            Issue.record("a death that we caused counts against nobody")
            return
        }
        try bench.grantAll()
        #expect(bench.deeds.contains(.drained))
    }
}
