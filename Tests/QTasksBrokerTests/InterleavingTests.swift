// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire
import Testing
import ZeroMQ

@testable import QTasksBroker

private let one = Session([0, 0, 0, 0, 1])
private let two = Session([0, 0, 0, 0, 2])

/// Orders of events that nobody thought of until the simulator came upon them.
@Suite
struct `Unlucky interleavings` {
    private static func placement(
        _ sequence: UInt64,
        id: TaskID = TaskID(),
        name: String = "work",
        isSuspect: Bool = false
    ) -> BrokerBench.Stored {
        BrokerBench.Stored(
            id: id,
            sequence: sequence,
            priority: 0,
            isSuspect: isSuspect,
            name: name,
            queue: "default"
        )
    }

    private static func leases(_ bench: BrokerBench) -> [(id: TaskID, lease: Lease)] {
        bench.proposals.compactMap {
            if case .lease(_, let id, let lease, _, _) = $0 { (id, lease) } else { nil }
        }
    }

    private static func releases(_ bench: BrokerBench) -> Int {
        bench.proposals.count { if case .release = $0 { true } else { false } }
    }

    @Test func `a Storage that begins another session gives out no lease twice`() throws {
        var bench = try BrokerBench()
        bench.join(session: one)
        try bench.add()
        try bench.grantAll()
        let first = try #require(try bench.takeTasks().first).lease
        try bench.open(incarnation: 1, [.queued(Self.placement(9))])
        let leases = Self.leases(bench).map(\.lease)
        #expect(leases.count == 1)
        #expect(!leases.contains(first))
    }

    @Test func `what was proposed before Storage's new session is not sent in it`() throws {
        var bench = try BrokerBench()
        bench.join(session: one)
        bench.proposals = []
        // both in one turn: a task that waits, which is leased at once, and the new session
        let task = Self.placement(3)
        var writer = WireWriter(.opened, number: 1)
        writer.raw(Array(Opened(incarnation: 1, pid: 2, globalConfigPid: 3).encoded()[12...]))
        let snapshot = bench.snapshot([.queued(task)])
        var message = AddMessage.begin(number: 7)
        message.raw(try BrokerBench.envelope(id: TaskID()))
        message.bytes.withUnsafeBytes {
            bench.broker.clientMessage($0, from: BrokerBench.client)
        }
        for bytes in [writer.bytes, snapshot] {
            try bytes.withUnsafeBytes { try bench.broker.storageMessage($0) }
        }
        let proposals = try #require(bench.broker.flush().toStorage.first?.joined)
        try proposals.withUnsafeBytes { bytes in
            var reader = WireReader(bytes)
            #expect(try MessageHeader.read(from: &reader).number == 1)
            var adds = 0
            while !reader.isAtEnd {
                if case .add = try Proposal(from: &reader) { adds += 1 }
            }
            #expect(adds == 1, "the add goes out once, in the new session")
        }
    }

    @Test func `a task granted for an older session does not leave with the new one`() throws {
        var bench = try BrokerBench()
        let worker = bench.join(session: one)
        bench.proposals = []
        try bench.add()
        guard case .add(let number, _, _, _, _) = bench.proposals.first else {
            Issue.record("nothing was proposed")
            return
        }
        // the verdict and the worker's new HELLO are read in one turn
        var verdicts = WireWriter(.verdicts)
        verdicts.integer(UInt64(2))
        verdicts.integer(UInt64(0))
        Verdict.added(
            number: number,
            place: QueuedPlace(sequence: 1, handle: 0),
            leased: true,
            due: .none,
            addedAt: bench.now.wall
        ).write(to: &verdicts)
        try verdicts.bytes.withUnsafeBytes { try bench.broker.storageMessage($0) }
        bench.proposals = []
        bench.join(worker, session: two)
        #expect(try bench.takeTasks().isEmpty)
        #expect(Self.releases(bench) == 1)
    }

    @Test func `a HELLO that comes while Storage is away is asked for again`() throws {
        var bench = try BrokerBench()
        bench.worker([], from: one)
        bench.broker.storageLost()
        bench.join(session: one)
        bench.toWorkers = []
        try bench.open(incarnation: 2, [])
        #expect(bench.commandsToWorkers() == [.welcome])
    }

    @Test func `a HELLO that an older connection brings late changes nothing`() throws {
        var bench = try BrokerBench()
        let worker = WorkerID()
        func hello(_ holdings: [Holding]) -> Hello {
            Hello(
                worker: worker,
                process: BrokerBench.process,
                parentPid: 1,
                slots: 2,
                window: 2,
                names: ["work"],
                running: holdings,
                done: []
            )
        }
        bench.worker(hello([]).encoded(number: 5), from: two)
        let id = try bench.add()
        try bench.grantAll()
        let lease = try #require(try bench.takeTasks().first).lease
        bench.proposals = []
        bench.worker(hello([]).encoded(number: 4), from: one)
        #expect(Self.releases(bench) == 0)
        bench.worker(hello([Holding(id: id, lease: lease)]).encoded(number: 6), from: one)
        #expect(Self.releases(bench) == 0)
        bench.worker(hello([]).encoded(number: 7), from: two)
        #expect(Self.releases(bench) == 1)
    }

    @Test func `P5: a Storage that dies while it tells its tasks takes no lease away`() throws {
        var bench = try BrokerBench()
        let worker = bench.join(session: one)
        let id = try bench.add()
        try bench.grantAll()
        let lease = try #require(try bench.takeTasks().first).lease
        bench.broker.storageLost()
        try bench.storage(Opened(incarnation: 2, pid: 2, globalConfigPid: 3).encoded())
        bench.broker.storageLost()
        bench.proposals = []
        try bench.open(
            incarnation: 3,
            [.running(Self.placement(1, id: id), lease: lease, worker: worker)]
        )
        #expect(Self.releases(bench) == 0)
    }

    @Test func `a late result that is refused leaves its task to the release`() throws {
        var bench = try BrokerBench()
        let worker = bench.join(session: one)
        let id = try bench.add()
        try bench.grantAll()
        let lease = try #require(try bench.takeTasks().first).lease
        bench.die(worker)
        let holding = Holding(id: id, lease: lease)
        bench.proposals = []
        bench.join(session: two)
        let none = UnsafeRawBufferPointer(start: nil, count: 0)
        try bench.verdicts(
            .finished(
                holding: holding,
                worker: worker,
                verdict: .stale,
                status: .new,
                due: .none,
                record: none
            ),
            .released(number: 9, holding: holding, status: .new, isSuspect: false)
        )
        #expect(Self.leases(bench).map(\.id) == [id])
    }

    @Test func `P6: suspects of different names go in the order of their adds`() throws {
        var bench = try BrokerBench()
        bench.join(session: one, slots: 1, window: 1, names: ["work", "other"])
        bench.join(session: two, slots: 1, window: 1, names: ["work", "other"])
        let first = Self.placement(1, isSuspect: true)
        let second = Self.placement(2, name: "other", isSuspect: true)
        let third = Self.placement(3, isSuspect: true)
        // both workers are empty when the snapshot ends
        try bench.open(incarnation: 2, [.queued(third), .queued(second), .queued(first)])
        #expect(Self.leases(bench).map(\.id) == [first.id, second.id])
    }
}
