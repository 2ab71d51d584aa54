// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire
import Testing
import ZeroMQ

@testable import QTasksBroker

/// A Broker's core on a bench: what it says is taken apart, and Storage's part is played by hand, so
/// that a test can choose what is answered, and when.
struct BrokerBench {
    var broker: BrokerState
    var now = Now(wall: Timestamp(nanoseconds: 1_000), monotonic: 1_000)

    /// What was said since the last look.
    var proposals: [HeldProposal] = []
    var toClients: [(session: Session, message: [UInt8])] = []
    var toWorkers: [(session: Session, message: [UInt8])] = []
    var placed: [PlacedReply] = []
    var deeds: [BrokerOutbox.Deed] = []

    /// The log, as far as numbers go.
    var sequence: UInt64 = 0
    var durable: UInt64 = 0
    /// What tasks are called in this session.
    private var ids: [QueuedPlace: TaskID] = [:]
    private var rules: [String: QueueRules] = [:]

    static let client = Session([1, 1, 1, 1, 1])
    static let otherClient = Session([1, 1, 1, 1, 2])
    static let pid: Int32 = 4000
    static let process = WorkerProcess(pid: 50, startTime: 7, bootID: TaskID(high: 1, low: 1))

    /// A proposal whose bytes outlive the message.
    enum HeldProposal: Equatable {
        case add(number: UInt64, id: TaskID, lease: Lease, worker: WorkerID, isWatched: Bool)
        case lease(number: UInt64, id: TaskID, lease: Lease, worker: WorkerID, synced: Bool)
        case release(
            number: UInt64,
            holding: Holding,
            cause: ReleaseCause,
            isShared: Bool,
            counts: Bool
        )
        case watch(TaskID)
        case read(number: UInt64, id: TaskID, isWhole: Bool)
        case reader(WorkerID, Bool)
        case worker(WorkerID)
        case count(number: UInt64)
        case compact(number: UInt64)
        case change(number: UInt64, TaskChange, TaskID)
        case overdue(number: UInt64, Holding, OverdueAttempt)
        case queue(number: UInt64, QueueMessage)
        case evidence(number: UInt64, ExitMessage)
    }

    init(_ change: (inout QueueConfig) -> Void = { _ in }, opened: Bool = true) throws {
        var config = QueueConfig()
        change(&config)
        broker = BrokerState(
            settings: .init(config: config, pid: Self.pid, parentPid: 1, home: "/somewhere")
        )
        if opened { try open(incarnation: 1, []) }
    }

    // MARK: Storage's part

    /// An unfinished task of Storage's, whose ID the Broker isn't told while it is queued.
    struct Stored {
        var id: TaskID
        var sequence: UInt64
        var priority: Int16 = 0
        var isSuspect = false
        var name = "work"
        var queue = "default"
    }

    enum StoredItem {
        case queued(Stored)
        case running(Stored, lease: Lease, worker: WorkerID)
        case worker(id: WorkerID, process: WorkerProcess)
        case queue(String, QueueRules)
    }

    mutating func open(incarnation: UInt32, _ items: [StoredItem]) throws {
        let opened = Opened(
            incarnation: incarnation,
            pid: 2,
            globalConfigPid: 3,
            lastSequence: sequence
        )
        try storage(opened.encoded())
        try storage(snapshot(items))
    }

    mutating func snapshot(_ items: [StoredItem]) -> [UInt8] {
        ids = [:]
        var writer = WireWriter(.snapshot)
        for item in items { snapshotItem(item).write(to: &writer) }
        SnapshotItem.end.write(to: &writer)
        return writer.bytes
    }

    private mutating func snapshotItem(_ item: StoredItem) -> SnapshotItem {
        switch item {
        case .queued(let task):
            .queued(
                QueuedRun(
                    priority: task.priority,
                    isSuspect: task.isSuspect,
                    name: task.name,
                    queue: task.queue,
                    places: [place(of: task.id, task.sequence)]
                )
            )
        case .running(let task, let lease, let worker):
            .running(
                Placement(
                    place: place(of: task.id, task.sequence),
                    priority: task.priority,
                    isSuspect: task.isSuspect,
                    name: task.name,
                    queue: task.queue
                ),
                id: task.id,
                lease: lease,
                worker: worker
            )
        case .worker(let id, let process): .worker(id: id, process: process)
        case .queue(let queue, let rules): .queue(queue, rules)
        }
    }

    /// Gives a task a handle.
    private mutating func place(of id: TaskID, _ sequence: UInt64) -> QueuedPlace {
        let place = QueuedPlace(sequence: sequence, handle: 1000 + UInt32(ids.count))
        ids[place] = id
        return place
    }

    mutating func storage(_ message: [UInt8]) throws {
        broker.advance(to: now)
        try message.withUnsafeBytes { try broker.storageMessage($0) }
        collect()
    }

    mutating func verdicts(_ verdicts: Verdict...) throws {
        var writer = WireWriter(.verdicts)
        writer.integer(sequence)
        writer.integer(durable)
        for verdict in verdicts { verdict.write(to: &writer) }
        try storage(writer.bytes)
    }

    /// Takes every add and lease that is proposed, as a Storage that refuses nothing would.
    mutating func grantAll() throws {
        let asked = proposals
        proposals = []
        for proposal in asked {
            switch proposal {
            case .add(let number, let id, let lease, _, _):
                sequence += 1
                try verdicts(
                    .added(
                        number: number,
                        place: place(of: id, sequence),
                        leased: lease != .none,
                        due: .none,
                        addedAt: now.wall
                    )
                )
            case .lease(let number, let id, let lease, _, _):
                sequence += 1
                let task = LeasedTask(
                    lease: lease,
                    attempt: 1,
                    failures: 0,
                    epoch: 0,
                    isSuspect: false,
                    addedAt: now.wall
                )
                let envelope = try Self.envelope(id: id)
                try envelope.withUnsafeBytes {
                    try verdicts(.leased(number: number, task, envelope: $0))
                }
            case .release(let number, let holding, _, let isShared, _):
                sequence += 1
                try verdicts(
                    .released(number: number, holding: holding, status: .new, isSuspect: isShared)
                )
            case .watch, .read, .worker, .count, .compact, .reader, .change, .overdue, .queue,
                .evidence:
                proposals.append(proposal)
            }
        }
    }

    /// The add is in the log and the task waits.
    mutating func added(_ number: UInt64, _ id: TaskID, due: DueTime = .none) throws {
        sequence += 1
        try verdicts(
            .added(
                number: number,
                place: place(of: id, sequence),
                leased: false,
                due: due,
                addedAt: now.wall
            )
        )
    }

    /// Where a task that is added waits, as Storage tells it.
    func placement(of id: TaskID, priority: Int16 = 0, isSuspect: Bool = false) throws -> Placement
    {
        Placement(
            place: try #require(ids.first { $0.value == id }).key,
            priority: priority,
            isSuspect: isSuspect,
            name: "work",
            queue: "default"
        )
    }

    /// A client asks for a change, and Storage answers.
    mutating func change(
        _ change: TaskChange,
        _ id: TaskID,
        _ verdict: ChangeVerdict
    ) throws {
        client(ChangeMessage(change, ids: [id]).encoded(number: 88))
        guard case .change(let number, change, id) = try #require(proposals.last) else {
            Issue.record("not proposed: \(proposals)")
            return
        }
        proposals.removeLast()
        sequence += 1
        try verdicts(.changed(number: number, verdict))
    }

    /// A client changes a queue's rules, and Storage writes that down.
    mutating func change(
        _ queue: String = "default",
        _ change: (inout QueueChange) -> Void
    ) throws {
        var message = QueueMessage(queue: queue, change: QueueChange())
        change(&message.change)
        client(message.encoded(number: 99))
        guard case .queue(let number, message) = try #require(proposals.last) else {
            Issue.record("not proposed: \(proposals)")
            return
        }
        proposals.removeLast()
        sequence += 1
        rules[queue] = message.change.applied(to: rules[queue, default: QueueRules()])
        try verdicts(.queue(number: number, queue, .rules(rules[queue, default: QueueRules()])))
    }

    /// What clients heard of changes since the last look.
    mutating func takeChanges() throws -> [ChangeReceipt] {
        var receipts: [ChangeReceipt] = []
        for (_, message) in toClients {
            try message.withUnsafeBytes { bytes in
                var reader = WireReader(bytes)
                guard try MessageHeader.read(from: &reader).command == .changed else { return }
                while !reader.isAtEnd { receipts.append(try ChangeReceipt(from: &reader)) }
            }
        }
        toClients = []
        return receipts
    }

    mutating func makeDurable() throws {
        durable = sequence
        try verdicts()
    }

    mutating func finish(
        _ holding: Holding,
        _ worker: WorkerID,
        status: TaskStatus = .success,
        due: DueTime = .none,
        record: [UInt8] = []
    ) throws {
        try record.withUnsafeBytes {
            try verdicts(
                .finished(
                    holding: holding,
                    worker: worker,
                    verdict: .committed,
                    status: status,
                    due: due,
                    record: $0
                )
            )
        }
    }

    // MARK: Clients' and workers' part

    static func envelope(
        id: TaskID,
        name: String = "work",
        _ change: (inout TaskSubmission) -> Void = { _ in }
    ) throws -> [UInt8] {
        var submission = TaskSubmission(id: id, name: name, arguments: Array("{}".utf8))
        change(&submission)
        var writer = WireWriter()
        try submission.write(to: &writer)
        return writer.bytes
    }

    /// A client adds one task.
    @discardableResult
    mutating func add(
        _ id: TaskID = TaskID(),
        name: String = "work",
        options: RecordOptions = [],
        from session: Session = Self.client,
        _ change: (inout TaskSubmission) -> Void = { _ in }
    ) throws -> TaskID {
        var message = AddMessage.begin(number: 77, options: options)
        message.raw(try Self.envelope(id: id, name: name, change))
        client(message.bytes, from: session)
        return id
    }

    mutating func client(_ message: [UInt8], from session: Session = Self.client) {
        broker.advance(to: now)
        message.withUnsafeBytes { broker.clientMessage($0, from: session) }
        collect()
    }

    /// A worker connects and says hello.
    @discardableResult
    mutating func join(
        _ worker: WorkerID = WorkerID(),
        session: Session,
        slots: UInt32 = 10,
        window: UInt64 = 10,
        names: [String] = ["work"],
        running: [Holding] = [],
        done: [Holding] = [],
        reportsRunning: Bool = false,
        sendsHeartbeats: Bool = false,
        peer: PeerProcess? = nil
    ) -> WorkerID {
        let hello = Hello(
            worker: worker,
            process: Self.process,
            parentPid: 1,
            slots: slots,
            window: window,
            names: names,
            running: running,
            done: done,
            reportsRunning: reportsRunning,
            sendsHeartbeats: sendsHeartbeats
        )
        self.worker(hello.encoded(), from: session, peer: peer)
        return worker
    }

    mutating func worker(_ message: [UInt8], from session: Session, peer: PeerProcess? = nil) {
        broker.advance(to: now)
        message.withUnsafeBytes {
            broker.workerMessage(
                $0,
                from: session,
                peer: peer ?? .local(pid: Self.process.pid)
            )
        }
        collect()
    }

    mutating func die(_ worker: WorkerID, wasSeen: Bool = true) {
        broker.workerDied(worker, wasSeen: wasSeen)
        collect()
    }

    mutating func pass(_ nanoseconds: UInt64) {
        now.monotonic += nanoseconds
        broker.timer(now: now)
        collect()
    }

    // MARK: Looking

    mutating func collect() {
        let outbox = broker.flush()
        toClients += outbox.toClients
        toWorkers += outbox.toWorkers
        deeds += outbox.deeds
        placed += outbox.placed
        for message in outbox.toStorage.map(\.joined) { message.withUnsafeBytes { read($0) } }
    }

    private mutating func read(_ message: UnsafeRawBufferPointer) {
        var reader = WireReader(message)
        guard let header = try? MessageHeader.read(from: &reader), header.command == .propose
        else { return }
        while !reader.isAtEnd {
            guard let proposal = try? Proposal(from: &reader) else {
                Issue.record("a proposal that can't be read")
                return
            }
            hold(proposal)
        }
    }

    private mutating func hold(_ proposal: Proposal) {
        switch proposal {
        case .add(let number, let isWatched, let lease, let worker, let bytes):
            guard let envelope = try? Envelope(bytes) else { return }
            proposals.append(
                .add(
                    number: number,
                    id: envelope.id,
                    lease: lease,
                    worker: worker,
                    isWatched: isWatched
                )
            )
        case .lease(let number, let place, let lease, let worker, let synced):
            guard let id = ids[place] else {
                Issue.record("no task is called \(place)")
                return
            }
            proposals.append(
                .lease(number: number, id: id, lease: lease, worker: worker, synced: synced)
            )
        case .release(let number, let holding, let cause, let isShared, let counts):
            proposals.append(
                .release(
                    number: number,
                    holding: holding,
                    cause: cause,
                    isShared: isShared,
                    counts: counts
                )
            )
        case .watch(let id): proposals.append(.watch(id))
        case .read(let number, let id, let isWhole):
            proposals.append(.read(number: number, id: id, isWhole: isWhole))
        case .reader(let id, let isReader): proposals.append(.reader(id, isReader))
        case .worker(let id, _): proposals.append(.worker(id))
        case .count(let number): proposals.append(.count(number: number))
        case .compact(let number): proposals.append(.compact(number: number))
        case .overdue(let number, let holding, let overdue):
            proposals.append(.overdue(number: number, holding, overdue))
        case .evidence(let number, let exit):
            proposals.append(.evidence(number: number, exit))
        case .change(let number, let change, let id, _):
            proposals.append(.change(number: number, change, id))
        case .queue(let number, let message): proposals.append(.queue(number: number, message))
        }
    }

    /// The receipts that clients got since the last look.
    mutating func takeReceipts() throws -> [AddReceipt] {
        var receipts: [AddReceipt] = []
        for (_, message) in toClients {
            try message.withUnsafeBytes { bytes in
                var reader = WireReader(bytes)
                guard try MessageHeader.read(from: &reader).command == .added else { return }
                while !reader.isAtEnd { receipts.append(try AddReceipt(from: &reader)) }
            }
        }
        toClients = []
        return receipts
    }

    /// The refusals that clients got as ERROR since the last look.
    mutating func takeErrors() throws -> [Refusal] {
        var errors: [Refusal] = []
        for (_, message) in toClients {
            try message.withUnsafeBytes { bytes in
                var reader = WireReader(bytes)
                guard try MessageHeader.read(from: &reader).command == .error else { return }
                errors.append(try ErrorMessage.read(from: &reader))
            }
        }
        toClients = []
        return errors
    }

    /// The records that clients got since the last look.
    mutating func takeRecords() throws -> [(id: TaskID, state: RecordReply.State, record: [UInt8])]
    {
        var records: [(id: TaskID, state: RecordReply.State, record: [UInt8])] = []
        for (_, message) in toClients {
            try message.withUnsafeBytes { bytes in
                var reader = WireReader(bytes)
                guard try MessageHeader.read(from: &reader).command == .records else { return }
                _ = try reader.u8("flags")
                while !reader.isAtEnd {
                    let reply = try RecordReply(from: &reader)
                    records.append((reply.id, reply.state, Array(reply.record)))
                }
            }
        }
        toClients = []
        return records
    }

    /// The tasks sent to workers since the last look, in order.
    mutating func takeTasks() throws -> [(session: Session, lease: Lease, id: TaskID)] {
        var tasks: [(session: Session, lease: Lease, id: TaskID)] = []
        for (session, message) in toWorkers {
            try message.withUnsafeBytes { bytes in
                var reader = WireReader(bytes)
                guard try MessageHeader.read(from: &reader).command == .work else { return }
                let acks = Int(try reader.integer("acks", as: UInt32.self))
                for _ in 0..<acks { _ = try reader.lease("ack") }
                while !reader.isAtEnd {
                    let task = try LeasedTask(from: &reader)
                    tasks.append((session, task.lease, try Envelope(from: &reader).id))
                }
            }
        }
        toWorkers = []
        return tasks
    }

    mutating func takeProposals() -> [HeldProposal] {
        defer { proposals = [] }
        return proposals
    }

    /// The commands sent to workers since the last look.
    func commandsToWorkers() -> [Command] {
        toWorkers.compactMap { $0.message.count > 3 ? Command(rawValue: $0.message[3]) : nil }
    }
}
