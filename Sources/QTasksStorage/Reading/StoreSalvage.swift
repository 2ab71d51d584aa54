// Part of QTasks. License: see LICENSE.

package import AppendLog
package import QTasksModel
import QTasksWire

/// Makes a new store of what can be read in a damaged one, which stays as it is.
///
/// The new one has each task as it was last, with its result, in the order of the adds; how it came
/// to that stays behind in the old store.
package struct StoreSalvage {
    /// A task that something is missing of.
    package struct LostTask: Hashable, Sendable {
        package enum Part: String, Sendable {
            /// It is gone: what it was to do can't be read.
            case task
            /// It has ended, and is kept; how it ended can't be read.
            case result
            /// It was under way, and its end may be among the records that are lost: it runs again.
            case end
        }

        package var id: TaskID
        package var part: Part
        package var name: String
        package var queue: String
        package var status: TaskStatus
        package var position: RecordPosition
    }

    /// A record that can't be read.
    package struct DamagedRecord: Hashable, Sendable {
        package var record: OpenedStore.DamagedTask
        package var kind: UInt8
    }

    package private(set) var report = LogSalvage.Report()
    package private(set) var hadMeta = true
    package private(set) var segmentsWithoutHeader: [UInt32] = []
    package private(set) var segmentsLost: [UInt32] = []
    /// The checkpoint that the tasks were read from; `nil`: from the log alone.
    package private(set) var checkpoint: UInt32?
    package private(set) var damagedRecords: [DamagedRecord] = []
    package private(set) var unreadable: [StoredPlace] = []
    package private(set) var lostTasks: [LostTask] = []
    /// Tasks in the new store.
    package private(set) var tasks = 0

    /// Whether anything was lost.
    package var isWhole: Bool {
        report.lost.isEmpty && report.damaged.isEmpty && lostTasks.isEmpty && unreadable.isEmpty
            && segmentsLost.isEmpty
    }

    /// How many bytes are appended before the disk is waited for.
    private static let flushBytes = 8 << 20

    /// Salvages.
    ///
    /// - Parameters:
    ///   - source: The damaged store's directory; the caller holds its lock.
    ///   - target: The new store's, empty or not there yet.
    ///   - files: The file layer.
    ///   - driver: Who does the new log's work.
    ///   - progress: Called with what is being done.
    /// - Throws: ``AppendLogError`` where there is nothing to read, or where the new store can't be
    ///   written: it is then incomplete, and of no use.
    package init(
        from source: String,
        to target: String,
        files: any LogFiles = PosixFiles(),
        driver: LogDriver = .threads,
        progress: (String) -> Void = { _ in }
    ) throws(AppendLogError) {
        progress("reading")
        let old = try LogSalvage(source, files: files)
        hadMeta = old.hasMeta
        segmentsWithoutHeader = old.segmentsWithoutHeader
        segmentsLost = old.segmentsLost
        let tasks = try read(old)
        progress("writing \(tasks.index.count) tasks")
        // where the meta pages are gone, clean openings may have left no trace elsewhere
        let incarnation = old.incarnation + (old.hasMeta ? 0 : 1000)
        try Log.make(at: target, incarnation: incarnation, files: files)
        let longest = report.payloadBytesMax + StoredCarried.stateBytes
        let log = try Log.open(
            at: target,
            options: LogOptions(
                segmentBytes: max(64 << 20, longest + 1 << 20),
                recordBytesMax: max(17 << 20, longest)
            ),
            files: files,
            driver: driver,
            replay: { _ in }
        )
        log.stamp = UInt64(clamping: tasks.latest.nanoseconds)
        do throws(AppendLogError) {
            try write(tasks, old, log)
            try log.close()
        } catch {
            try? log.close()
            throw error
        }
    }

    // MARK: Reading

    /// A checkpoint knows more than a log with holes: from the newest whole one on, as at an opening.
    private mutating func read(_ old: LogSalvage) throws(AppendLogError) -> TaskFold {
        var tasks = StoreReader.makeFold()
        var start = RecordPosition.none
        for info in old.checkpoints {
            let restored = try TaskFold.restored { (body) throws(AppendLogError) in
                try old.restore(info, body)
            }
            guard let restored else { continue }
            (tasks, start, checkpoint) = (restored, info.start, info.number)
            break
        }
        var damagedRecords: [DamagedRecord] = []
        var unreadable: [StoredPlace] = []
        report = old.forEach(
            damaged: { record in
                damagedRecords.append(
                    DamagedRecord(record: OpenedStore.DamagedTask(record), kind: record.kind)
                )
            },
            { record in
                guard record.position >= start else { return }
                if (try? tasks.replay(record)) == nil { unreadable.append(StoredPlace(record)) }
            }
        )
        self.damagedRecords = damagedRecords
        self.unreadable = unreadable
        return tasks
    }

    // MARK: Writing

    private mutating func write(
        _ tasks: TaskFold,
        _ old: LogSalvage,
        _ log: Log
    ) throws(AppendLogError) {
        try writeWorkers(tasks, log)
        try writeQueues(tasks, log)
        let lastLost = report.lost.map(\.sequences.upperBound).max() ?? 0
        let isHoled = !report.damaged.isEmpty || !segmentsLost.isEmpty
        for number in tasks.numbersInAddOrder {
            let entry = tasks.index[number]
            try write(number, entry, tasks, old, log)
            if entry.status == .process, lastLost > entry.lastSequence || isHoled {
                note(.end, entry, tasks, entry.added)
            }
            if log.pendingBytes > Self.flushBytes { try log.flush() }
        }
        try log.flush()
    }

    /// Those that may still run something: their tasks are theirs until they are known to be gone.
    private func writeWorkers(_ tasks: TaskFold, _ log: Log) throws(AppendLogError) {
        for case let worker? in tasks.workers.workers where worker.tasks > 0 {
            guard let process = worker.process, !worker.hasEnded else { continue }
            var head = WireWriter()
            StoredWorker(at: tasks.latest, id: worker.id, process: process).writeHead(to: &head)
            try log.append(kind: StoredKind.worker.rawValue, payload: head.bytes)
        }
    }

    private func writeQueues(_ tasks: TaskFold, _ log: Log) throws(AppendLogError) {
        for (queue, entry) in tasks.queues.entries.sorted(by: { $0.key < $1.key })
        where !entry.rules.isDefault {
            var head = WireWriter()
            StoredQueue(at: tasks.latest, queue: queue, rules: entry.rules).writeHead(to: &head)
            try log.append(kind: StoredKind.queue.rawValue, payload: head.bytes)
        }
    }

    private mutating func write(
        _ number: TaskIndex.Number,
        _ entry: TaskEntry,
        _ tasks: TaskFold,
        _ old: LogSalvage,
        _ log: Log
    ) throws(AppendLogError) {
        // looked at first: a result without its task would be of no use
        guard isWhole(entry, old) else { return note(.task, entry, tasks, entry.added) }
        let result = try copyResult(of: entry, old, log)
        if entry.finished != .none, result == nil {
            note(.result, entry, tasks, entry.finished)
        }
        var failure: AppendLogError?
        try old.withPayload(at: entry.added) { payload in
            var reader = WireReader(payload)
            guard let add = try? StoredAdd(from: &reader) else { return }
            var carried = tasks.carried(number, add: add)
            carried.finished = result?.position ?? .none
            carried.finishedBytes = UInt32(clamping: result?.bytes ?? 0)
            carried.lastSequence = log.lastSequence + 1
            var state = WireWriter()
            carried.writeState(to: &state)
            let addBytes = UnsafeRawBufferPointer(rebasing: payload.dropLast(reader.left))
            do throws(AppendLogError) {
                try state.bytes.withBytes { (state) throws(AppendLogError) in
                    _ = try log.append(
                        kind: StoredKind.carried.rawValue,
                        pieces: [addBytes, state]
                    )
                }
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        self.tasks += 1
        for item in tasks.evidence[entry.id] { try copyEvidence(item, of: entry, old, log) }
    }

    /// What can't be read of it is left out: no task depends on it.
    private func copyEvidence(
        _ item: EvidenceTable.Item,
        of entry: TaskEntry,
        _ old: LogSalvage,
        _ log: Log
    ) throws(AppendLogError) {
        var failure: AppendLogError?
        try? old.withPayload(at: item.position) { payload in
            var reader = WireReader(payload)
            guard let stored = try? StoredEvidence(from: &reader), stored.holding.id == entry.id
            else { return }
            do throws(AppendLogError) {
                _ = try log.append(kind: StoredKind.evidence.rawValue, pieces: [payload])
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
    }

    private func isWhole(_ entry: TaskEntry, _ old: LogSalvage) -> Bool {
        let isWhole = try? old.withPayload(at: entry.added) { payload in
            var reader = WireReader(payload)
            guard let add = try? StoredAdd(from: &reader),
                let envelope = try? Envelope(add.envelope)
            else { return false }
            return envelope.id == entry.id && TaskFold.contentCRC(envelope) == entry.contentCRC
        }
        return isWhole ?? false
    }

    private func copyResult(
        of entry: TaskEntry,
        _ old: LogSalvage,
        _ log: Log
    ) throws(AppendLogError) -> StoredPlace? {
        guard entry.finished != .none else { return nil }
        var place: StoredPlace?
        var failure: AppendLogError?
        try? old.withPayload(at: entry.finished) { payload in
            var reader = WireReader(payload)
            guard let finish = try? StoredFinish(from: &reader), finish.result.id == entry.id else {
                return
            }
            do throws(AppendLogError) {
                let (sequence, position) = try log.append(
                    kind: StoredKind.finish.rawValue,
                    pieces: [payload]
                )
                let bytes = Log.bytesOnDisk(payloadBytes: payload.count)
                place = StoredPlace(sequence: sequence, position: position, bytes: bytes)
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return place
    }

    private mutating func note(
        _ part: LostTask.Part,
        _ entry: TaskEntry,
        _ tasks: TaskFold,
        _ position: RecordPosition
    ) {
        let (name, queue) = tasks.lane(of: entry)
        lostTasks.append(
            LostTask(
                id: entry.id,
                part: part,
                name: name,
                queue: queue,
                status: entry.status,
                position: position
            )
        )
    }
}
