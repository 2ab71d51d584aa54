// Part of QTasks. License: see LICENSE.

import AppendLog
import QTasksModel
import QTasksWire

@testable import QTasksStorage

/// What the records of a log say, taken one after the other as they were appended.
///
/// A reading of its own: it knows neither positions nor copies nor checkpoints, so whatever compaction
/// and checkpoints make of the log has to come to the same.
struct KeptModel {
    struct Record: Equatable {
        var sequence: UInt64
        var kind: UInt8
        var bytes: [UInt8]
    }

    struct Task: Equatable {
        var name: String
        var queue: String
        var priority: Int16
        var envelope: [UInt8]
        /// Of its add.
        var sequence: UInt64
        var lastSequence: UInt64
        var status: TaskStatus
        var due: StoredDue?
        var lease = Lease.none
        var worker: WorkerID?
        var attempt: UInt32 = 0
        var failures: UInt32 = 0
        var deaths: UInt32 = 0
        var epoch: UInt16 = 0
        var maxAttempts: UInt32?
        var maxDeliveries: UInt32
        var isSuspect = false
        /// Leases that ended with their worker, in this epoch.
        var died: Set<Lease> = []
        /// What is known of these ends.
        var evidence: [Lease: [UInt8]] = [:]
        /// The record of its last attempt's end.
        var result: [UInt8]?
        var endedAt: Timestamp?
        /// What its add asked for, in seconds.
        var keptFor: UInt64?
        /// What its add said; it counts as long as the task may still run.
        var key: [UInt8] = []
        var expires: Timestamp?
        var unique: UniqueKey?
        var addedAt: Timestamp
    }

    struct Complaint: Error, CustomStringConvertible {
        var description: String

        init(_ description: String) {
            self.description = description
        }
    }

    /// A kind that no version has.
    static let unknownKind: UInt8 = 200

    private(set) var records: [Record] = []
    private(set) var tasks: [TaskID: Task] = [:]
    /// Forgotten tasks, and the record that says so.
    private(set) var leaving: [TaskID: UInt64] = [:]
    private(set) var processes: [WorkerID: WorkerProcess] = [:]
    /// Those whose end a record tells.
    private(set) var ended: Set<WorkerID> = []
    private(set) var unknown: [UInt64: [UInt8]] = [:]
    private(set) var expiries = 0
    private(set) var queues: [String: QueueRules] = [:]
    private(set) var cancels = 0
    private(set) var requeues = 0
    private(set) var explained = 0
    private(set) var purges = 0
    /// Dead tasks that somebody wanted to be forgotten before their time.
    var unwanted: Set<TaskID> = []
    /// Tasks that ended since nobody leased them in time.
    private(set) var unleased = 0

    private let config: QueueConfig

    init(config: QueueConfig) {
        self.config = config
    }

    var lastSequence: UInt64 { UInt64(records.count) }

    /// Takes the next record.
    ///
    /// - Throws: ``Complaint`` where it may not be there.
    mutating func append(_ record: Record) throws {
        guard record.sequence == lastSequence + 1 else {
            throw Complaint("record \(record.sequence) follows record \(lastSequence)")
        }
        records.append(record)
        try record.bytes.withUnsafeBytes { try apply(record, WireReader($0)) }
    }

    /// As it was when the log ended there.
    func prefix(upTo last: UInt64) throws -> KeptModel {
        guard last < lastSequence else { return self }
        var model = KeptModel(config: config)
        model.unwanted = unwanted
        for record in records.prefix(Int(last)) { try model.append(record) }
        return model
    }

    // MARK: Records

    private mutating func apply(_ record: Record, _ payload: WireReader) throws {
        var reader = payload
        switch StoredKind(rawValue: record.kind) {
        case .add: try add(try StoredAdd(from: &reader), record.sequence)
        case .lease:
            let lease = try StoredLease(from: &reader)
            try change(lease.id, record, from: [.new, .scheduled]) { task in
                task.status = .process
                task.due = nil
                task.lease = lease.lease
                task.worker = lease.worker
                task.attempt += 1
            }
        case .finish:
            let finish = try StoredFinish(from: &reader)
            try change(finish.result.id, record, from: [.process]) { task in
                try Self.finish(&task, finish)
                task.result = record.bytes
            }
        case .release:
            let release = try StoredRelease(from: &reader)
            try change(release.holding.id, record, from: [.process]) { task in
                try Self.release(&task, release)
            }
            let isEnd = release.cause == .death || release.cause == .goneBefore
            if isEnd, let worker = tasks[release.holding.id]?.worker {
                ended.insert(worker)
                tasks[release.holding.id]?.died.insert(release.holding.lease)
            }
        case .evidence: try take(try StoredEvidence(from: &reader), record)
        case .cancel:
            let cancel = try StoredFinish(from: &reader)
            var isUnleased = false
            try change(cancel.result.id, record, from: [.new, .scheduled, .process]) { task in
                guard cancel.result.lease == (task.status == .process ? task.lease : .none) else {
                    throw Complaint("a cancel names another lease than the task's")
                }
                if try ResultEntry(cancel.result).outcome == .cancel(reason: "expired") {
                    guard task.awaitsStart, let expires = task.expires, expires <= cancel.at else {
                        throw Complaint("a task ends as if its time were over: \(task)")
                    }
                    isUnleased = true
                }
                task.status = .cancel
                task.due = nil
                task.lease = .none
                task.result = record.bytes
                task.endedAt = cancel.at
            }
            if isUnleased { unleased += 1 } else { cancels += 1 }
        case .requeue:
            let requeue = try StoredRequeue(from: &reader)
            if let unique = tasks[requeue.id]?.unique, unique.scope.seconds == 0,
                let name = tasks[requeue.id]?.name,
                let holder = holder(of: unique.bytes, named: name, at: requeue.at)
            {
                throw Complaint("P3: \(requeue.id) waits again, and \(holder) holds its key")
            }
            try change(requeue.id, record, from: [.error, .dead, .cancel]) { task in
                guard requeue.epoch == task.epoch + 1 else {
                    throw Complaint("epoch \(requeue.epoch) follows epoch \(task.epoch)")
                }
                task.status = .new
                task.epoch = requeue.epoch
                task.attempt = 0
                task.failures = 0
                task.deaths = 0
                task.isSuspect = false
                task.died = []
                task.evidence = [:]
                task.lease = .none
                task.worker = nil
                task.result = nil
                task.endedAt = nil
            }
            requeues += 1
        case .worker:
            let worker = try StoredWorker(from: &reader)
            processes[worker.id] = worker.process
        case .expire: try expire(try StoredExpire(from: &reader), record.sequence)
        case .stale: break
        case .queue:
            let queue = try StoredQueue(from: &reader)
            queues[queue.queue] = queue.rules
        case .carried: throw Complaint("a task is carried forward under a sequence of its own")
        case nil: unknown[record.sequence] = record.bytes
        }
    }

    private mutating func take(_ evidence: StoredEvidence, _ record: Record) throws {
        let (id, lease) = (evidence.holding.id, evidence.holding.lease)
        guard let task = tasks[id], task.died.contains(lease) else {
            throw Complaint("record \(record.sequence) is evidence of no death")
        }
        guard task.evidence[lease] == nil else {
            throw Complaint("P4: the death under \(lease) is explained a second time")
        }
        tasks[id]?.evidence[lease] = record.bytes
        explained += 1
    }

    private mutating func add(_ add: StoredAdd, _ sequence: UInt64) throws {
        let submission = try TaskSubmission(try Envelope(add.envelope))
        guard tasks[submission.id] == nil else {
            throw Complaint("P3: task \(submission.id) is there and is added again")
        }
        if let unique = submission.unique,
            let holder = holder(of: unique.bytes, named: submission.name, at: add.addedAt)
        {
            throw Complaint("P3: \(submission.id) is added, and \(holder) holds its key")
        }
        leaving[submission.id] = nil
        tasks[submission.id] = Task(
            name: submission.name,
            queue: submission.queue,
            priority: submission.priority,
            envelope: Array(add.envelope),
            sequence: sequence,
            lastSequence: sequence,
            status: add.due == nil ? .new : .scheduled,
            due: add.due,
            maxAttempts: submission.maxAttempts,
            maxDeliveries: submission.maxDeliveries ?? config.maxDeliveries,
            keptFor: submission.retentionSeconds,
            key: submission.key ?? [],
            expires: submission.expires,
            unique: submission.unique,
            addedAt: add.addedAt
        )
    }

    /// Who holds a key at that moment.
    func holder(of key: [UInt8], named name: String, at moment: Timestamp) -> TaskID? {
        tasks.first { _, task in
            task.unique?.bytes == key && task.name == name && task.holdsKey(at: moment)
        }?.key
    }

    private mutating func change(
        _ id: TaskID,
        _ record: Record,
        from states: Set<TaskStatus>,
        _ body: (inout Task) throws -> Void
    ) throws {
        guard var task = tasks[id] else {
            throw Complaint("record \(record.sequence) speaks of a task that isn't there")
        }
        guard states.contains(task.status) else {
            throw Complaint("P2: record \(record.sequence) changes a task that is \(task.status)")
        }
        try body(&task)
        task.lastSequence = record.sequence
        tasks[id] = task
    }

    private static func finish(_ task: inout Task, _ finish: StoredFinish) throws {
        guard task.lease == finish.result.lease else {
            throw Complaint("P2: a result under a lease that doesn't hold")
        }
        switch try ResultEntry(finish.result).outcome {
        case .success: task.status = .success
        case .cancel: task.status = .cancel
        case .error:
            task.failures += 1
            task.status = .error
        case .retry(_, _, let limit):
            task.failures += 1
            task.status = task.failures < task.maxAttempts ?? limit ? .scheduled : .error
        }
        guard finish.status == task.status else {
            throw Complaint("a result makes a task \(finish.status) that is \(task.status)")
        }
        task.worker = finish.worker
        task.due = finish.due
        if task.status.isFinal { task.endedAt = finish.at }
    }

    private static func release(_ task: inout Task, _ release: StoredRelease) throws {
        guard task.lease == release.holding.lease else {
            throw Complaint("a lease is given back that doesn't hold")
        }
        if release.isCounted { task.deaths += 1 }
        let isDead = release.isCounted && task.deaths >= task.maxDeliveries
        task.status = isDead ? .dead : .new
        guard release.status == task.status else {
            throw Complaint("P4: after \(task.deaths) deaths a task is \(release.status)")
        }
        task.isSuspect = task.isSuspect || release.isSuspect
        if isDead { task.endedAt = release.at }
    }

    private mutating func expire(_ expire: StoredExpire, _ sequence: UInt64) throws {
        guard let task = tasks[expire.id], let endedAt = task.endedAt else {
            throw Complaint("P1: a task is forgotten that has not ended")
        }
        if task.status == .dead, unwanted.contains(expire.id) {
            purges += 1
            return forget(expire.id, sequence)
        }
        if let end = task.windowEnd, expire.at < end {
            throw Complaint("P3: a task is forgotten whose key's window goes on")
        }
        let age = expire.at.nanoseconds - endedAt.nanoseconds
        guard age >= Int64(Retention.secondsMin) * 1_000_000_000 else {
            throw Complaint("P3: a task is forgotten \(age) ns after its end")
        }
        if age < limit(of: task).age, !isInExcess(task) {
            throw Complaint("a task is forgotten \(age) ns after its end, too early")
        }
        forget(expire.id, sequence)
        expiries += 1
    }

    private mutating func forget(_ id: TaskID, _ sequence: UInt64) {
        tasks[id] = nil
        leaving[id] = sequence
    }

    private func limit(of task: Task) -> (age: UInt64, count: Int?) {
        if let own = task.keptFor { return (RetentionRules.age(ownSeconds: own), nil) }
        return config.retention.limit(name: task.name, status: task.status)
    }

    private func isInExcess(_ task: Task) -> Bool {
        guard let count = limit(of: task).count else { return false }
        let alike = tasks.values.count {
            $0.name == task.name && $0.keptFor == nil && $0.status.isFinal
                && $0.status.isFailure == task.status.isFailure
        }
        return alike > count
    }

    /// Tasks that ended so long ago that they ought to be forgotten.
    func overdue(at now: Timestamp) -> [TaskID] {
        tasks.filter { _, task in
            guard let endedAt = task.endedAt else { return false }
            if let end = task.windowEnd, end.nanoseconds + 2_000_000_000 > now.nanoseconds {
                return false
            }
            let age = UInt64(max(0, now.nanoseconds - endedAt.nanoseconds))
            // up to a second later than they could
            return age >= limit(of: task).age + 2_000_000_000
        }.map(\.key)
    }
}

extension KeptModel.Task {
    /// It was never leased, nor queued again.
    var awaitsStart: Bool { (status == .new || status == .scheduled) && attempt == 0 && epoch == 0 }

    var windowEnd: Timestamp? {
        guard case .window(let seconds) = unique?.scope else { return nil }
        return Timestamp(nanoseconds: addedAt.nanoseconds + Int64(seconds) * 1_000_000_000)
    }

    func holdsKey(at moment: Timestamp) -> Bool {
        switch unique?.scope {
        case .whileQueued: attempt == 0 && (status == .new || status == .scheduled)
        case .whileUnfinished: !status.isFinal
        case .window: windowEnd.map { moment < $0 } ?? false
        case nil: false
        }
    }
}

extension KeptModel.Record {
    init(_ record: borrowing RecordView) {
        self.init(
            sequence: record.sequence,
            kind: record.kind,
            bytes: Array(record.payload)
        )
    }
}
