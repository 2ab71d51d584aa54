// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksStorage
import QTasksWire

/// A task and its place in line.
struct AddedTask {
    var id: TaskID
    /// Of its add.
    var sequence: UInt64
    var priority: Int16
    var isSuspect: Bool
    var name: String
    var queue: String
    /// What limits per key go by; empty: it has none.
    var key: [UInt8]
}

/// The checker's own reading of the log: what each record makes of its task, and whether it may.
///
/// Written from the table of recovery.md, chapter 4, and not from Storage's code.
struct Ledger {
    struct Record: Equatable {
        var sequence: UInt64
        var kind: UInt8
        var bytes: [UInt8]
    }

    struct Task {
        var id: TaskID
        var placement: AddedTask
        var durability: Durability
        var maxAttempts: UInt32?
        var maxDeliveries: UInt32
        var status: TaskStatus
        var due: StoredDue?
        var lease = Lease.none
        var worker = WorkerID(high: 0, low: 0)
        var attempt: UInt32 = 0
        var failures: UInt32 = 0
        var deaths: UInt32 = 0
        var epoch: UInt16 = 0
        var lastSequence: UInt64
        var outcome: [UInt8] = []
        /// Leases that a death ended in this epoch, and whether it is told how.
        var deathsOf: [Lease: Bool] = [:]
        /// What its add asked for, in seconds.
        var keptFor: UInt64?
        var unique: UniqueKey?
        var addedAt: Timestamp
    }

    /// A record that may not be there, in words.
    struct Complaint: Error {
        var text: String

        init(_ text: String) {
            self.text = text
        }
    }

    private(set) var records: [Record] = []
    private(set) var tasks: [TaskID: Task] = [:]

    /// Tasks that had ended and are forgotten, as they were; of several under one ID the last.
    private(set) var forgotten: [TaskID: Task] = [:]

    /// Tasks by the sequence of their add.
    private(set) var adds: [UInt64: TaskID] = [:]

    /// What holds the tasks of queues back.
    private(set) var queues = QueueHistory()

    /// Every lease that was ever recorded, also where the record was lost.
    private(set) var leases: Set<Lease> = []

    private let config: QueueConfig

    init(config: QueueConfig) {
        self.config = config
    }

    /// Takes the next record.
    mutating func append(_ record: Record, now: Now, bootID: TaskID) throws {
        guard record.sequence == UInt64(records.count) + 1 else {
            throw Complaint("record \(record.sequence) follows record \(records.count)")
        }
        records.append(record)
        try apply(record, now: now, bootID: bootID)
    }

    /// Storage has opened again: what it still has must be the beginning of what there was.
    ///
    /// - Parameters:
    ///   - read: What it read of it again: all that no checkpoint and nothing carried forward stands for.
    ///   - last: How many records it has in all.
    ///   - least: How many of them can't have been lost.
    ///   - now: The time.
    ///   - bootID: This boot of the host.
    /// - Throws: ``Complaint`` where one of those is gone, or any is another than before.
    mutating func restart(
        with read: [Record],
        upTo last: UInt64,
        atLeast least: UInt64,
        now: Now,
        bootID: TaskID
    ) throws {
        guard last >= least else {
            throw Complaint("P1: the log has \(last) records of \(least) that were safe")
        }
        guard last <= UInt64(records.count) else {
            throw Complaint("the log has \(last) records; only \(records.count) were appended")
        }
        for record in read where record != records[Int(record.sequence) - 1] {
            throw Complaint("record \(record.sequence) came back as another")
        }
        guard last < UInt64(records.count) else { return }
        let kept = records.prefix(Int(last))
        records = []
        tasks = [:]
        forgotten = [:]
        adds = [:]
        queues = QueueHistory()
        leases.removeAll(keepingCapacity: true)
        for record in kept { try append(record, now: now, bootID: bootID) }
    }

    /// What Storage makes of its log must be what the records say, whatever it read them from.
    ///
    /// - Throws: ``Complaint`` about the first task that it has wrong.
    func compare(with fold: TaskFold) throws {
        guard fold.index.count == tasks.count else {
            throw Complaint("Storage has \(fold.index.count) tasks; the log has \(tasks.count)")
        }
        for (id, task) in tasks.sorted(by: { $0.key < $1.key }) {
            guard let number = fold.index.number(of: id) else {
                throw Complaint("P1: Storage doesn't know \(id), which its log has")
            }
            let entry = fold.index[number]
            guard entry.status == task.status, entry.attempt == task.attempt,
                entry.failures == task.failures, entry.deaths == task.deaths,
                entry.epoch == task.epoch,
                entry.sequence == task.placement.sequence,
                entry.lastSequence == task.lastSequence,
                entry.flags.contains(.suspect) == task.placement.isSuspect,
                task.status != .process || entry.lease == task.lease,
                Set(fold.evidence.leases(of: id)) == Set(task.deathsOf.filter(\.value).keys)
            else { throw Complaint("Storage has \(id) as \(entry); the log says \(task)") }
        }
        guard fold.queues.rules == queues.rules else {
            throw Complaint(
                "P1: Storage has the rules \(fold.queues.rules); the log says \(queues.rules)"
            )
        }
    }

    /// Whether a task is there that this add began, or a later one of its ID; or was, and is forgotten.
    func has(_ id: TaskID, _ add: UInt64) -> Bool {
        [tasks[id], forgotten[id]].contains { $0.map { $0.placement.sequence >= add } ?? false }
    }

    // MARK: Records

    private mutating func apply(_ record: Record, now: Now, bootID: TaskID) throws {
        try record.bytes.withUnsafeBytes { bytes in
            var reader = WireReader(bytes)
            switch StoredKind(rawValue: record.kind) {
            case .add: try add(try StoredAdd(from: &reader), record.sequence)
            case .lease:
                let lease = try StoredLease(from: &reader)
                try change(lease.id, record) { try Self.lease(&$0, lease) }
                guard leases.insert(lease.lease).inserted else {
                    throw Complaint("P2: lease \(lease.lease) is given out a second time")
                }
            case .finish:
                let finish = try StoredFinish(from: &reader)
                try change(finish.result.id, record) { try Self.finish(&$0, finish) }
            case .release:
                let release = try StoredRelease(from: &reader)
                try change(release.holding.id, record) { try Self.release(&$0, release) }
            case .cancel:
                let cancel = try StoredFinish(from: &reader)
                try change(cancel.result.id, record) { try Self.cancel(&$0, cancel) }
            case .requeue:
                let requeue = try StoredRequeue(from: &reader)
                try change(requeue.id, record) { try Self.requeue(&$0, requeue) }
            case .evidence: try take(try StoredEvidence(from: &reader))
            case .queue: queues.apply(try StoredQueue(from: &reader), record.sequence)
            case .stale, .worker: break
            case .expire:
                let expire = try StoredExpire(from: &reader)
                guard let task = tasks.removeValue(forKey: expire.id), task.status.isFinal else {
                    throw Complaint("P1: a task is forgotten that has not ended")
                }
                forgotten[expire.id] = task
            case .carried: throw Complaint("a task is carried forward under a new sequence")
            case nil: throw Complaint("a record of the unknown kind \(record.kind)")
            }
        }
    }

    /// How a worker ended changes nothing of its task; it is told once for each lease that ended with it.
    private mutating func take(_ evidence: StoredEvidence) throws {
        let holding = evidence.holding
        guard let isTold = tasks[holding.id]?.deathsOf[holding.lease] else {
            throw Complaint("P4: evidence of a death that was none: lease \(holding.lease)")
        }
        guard !isTold else {
            throw Complaint("P4: the death under lease \(holding.lease) is explained twice")
        }
        tasks[holding.id]?.deathsOf[holding.lease] = true
    }

    private mutating func add(_ add: StoredAdd, _ sequence: UInt64) throws {
        let submission = try TaskSubmission(try Envelope(add.envelope))
        guard tasks[submission.id] == nil else {
            throw Complaint("P3: a task that is there already is added again")
        }
        if let unique = submission.unique,
            let holder = holder(of: unique.bytes, named: submission.name, at: add.addedAt)
        {
            throw Complaint("P3: a task is added whose key \(holder.id) holds")
        }
        adds[sequence] = submission.id
        tasks[submission.id] = Task(
            id: submission.id,
            placement: AddedTask(
                id: submission.id,
                sequence: sequence,
                priority: submission.priority,
                isSuspect: false,
                name: submission.name,
                queue: submission.queue,
                key: submission.key ?? []
            ),
            durability: submission.durability ?? config.durability,
            maxAttempts: submission.maxAttempts,
            maxDeliveries: submission.maxDeliveries ?? config.maxDeliveries,
            status: add.due == nil ? .new : .scheduled,
            due: add.due,
            lastSequence: sequence,
            keptFor: submission.retentionSeconds,
            unique: submission.unique,
            addedAt: add.addedAt
        )
    }

    private mutating func change(
        _ id: TaskID,
        _ record: Record,
        _ body: (inout Task) throws -> Void
    ) throws {
        guard var task = tasks[id] else {
            throw Complaint("a record of a task that was never added")
        }
        try body(&task)
        task.lastSequence = record.sequence
        tasks[id] = task
    }

    private static func lease(_ task: inout Task, _ lease: StoredLease) throws {
        switch task.status {
        case .new: break
        // whether it is due is told by the plan, not by the record (Checker+Dues.swift)
        case .scheduled: break
        case .process, .success, .error, .cancel, .dead:
            throw Complaint("P2: a task is leased that is \(task.status)")
        }
        task.status = .process
        task.due = nil
        task.lease = lease.lease
        task.worker = lease.worker
        task.attempt += 1
    }

    private static func finish(_ task: inout Task, _ finish: StoredFinish) throws {
        guard task.status == .process, task.lease == finish.result.lease else {
            throw Complaint(
                "P2: a result under \(finish.result.lease) is taken; the task is \(task.status) "
                    + "under \(task.lease)"
            )
        }
        let outcome = try ResultEntry(finish.result).outcome
        let expected: TaskStatus
        switch outcome {
        case .success: expected = .success
        case .cancel: expected = .cancel
        case .error:
            expected = .error
            task.failures += 1
        case .retry(_, _, let limit):
            task.failures += 1
            expected = task.failures < task.maxAttempts ?? limit ? .scheduled : .error
        }
        guard finish.status == expected else {
            throw Complaint("a result makes a task \(finish.status) that is \(expected)")
        }
        task.status = finish.status
        task.due = finish.due
        task.outcome = Array(finish.result.outcome)
    }

    private static func cancel(_ task: inout Task, _ cancel: StoredFinish) throws {
        guard !task.status.isFinal else {
            throw Complaint("P2: a task is cancelled that is \(task.status)")
        }
        let lease = task.status == .process ? task.lease : .none
        guard cancel.result.lease == lease, cancel.status == .cancel else {
            throw Complaint("a cancel names \(cancel.result.lease); the task is under \(lease)")
        }
        task.status = .cancel
        task.due = nil
        task.lease = .none
        task.outcome = Array(cancel.result.outcome)
    }

    private static func requeue(_ task: inout Task, _ requeue: StoredRequeue) throws {
        switch task.status {
        case .error, .dead, .cancel: break
        case .new, .process, .scheduled, .success:
            throw Complaint("P2: a task is queued again that is \(task.status)")
        }
        guard requeue.epoch == task.epoch + 1 else {
            throw Complaint("P2: epoch \(requeue.epoch) follows epoch \(task.epoch)")
        }
        task.status = .new
        task.epoch = requeue.epoch
        task.attempt = 0
        task.failures = 0
        task.deaths = 0
        task.lease = .none
        task.outcome = []
        task.deathsOf = [:]
        task.placement.isSuspect = false
    }

    private static func release(_ task: inout Task, _ release: StoredRelease) throws {
        guard task.status == .process, task.lease == release.holding.lease else {
            throw Complaint(
                "lease \(release.holding.lease) is given back; the task is \(task.status) under "
                    + "\(task.lease)"
            )
        }
        if release.isCounted {
            guard release.cause == .death else {
                throw Complaint("P4: a release by \(release.cause) counts as a death")
            }
            task.deaths += 1
        }
        let expected: TaskStatus =
            release.isCounted && task.deaths >= task.maxDeliveries ? .dead : .new
        guard release.status == expected else {
            throw Complaint("P4: after \(task.deaths) deaths a task is \(release.status)")
        }
        switch release.cause {
        case .death, .goneBefore: task.deathsOf[task.lease] = false
        case .notHeld, .handedBack, .drain, .unreadable, .neighbour, .silence: break
        }
        task.placement.isSuspect = task.placement.isSuspect || release.isSuspect
        task.status = release.status
    }
}
