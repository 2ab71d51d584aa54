// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire
import Testing
import ZeroMQ

@testable import QTasksBroker

/// Payloads that the Broker passes on without holding them.
@Suite
struct `A large payload` {
    private let one = Session([0, 0, 0, 0, 1])
    private let place = PayloadReference(
        segment: 3,
        offset: 1024,
        sequence: 1,
        start: 40,
        count: 100_000
    )
    private var bench: BrokerBench

    init() throws {
        bench = try BrokerBench()
    }

    private mutating func join(_ worker: WorkerID = WorkerID(), readsStore: Bool = true) -> WorkerID
    {
        let hello = Hello(
            worker: worker,
            process: BrokerBench.process,
            parentPid: 1,
            slots: 10,
            window: 100,
            names: ["work"],
            running: [],
            done: [],
            readsStore: readsStore
        )
        bench.worker(hello.encoded(), from: one)
        return worker
    }

    /// The tasks in the last message to a worker.
    private mutating func takeWork() throws -> [(task: LeasedTask, head: Int)] {
        var tasks: [(LeasedTask, Int)] = []
        for (_, message) in bench.toWorkers {
            try message.withUnsafeBytes { bytes in
                var reader = WireReader(bytes)
                guard try MessageHeader.read(from: &reader).command == .work else { return }
                for _ in 0..<(try reader.integer("acks", as: UInt32.self)) {
                    _ = try reader.lease("ack")
                }
                while !reader.isAtEnd {
                    let task = try LeasedTask(from: &reader)
                    tasks.append((task, try task.envelope(from: &reader).bytes.count))
                }
            }
        }
        bench.toWorkers = []
        return tasks
    }

    // MARK: To workers

    @Test mutating func `is offered by its place to workers that can read the store`() throws {
        let worker = join()
        #expect(bench.takeProposals() == [.worker(worker), .reader(worker, true)])
        try bench.open(incarnation: 2, [])
        #expect(bench.takeProposals() == [.worker(worker), .reader(worker, true)])
        let other = join(readsStore: false)
        #expect(bench.takeProposals() == [.worker(other)])
    }

    @Test mutating func `that comes with a lease is sent as its place, not as bytes`() throws {
        let worker = join()
        _ = bench.takeProposals()
        let id = try bench.add { $0.arguments = [UInt8](repeating: 1, count: 100_000) }
        guard case .add(let number, id, let lease, worker, false) = bench.takeProposals().first
        else { return #expect(Bool(false), "no add") }
        try bench.verdicts(
            .added(
                number: number,
                place: QueuedPlace(sequence: 1, handle: 0),
                leased: true,
                due: .none,
                addedAt: bench.now.wall,
                arguments: place
            )
        )
        let work = try takeWork()
        #expect(work.map(\.task.arguments) == [place] && work.map(\.task.lease) == [lease])
        #expect(work.allSatisfy { $0.head < 100 })
    }

    @Test mutating func `that a worker can't read goes back, and not for ever`() throws {
        let worker = join()
        _ = bench.takeProposals()
        for round in 1...10 {
            let id = try bench.add()
            guard case .add(_, id, let lease, worker, false) = bench.proposals.first else {
                return #expect(Bool(false), "no add")
            }
            try bench.grantAll()
            _ = bench.takeProposals()
            let back = HandBack(holdings: [Holding(id: id, lease: lease)], isUnreadable: true)
            bench.worker(back.encoded(), from: one)
            let proposals = bench.takeProposals()
            guard case .release(_, _, .unreadable, false, false) = proposals.first else {
                return #expect(Bool(false), "\(proposals)")
            }
            let isLast = round == WorkerEntry.unreadableMax
            #expect(Array(proposals.dropFirst()) == (isLast ? [.reader(worker, false)] : []))
            try bench.verdicts(
                .released(
                    number: 0,
                    holding: Holding(id: id, lease: lease),
                    status: nil,
                    isSuspect: false
                )
            )
        }
        #expect(join(worker) == worker)
        #expect(bench.takeProposals().contains(.reader(worker, true)), "a new session, a new try")
    }

    // MARK: To Storage

    @Test mutating func `goes on to Storage as a frame of its own, and again after a restart`()
        throws
    {
        let id = TaskID()
        let envelope = try BrokerBench.envelope(id: id) {
            $0.arguments = [UInt8](repeating: 1, count: 100_000)
        }
        var message = AddMessage.begin(number: 1)
        message.raw(try BrokerBench.envelope(id: TaskID()))
        message.raw(envelope)
        message.raw(try BrokerBench.envelope(id: TaskID()))
        message.bytes.withUnsafeBytes {
            bench.broker.clientMessage($0, from: BrokerBench.client)
        }
        let sent = bench.broker.flush().toStorage
        #expect(sent.map { $0.attachment?.count } == [envelope.count, nil])
        #expect(sent[0].attachment?.withUnsafeBytes { Array($0) } == envelope)
        #expect(sent[0].bytes.count < 500)
        try bench.open(incarnation: 2, [])
        #expect(bench.takeProposals().count == 3)
    }

    // MARK: To clients

    /// A record of which the last 100,000 bytes are in the store.
    private func record(_ status: TaskStatus = .success) -> [UInt8] {
        var writer = WireWriter()
        writer.beginPlaced()
        writer.piece([status.code, 1, 2, 3])
        writer.piece(place)
        return writer.bytes
    }

    /// A client waits for a task, and Storage tells its end.
    private mutating func wait(_ options: RecordOptions = .wait) throws -> TaskID {
        let id = TaskID()
        bench.client(GetMessage(options: options, ids: [id]).encoded(number: 5))
        try record().withUnsafeBytes { try bench.verdicts(.final(id: id, record: $0)) }
        return id
    }

    /// Fills with nines what is read from the store.
    private mutating func send(_ reply: PlacedReply, isThere: Bool = true) -> [UInt8]? {
        let message = bench.broker.message(of: reply) { place, target in
            guard isThere, place == self.place else { return false }
            target.initializeMemory(as: UInt8.self, repeating: 9)
            return true
        }
        bench.collect()
        return message
    }

    private func check(_ message: [UInt8]?, _ id: TaskID) throws {
        #expect(bench.toClients.isEmpty, "more was said")
        let message = try #require(message)
        try message.withUnsafeBytes { bytes in
            var reader = WireReader(bytes)
            #expect(try MessageHeader.read(from: &reader) == MessageHeader(.records, number: 5))
            _ = try reader.u8("flags")
            let reply = try RecordReply(from: &reader)
            #expect(reply.id == id && reply.state == .found && reader.isAtEnd)
            let status = TaskStatus.success.code
            #expect(
                Array(reply.record) == [status, 1, 2, 3] + [UInt8](repeating: 9, count: 100_000)
            )
        }
    }

    @Test mutating func `that a client waits for is read into the client's message`() throws {
        let id = try wait()
        let reply = try #require(bench.placed.first)
        try check(send(reply), id)
    }

    @Test mutating func `that a client asks for comes in the one answer`() throws {
        let id = TaskID()
        bench.client(GetMessage(options: [], ids: [id]).encoded(number: 5))
        guard case .read(let number, id, false) = bench.takeProposals().first else {
            return #expect(Bool(false), "no read")
        }
        try record().withUnsafeBytes { try bench.verdicts(.record(number: number, record: $0)) }
        try check(send(try #require(bench.placed.first)), id)
    }

    @Test(arguments: [RecordOptions.wait, [.wait, .json], []])
    mutating func `that is gone or has to be looked into is asked for whole`(
        options: RecordOptions
    ) throws {
        let id: TaskID
        if options.contains(.wait) {
            id = try wait(options)
        } else {
            id = TaskID()
            bench.client(GetMessage(options: options, ids: [id, id]).encoded(number: 5))
            for proposal in bench.takeProposals() {
                guard case .read(let number, _, _) = proposal else { continue }
                try record().withUnsafeBytes {
                    try bench.verdicts(.record(number: number, record: $0))
                }
            }
        }
        for reply in bench.placed { #expect(send(reply, isThere: false) == nil) }
        let reads = bench.takeProposals()
        #expect(!reads.isEmpty)
        for read in reads {
            switch read {
            case .read(let number, id, true):
                try [UInt8]([TaskStatus.success.code, 1, 2]).withUnsafeBytes {
                    try bench.verdicts(.record(number: number, record: $0))
                }
            default: continue
            }
        }
        let records = try bench.takeRecords()
        #expect(records.count == (options.contains(.wait) ? 1 : 2))
        #expect(records.allSatisfy { $0.id == id && $0.state == .found })
    }

    @Test mutating func `waits as a place while a client has enough under way (P7)`() throws {
        var ids = [try wait()]
        let most = LargeReplies.bytesMax / bench.placed[0].count
        for _ in 0..<most + 4 { ids.append(try wait()) }
        #expect(bench.placed.count == most)
        let first = bench.placed[0]
        bench.placed = []
        bench.broker.clientTook(first.session, first.count)
        bench.collect()
        #expect(bench.placed.count == 1, "one was taken, one goes")
        try check(send(bench.placed[0]), ids[most])
        // another client is not held up
        let id = TaskID()
        bench.client(
            GetMessage(options: .wait, ids: [id]).encoded(number: 5),
            from: BrokerBench.otherClient
        )
        try record().withUnsafeBytes { try bench.verdicts(.final(id: id, record: $0)) }
        #expect(bench.placed.count == 2)
        bench.broker.clientGone(first.session)
        bench.placed = []
        for _ in 0..<most { bench.broker.clientTook(first.session, first.count) }
        bench.collect()
        #expect(bench.placed.isEmpty, "what waited went with its client")
    }
}
