// Part of QTasks. License: see LICENSE.

package import AppendLog
package import QTasksModel
package import QTasksWire

/// A store as it was when the reader was made, seen as tasks: what all tools that look into a log
/// are built on.
///
/// It writes nothing, takes no lock and needs no Storage: any process may look into a store that is
/// being written, and into one that nobody serves.
package struct StoreReader {
    package let log: LogReader
    package let directory: String
    package let files: any LogFiles

    /// Maps the store.
    ///
    /// - Throws: As `LogReader.init`.
    package init(
        _ directory: String,
        files: any LogFiles = PosixFiles()
    ) throws(AppendLogError) {
        self.directory = directory
        self.files = files
        log = try LogReader(directory, files: files)
    }

    /// A fold for reading: due times are kept as they were on the wall clock, whatever this host's boot.
    static func makeFold() -> TaskFold {
        TaskFold(
            opened: Now(wall: Timestamp(nanoseconds: 0), monotonic: 0),
            bootID: TaskID(high: .max, low: .max),
            seed: .random(in: .min ... .max)
        )
    }

    /// What came of reading the log.
    package struct Reading {
        package var tasks: TaskFold
        package var report: LogReader.Report
        /// Records that are whole and make no sense.
        package var unreadable: [StoredPlace]
        /// Records that were durable and are damaged.
        package var damaged: [OpenedStore.DamagedTask]
    }

    /// All tasks as they are at the end of this snapshot.
    ///
    /// - Throws: Where a checkpoint can't be read.
    package func readNow() throws(AppendLogError) -> Reading {
        for checkpoint in try log.checkpoints() {
            guard let tasks = try restore(checkpoint) else { continue }
            return read(tasks, from: checkpoint)
        }
        return read(Self.makeFold(), from: nil)
    }

    /// The tasks as a checkpoint has them; `nil` where it isn't whole, or is gone.
    package func restore(_ checkpoint: CheckpointInfo) throws(AppendLogError) -> TaskFold? {
        try TaskFold.restored { (body) throws(AppendLogError) in
            try log.restore(checkpoint, body)
        }
    }

    /// Goes on from a checkpoint, or from the log's first record.
    ///
    /// - Parameters:
    ///   - tasks: What the checkpoint has.
    ///   - checkpoint: `nil` for the beginning.
    ///   - end: Nothing that lies from there on is taken in.
    ///   - progress: Called with the number of each segment that is begun.
    /// - Returns: What came of it.
    package func read(
        _ tasks: TaskFold,
        from checkpoint: CheckpointInfo?,
        until end: RecordPosition? = nil,
        progress: ((UInt32) -> Void)? = nil
    ) -> Reading {
        var tasks = tasks
        var unreadable: [StoredPlace] = []
        var damaged: [OpenedStore.DamagedTask] = []
        var segment: UInt32 = 0
        let report = log.forEach(
            from: checkpoint?.start,
            after: checkpoint?.startSequence,
            damaged: { damaged.append(OpenedStore.DamagedTask($0)) },
            { record in
                if let end, record.position >= end { return }
                if record.position.segment != segment {
                    segment = record.position.segment
                    progress?(segment)
                }
                if (try? tasks.replay(record)) == nil {
                    unreadable.append(StoredPlace(record))
                }
            }
        )
        return Reading(tasks: tasks, report: report, unreadable: unreadable, damaged: damaged)
    }

    // MARK: Records of tasks

    /// The whole record of a task.
    ///
    /// - Throws: ``AppendLogError`` or `WireError` where its add or its result can't be read.
    package func record(of entry: TaskEntry, in tasks: TaskFold) throws -> TaskRecord {
        let add = try log.withPayload(at: entry.added) { payload in
            Result { try DecodedAdd(payload) }
        }.get()
        var finish: DecodedFinish?
        if entry.finished != .none {
            finish = try log.withPayload(at: entry.finished) { payload in
                Result { try DecodedFinish(payload) }
            }.get()
        }
        return TaskRecord(entry, in: tasks, add, finish)
    }
}

extension TaskFold {
    /// What a checkpoint's blocks tell; `nil` where they are not all there.
    static func restored(
        _ show: ((CheckpointPart) -> Bool) throws(AppendLogError) -> Bool
    ) throws(AppendLogError) -> TaskFold? {
        var tasks = StoreReader.makeFold()
        var reading = CheckpointReading()
        let isWhole = try show { part in
            switch part {
            case .begin: return true
            case .block(let bytes): return (try? reading.take(bytes, into: &tasks)) != nil
            case .end: return reading.isWhole
            }
        }
        return isWhole ? tasks : nil
    }

    /// One record of a log that is read.
    ///
    /// - Throws: Where its bytes are not what its kind has.
    package mutating func replay(_ record: borrowing RecordView) throws(WireError) {
        try replay(
            kind: record.kind,
            payload: record.payload,
            at: StoredPlace(record),
            isCopy: record.source != nil
        )
    }

    /// The numbers of all tasks in the order of their adds.
    package var numbersInAddOrder: [TaskIndex.Number] {
        let numbers = Array(index.numbers)
        if index.isInAddOrder { return numbers }
        return numbers.sorted { index.core($0).sequence < index.core($1).sequence }
    }

    /// A task's name and queue.
    package func lane(of entry: TaskEntry) -> (name: String, queue: String) {
        let lane = lanes[entry.lane]
        return (lane.name, lane.queue)
    }

    /// The worker of a task's newest lease.
    package func worker(of entry: TaskEntry) -> WorkerID? {
        entry.worker == WorkerTable.none ? nil : workers[entry.worker].id
    }

    /// When a scheduled task is due; right in a fold of ``StoreReader`` alone.
    package func due(of entry: TaskEntry) -> Timestamp? {
        entry.status == .scheduled && entry.due != .none ? storedDue(of: entry).wall : nil
    }

    /// How many tasks of each queue and name are in each status; those without any are left out.
    package var depths: [TaskCounts] {
        lanes.lanes
            .filter { $0.byStatus.contains { $0 > 0 } }
            .map { TaskCounts(name: $0.name, queue: $0.queue, byStatus: $0.byStatus) }
            .sorted { ($0.queue, $0.name) < ($1.queue, $1.name) }
    }
}

extension StoredPlace {
    package init(_ record: borrowing RecordView) {
        self.init(
            sequence: record.sequence,
            position: record.position,
            bytes: record.bytesOnDisk
        )
    }
}

/// What the record of an add has, out of its bytes.
struct DecodedAdd {
    var addedAt: Timestamp
    var due: StoredDue?
    var submission: TaskSubmission

    /// - Throws: Where they are no add's.
    init(_ payload: UnsafeRawBufferPointer) throws(WireError) {
        var reader = WireReader(payload)
        let add = try StoredAdd(from: &reader)
        addedAt = add.addedAt
        due = add.due
        submission = try TaskSubmission(try Envelope(add.envelope))
    }
}

/// What the record of a result has, out of its bytes.
struct DecodedFinish {
    var due: StoredDue?
    var result: ResultEntry

    /// - Throws: Where they are no result's.
    init(_ payload: UnsafeRawBufferPointer) throws(WireError) {
        var reader = WireReader(payload)
        let finish = try StoredFinish(from: &reader)
        due = finish.due
        result = try ResultEntry(finish.result)
    }
}

extension TaskRecord {
    init(_ entry: TaskEntry, in tasks: TaskFold, _ add: DecodedAdd, _ finish: DecodedFinish?) {
        self.init(
            submission: add.submission,
            sequence: entry.sequence,
            status: entry.status,
            attempt: entry.attempt,
            failures: entry.failures,
            deaths: entry.deaths,
            epoch: entry.epoch,
            lease: entry.lease == .none ? nil : entry.lease,
            worker: tasks.worker(of: entry),
            addedAt: add.addedAt,
            notBefore: entry.status == .scheduled ? (finish?.due ?? add.due)?.wall : nil,
            startedAt: finish?.result.startedAt == StoredFinish.never
                ? nil : finish?.result.startedAt,
            finishedAt: finish?.result.finishedAt,
            outcome: finish?.result.outcome
        )
    }
}
