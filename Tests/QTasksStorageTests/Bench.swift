// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksStorage
import QTasksWire
import Testing

/// What Storage told the Broker, as values that a test can compare.
enum Told: Equatable {
    case added(UInt64, sequence: UInt64, leased: Bool, isDelayed: Bool)
    case exists(UInt64, sequence: UInt64, TaskStatus)
    case same(UInt64, TaskID, sequence: UInt64, isSynced: Bool)
    case refused(UInt64, RefusalCode)
    case leased(UInt64, LeasedTask, arguments: [UInt8])
    case stale(UInt64, TaskStatus?)
    case early(UInt64, DueTime)
    case released(UInt64, TaskStatus?, isSuspect: Bool)
    case finished(Holding, ResultVerdict, TaskStatus?, TaskRecord?)
    case record(UInt64, TaskRecord?)
    case final(TaskID, TaskRecord?)
    case counts(UInt64, [TaskCounts])
    case compacted(UInt64, Compacted)
    case notCompacted(UInt64, RefusalCode)
    case changed(UInt64, ChangeVerdict)
    case queue(UInt64, String, QueueVerdict)
    case evidence(UInt64)

    init(_ verdict: Verdict) throws {
        switch verdict {
        case .added(let number, let place, let leased, let due, _, _):
            self = .added(number, sequence: place.sequence, leased: leased, isDelayed: due != .none)
        case .exists(let number, let sequence, let status):
            self = .exists(number, sequence: sequence, status)
        case .same(let number, let id, let sequence, let isSynced):
            self = .same(number, id, sequence: sequence, isSynced: isSynced)
        case .refused(let number, let refusal): self = .refused(number, refusal.code)
        case .leased(let number, let task, let envelope):
            var reader = WireReader(envelope)
            let arguments = try task.envelope(from: &reader).arguments
            self = .leased(number, task, arguments: Array(arguments))
        case .stale(let number, let status): self = .stale(number, status)
        case .early(let number, let due): self = .early(number, due)
        case .released(let number, _, let status, let isSuspect):
            self = .released(number, status, isSuspect: isSuspect)
        case .finished(let holding, _, let verdict, let status, _, let record):
            self = .finished(holding, verdict, status, try Self.record(record))
        case .record(let number, let record): self = .record(number, try Self.record(record))
        case .final(let id, let record): self = .final(id, try Self.record(record))
        case .counts(let number, let bytes):
            var reader = WireReader(bytes)
            var counts: [TaskCounts] = []
            while !reader.isAtEnd { counts.append(try TaskCounts(from: &reader)) }
            self = .counts(number, counts)
        case .compacted(let number, let compacted): self = .compacted(number, compacted)
        case .notCompacted(let number, let refusal): self = .notCompacted(number, refusal.code)
        case .changed(let number, let verdict): self = .changed(number, verdict)
        case .queue(let number, let queue, let verdict): self = .queue(number, queue, verdict)
        case .evidence(let number): self = .evidence(number)
        }
    }

    private static func record(_ bytes: UnsafeRawBufferPointer) throws -> TaskRecord? {
        guard !bytes.isEmpty else { return nil }
        var reader = WireReader(bytes)
        let record = try TaskRecord(from: &reader)
        var writer = WireWriter()
        record.write(to: &writer)
        #expect(writer.bytes == Array(bytes), "assembled as TaskRecord writes it")
        return record
    }
}

/// Storage's core on a log in memory, with a Broker that has a session.
struct Bench {
    static let worker = WorkerID(high: 1, low: 1)
    static let otherWorker = WorkerID(high: 2, low: 2)
    static let bootID = TaskID(high: 3, low: 3)

    let log = MemoryLog()
    var state: StorageState
    var now = Now(wall: Timestamp(nanoseconds: 1_000_000_000_000), monotonic: 5_000_000_000)
    /// The last message's watermarks.
    var marks: (written: UInt64, durable: UInt64) = (0, 0)
    private var generator = TaskIDGenerator(seed: (11, 12))

    init(_ config: QueueConfig = QueueConfig(), isServing: Bool = true) {
        state = StorageState(settings: Self.settings(config), now: now)
        guard isServing else { return }
        state.brokerSession(incarnation: log.incarnation, globalConfigPid: 0)
        _ = state.flush()
    }

    static func settings(_ config: QueueConfig = QueueConfig()) -> StorageState.Settings {
        StorageState.Settings(
            config: config,
            directory: "/home/q/store",
            bootID: bootID,
            pid: 1,
            seed: 99
        )
    }

    mutating func newID() -> TaskID { generator.next(milliseconds: 1_000) }

    mutating func submission(_ name: String = "a.task", _ arguments: String = "[1]")
        -> TaskSubmission
    {
        TaskSubmission(id: newID(), name: name, arguments: Array(arguments.utf8))
    }

    // MARK: Events

    /// One message with these proposals; PULL is dry.
    mutating func propose(_ proposals: Proposal...) {
        deliver(proposals)
        state.decideReleases(now: now, log: log)
    }

    /// The same, releases not yet decided.
    mutating func deliver(_ proposals: [Proposal]) {
        var writer = WireWriter(.propose, number: state.sessionNumber ?? 0)
        for proposal in proposals { proposal.write(to: &writer) }
        writer.bytes.withUnsafeBytes { state.brokerMessage($0, now: now, log: log) }
    }

    mutating func add(
        _ submission: TaskSubmission,
        number: UInt64 = 1,
        isWatched: Bool = false,
        lease: Lease = .none
    ) throws {
        var writer = WireWriter()
        try submission.write(to: &writer)
        let bytes = writer.bytes
        bytes.withUnsafeBytes {
            propose(
                .add(
                    number: number,
                    isWatched: isWatched,
                    lease: lease,
                    worker: Self.worker,
                    envelope: $0
                )
            )
        }
    }

    mutating func push(
        _ id: TaskID,
        _ lease: Lease,
        _ outcome: TaskOutcome = .success(result: [0x31], contentType: nil),
        from worker: WorkerID = Bench.worker
    ) {
        let result = ResultEntry(
            id: id,
            lease: lease,
            startedAt: Timestamp(nanoseconds: 10),
            finishedAt: Timestamp(nanoseconds: 20),
            outcome: outcome
        )
        state.push(result, from: worker, now: now, log: log)
    }

    mutating func release(
        _ id: TaskID,
        _ lease: Lease,
        _ cause: ReleaseCause = .death,
        isShared: Bool = false,
        counts: Bool = false
    ) {
        propose(releaseProposal(id, lease, cause, isShared: isShared, counts: counts))
    }

    func releaseProposal(
        _ id: TaskID,
        _ lease: Lease,
        _ cause: ReleaseCause = .death,
        isShared: Bool = false,
        counts: Bool = false
    ) -> Proposal {
        .release(
            number: 3,
            holding: Holding(id: id, lease: lease),
            cause: cause,
            isShared: isShared,
            counts: counts
        )
    }

    mutating func cancel(_ id: TaskID, reason: String = "enough", number: UInt64 = 5) {
        propose(.change(number: number, .cancel, id: id, reason: reason))
    }

    mutating func requeue(_ id: TaskID, number: UInt64 = 6) {
        propose(.change(number: number, .requeue, id: id, reason: ""))
    }

    mutating func forget(_ id: TaskID, number: UInt64 = 8) {
        propose(.change(number: number, .forget, id: id, reason: ""))
    }

    mutating func lease(_ id: TaskID, _ lease: Lease, number: UInt64 = 2, synced: Bool = false) {
        self.lease(place(of: id), lease, number: number, synced: synced)
    }

    mutating func lease(
        _ place: QueuedPlace,
        _ lease: Lease,
        number: UInt64 = 2,
        synced: Bool = false
    ) {
        propose(
            .lease(number: number, place: place, lease: lease, worker: Self.worker, synced: synced)
        )
    }

    /// As the Broker was told it; nowhere for a task that isn't there.
    func place(of id: TaskID) -> QueuedPlace {
        guard let handle = state.tasks.index.number(of: id) else {
            return QueuedPlace(sequence: 1, handle: .max)
        }
        return QueuedPlace(sequence: state.tasks.index[handle].sequence, handle: handle)
    }

    // MARK: What is told

    /// The turn's end, with the log no further than it was.
    mutating func told() throws -> [Told] {
        state.watermarks(log.marks, log: log)
        var told: [Told] = []
        for message in state.flush().toBroker {
            try message.withUnsafeBytes { bytes in
                var reader = WireReader(bytes)
                guard try MessageHeader.read(from: &reader).command == .verdicts else { return }
                marks = (try reader.integer("written"), try reader.integer("durable"))
                while !reader.isAtEnd { told.append(try Told(try Verdict(from: &reader))) }
            }
        }
        return told
    }

    /// The same once everything is written.
    mutating func written() throws -> [Told] {
        log.write()
        return try told()
    }

    /// The same once everything is durable.
    mutating func synced() throws -> [Told] {
        log.sync()
        return try told()
    }

    /// A task that is added and durable, and told.
    mutating func addedTask(_ submission: TaskSubmission? = nil) throws -> TaskID {
        let submission = submission ?? self.submission()
        try add(submission)
        _ = try synced()
        return submission.id
    }

    /// A task that runs under that lease.
    mutating func runningTask(
        _ lease: Lease = Lease(incarnation: 7, counter: 1),
        _ submission: TaskSubmission? = nil
    ) throws -> TaskID {
        let id = try addedTask(submission)
        self.lease(id, lease)
        _ = try synced()
        return id
    }

    /// What is known of a task now.
    mutating func record(_ id: TaskID) throws -> TaskRecord? {
        propose(.read(number: 77, id: id, isWhole: true))
        for told in try synced() {
            if case .record(77, let record) = told { return record }
        }
        Issue.record("no answer")
        return nil
    }

    mutating func status(_ id: TaskID) throws -> TaskStatus? { try record(id)?.status }

    /// As if Storage had been restarted: all it knows is what the log has.
    mutating func reopen(_ settings: StorageState.Settings = settings()) throws {
        state = StorageState(settings: settings, now: now)
        try log.replay(into: &state)
        state.brokerSession(incarnation: log.incarnation, globalConfigPid: 0)
        _ = state.flush()
    }

    /// The messages of a new session.
    mutating func snapshot() throws -> [SnapshotItem] {
        state.brokerSession(incarnation: log.incarnation, globalConfigPid: 0)
        var items: [SnapshotItem] = []
        for message in state.flush().toBroker {
            try message.withUnsafeBytes { bytes in
                var reader = WireReader(bytes)
                guard try MessageHeader.read(from: &reader).command == .snapshot else { return }
                while !reader.isAtEnd { items.append(try SnapshotItem(from: &reader)) }
            }
        }
        return items
    }
}

extension StorageState {
    /// A worker's message with one result arrives.
    mutating func push(
        _ result: ResultEntry,
        from worker: WorkerID,
        now: Now,
        log: some TaskLog
    ) {
        var writer = WireWriter(.results)
        writer.worker(worker)
        result.write(to: &writer)
        writer.bytes.withUnsafeBytes { results($0, now: now, log: log) }
    }
}
