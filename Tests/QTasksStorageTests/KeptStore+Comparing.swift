// Part of QTasks. License: see LICENSE.

import AppendLog
import QTasksModel
import QTasksWire

@testable import QTasksStorage

extension KeptStore {
    // MARK: What is compared

    /// The live store.
    func compareLive() throws {
        guard let log, state.failure == nil, hasPower else { return }
        try drain()
        try compare(state, log.kept, with: model, isFresh: false)
    }

    /// What an opening would find if the process ended now, with its checkpoints or without.
    func compareCopy(withoutCheckpoints: Bool) throws {
        guard let log, state.failure == nil else { return }
        try drain()
        let copy = disk.copy()
        let written = log.kept.watermarks().written
        if withoutCheckpoints {
            for path in try Self.checkpoints(copy) { try copy.remove(path) }
        }
        var unknown: [UInt64: [UInt8]] = [:]
        let store = try OpenedStore(
            settings,
            options: plan.options,
            keeping: plan.keeping,
            now: now,
            files: copy,
            driver: .manual,
            observe: { record in
                guard record.kind == KeptModel.unknownKind else { return }
                unknown[record.sequence] = Array(record.payload)
            }
        )
        guard store.log.lastSequence >= written else {
            throw KeptModel.Complaint("P1: what was written is gone")
        }
        let expected = try model.prefix(upTo: store.log.lastSequence)
        try compare(store.state, store.log, with: expected, isFresh: true)
        guard withoutCheckpoints else { return }
        guard unknown == expected.unknown else {
            throw KeptModel.Complaint("records of a later version are gone")
        }
    }

    static func checkpoints(_ disk: SimulatedDisk) throws -> [String] {
        try disk.list(path).filter { $0.hasPrefix("checkpoint-") }.map { "\(path)/\($0)" }
    }

    // MARK: With what

    /// What Storage knows must be what the records say, whatever it read them from.
    ///
    /// - Throws: `KeptModel.Complaint` about the first thing that differs.
    func compare(
        _ state: StorageState,
        _ log: Log,
        with model: KeptModel,
        isFresh: Bool
    ) throws {
        var expected: [LaneKey: [UInt64]] = [:]
        var leaving = 0
        for number in state.tasks.index.numbers {
            let entry = state.tasks.index[number]
            let lane = state.tasks.lanes[entry.lane]
            expected[LaneKey(lane), default: LaneKey.none][Int(entry.status.code) - 1] += 1
            if entry.flags.contains(.expiring) {
                guard !isFresh, model.leaving[entry.id] != nil else {
                    throw KeptModel.Complaint("\(entry.id) is about to be forgotten for no reason")
                }
                leaving += 1
                continue
            }
            guard let task = model.tasks[entry.id] else {
                throw KeptModel.Complaint(
                    "\(entry.id) is there as \(entry), and the log has no such"
                )
            }
            try compare(entry, lane, task, model, state, isFresh: isFresh)
            do {
                try compareBytes(entry, task, log)
                try compareEvidence(state.tasks.evidence[entry.id], entry, task, log)
            } catch let error as AppendLogError {
                guard hasPower else { throw error }
                throw KeptModel.Complaint("\(entry) can't be read: \(error)")
            }
        }
        guard state.tasks.index.count == model.tasks.count + leaving else {
            let gone = model.tasks.filter { state.tasks.index.number(of: $0.key) == nil }
            throw KeptModel.Complaint("P1: these are gone: \(gone)")
        }
        for number in state.tasks.index.numbers {
            let entry = state.tasks.index[number]
            let task = model.tasks[entry.id]
            let key = task.flatMap { $0.status == .success ? nil : $0.key } ?? []
            guard entry.flags.contains(.expiring) || state.tasks.keys[number] ?? [] == key else {
                throw KeptModel.Complaint("\(entry.id) has another key than its add says")
            }
        }
        let rules = state.tasks.queues.entries.mapValues(\.rules).filter { !$0.value.isDefault }
        guard rules == model.queues.filter({ !$0.value.isDefault }) else {
            throw KeptModel.Complaint("queues have the rules \(rules), not \(model.queues)")
        }
        try compareCounts(state.tasks.lanes, expected)
        try compareUsage(state.tasks, log)
        try compareRetention(state)
        try compareDeadlines(state, model)
        try compareKeys(state, model)
    }

    /// Whoever is to be leased by a time, and nobody else, is known with that time.
    private func compareDeadlines(_ state: StorageState, _ model: KeptModel) throws {
        var found: [TaskID: Int64] = [:]
        for row in 0..<state.tasks.deadlines.endNumber {
            guard let entry = state.tasks.deadlines.entry(row),
                state.tasks.index.isDeadline(entry)
            else { continue }
            let id = state.tasks.index[entry.number].id
            guard found.updateValue(entry.moment, forKey: id) == nil else {
                throw KeptModel.Complaint("\(id) has two times by which it is to be leased")
            }
        }
        let expected = model.tasks.filter { $1.awaitsStart }.compactMapValues(\.expires)
        guard found == expected.mapValues(\.nanoseconds) else {
            throw KeptModel.Complaint("to be leased by \(found); the log says \(expected)")
        }
    }

    /// Each key that is held is known to be, by whom it is.
    private func compareKeys(_ state: StorageState, _ model: KeptModel) throws {
        let moment = state.tasks.stamp(now)
        for (id, task) in model.tasks where task.holdsKey(at: moment) {
            guard let key = task.unique?.bytes else { continue }
            let hash = key.withUnsafeBytes { key in
                Array(task.name.utf8).withUnsafeBytes {
                    KeyHash(name: $0, key: key, seed: state.tasks.uniqueKeys.seed)
                }
            }
            let holder = state.tasks.holder(of: hash, at: moment).map { state.tasks.index[$0].id }
            guard holder == id else {
                throw KeptModel.Complaint(
                    "P3: \(id) holds its key, and Storage says \(holder as Any)"
                )
            }
        }
        guard state.tasks.uniqueKeys.count <= 4 * state.tasks.index.count + 64 else {
            throw KeptModel.Complaint("\(state.tasks.uniqueKeys.count) keys are kept")
        }
    }

    private struct LaneKey: Hashable {
        static let none = [UInt64](repeating: 0, count: TaskStatus.allCases.count)
        var name: String
        var queue: String

        init(_ lane: LaneTable.Lane) {
            (name, queue) = (lane.name, lane.queue)
        }
    }

    private func compare(
        _ entry: TaskEntry,
        _ lane: LaneTable.Lane,
        _ task: KeptModel.Task,
        _ model: KeptModel,
        _ state: StorageState,
        isFresh: Bool
    ) throws {
        let ended = task.endedAt.map { UInt32(($0.nanoseconds + 999_999_999) / 1_000_000_000) } ?? 0
        let isSame =
            entry.status == task.status && entry.sequence == task.sequence
            && entry.lastSequence == task.lastSequence && entry.attempt == task.attempt
            && entry.failures == task.failures && entry.deaths == task.deaths
            && entry.isSuspect == task.isSuspect && entry.priority == task.priority
            && entry.epoch == task.epoch && entry.endedAt == ended
            && entry.keptFor == task.keptFor.map { UInt32($0) } ?? 0
            && (entry.finished == .none) == (task.result == nil)
            && lane.name == task.name && lane.queue == task.queue
            && (task.status != .process && !task.status.isFinal || entry.lease == task.lease)
        guard isSame else {
            throw KeptModel.Complaint("Storage has \(entry) in \(lane); the log says \(task)")
        }
        try compareWorker(entry, task, model, state.tasks.workers)
        try compareDue(entry, task, state.settings.bootID, isFresh: isFresh)
    }

    private func compareWorker(
        _ entry: TaskEntry,
        _ task: KeptModel.Task,
        _ model: KeptModel,
        _ workers: WorkerTable
    ) throws {
        let id = entry.worker == WorkerTable.none ? nil : workers[entry.worker].id
        guard id == task.worker else {
            throw KeptModel.Complaint("\(entry.id) is with \(id as Any); the log says \(task)")
        }
        guard task.status == .process, let worker = task.worker, !model.ended.contains(worker)
        else { return }
        guard workers.process(of: worker) == model.processes[worker] else {
            throw KeptModel.Complaint(
                "P5: \(worker), which runs a task, is \(workers.process(of: worker) as Any); the log "
                    + "says \(model.processes[worker] as Any)"
            )
        }
    }

    private func compareDue(
        _ entry: TaskEntry,
        _ task: KeptModel.Task,
        _ bootID: TaskID,
        isFresh: Bool
    ) throws {
        guard let due = task.due else {
            guard entry.due == .none || task.status != .scheduled else {
                throw KeptModel.Complaint("\(entry) has a time, and the log doesn't: \(task)")
            }
            return
        }
        if due.boot != 0, due.bootID == bootID {
            guard entry.due == DueTime(boot: due.boot) else {
                throw KeptModel.Complaint("\(entry) is due at \(due.boot) by this boot's clock")
            }
            return
        }
        guard due.boot != 0 else {
            guard entry.due == DueTime(wall: due.wall) else {
                throw KeptModel.Complaint("\(entry) isn't due when the wall clock is at \(due)")
            }
            return
        }
        guard entry.flags.contains(.dueByWall) else {
            throw KeptModel.Complaint("\(entry) goes by the wrong clock: \(due)")
        }
        guard isFresh else { return }
        // what is past is past, whenever that was noticed
        let left = max(0, due.wall.nanoseconds - now.wall.nanoseconds)
        let expected = Int64(now.monotonic) + left
        // a time that was past once may be taken for the moment at which this boot began
        let isExact = due.wall.nanoseconds > latestWall
        // settings of the wall clock that lie closer together are one
        let tolerance = isExact ? 2_000_000 : 2_000_000 + 2 * steps
        let found = max(Int64(entry.due.rawValue), Int64(now.monotonic))
        guard abs(found - expected) <= tolerance else {
            throw KeptModel.Complaint(
                "\(entry) is due at \(entry.due); \(due) is \(expected) by this boot's clock"
            )
        }
    }

    /// Every place that is kept can be read, and has what was appended.
    private func compareBytes(_ entry: TaskEntry, _ task: KeptModel.Task, _ log: Log) throws {
        let (envelope, bytes) = try log.withRecord(at: entry.added) { record in
            var reader = WireReader(record.payload)
            return ((try? StoredAdd(from: &reader)).map { Array($0.envelope) }, record.bytesOnDisk)
        }
        guard envelope == task.envelope else {
            throw KeptModel.Complaint("the add of \(entry) is another")
        }
        guard entry.addedBytes == PackedSize(bytes: bytes).bytes else {
            throw KeptModel.Complaint("the add of \(entry) takes \(bytes) bytes")
        }
        guard let result = task.result else { return }
        let (found, taken) = try log.withRecord(at: entry.finished) {
            (Array($0.payload), $0.bytesOnDisk)
        }
        guard found == result else {
            throw KeptModel.Complaint("the result of \(entry) is another")
        }
        guard entry.finishedBytes == PackedSize(bytes: taken).bytes else {
            throw KeptModel.Complaint("the result of \(entry) takes \(taken) bytes")
        }
    }

    /// What is known of a death is there for as long as its task is in that epoch.
    private func compareEvidence(
        _ items: [EvidenceTable.Item],
        _ entry: TaskEntry,
        _ task: KeptModel.Task,
        _ log: Log
    ) throws {
        var found: [Lease: [UInt8]] = [:]
        for item in items {
            let (bytes, taken) = try log.withRecord(at: item.position) {
                (Array($0.payload), $0.bytesOnDisk)
            }
            guard taken == item.bytes else {
                throw KeptModel.Complaint("evidence of \(entry) takes \(taken) bytes")
            }
            found[item.lease] = bytes
        }
        guard found == task.evidence else {
            throw KeptModel.Complaint(
                "P4: the deaths under \(found.keys) of \(entry) are explained; the log tells of \(task.evidence.keys)"
            )
        }
    }

    private func compareCounts(_ lanes: LaneTable, _ expected: [LaneKey: [UInt64]]) throws {
        for lane in lanes.lanes where lane.byStatus != expected[LaneKey(lane)] ?? LaneKey.none {
            throw KeptModel.Complaint("counts \(lane); it is \(expected[LaneKey(lane)] as Any)")
        }
    }

    private func compareUsage(_ tasks: TaskFold, _ log: Log) throws {
        var expected: [UInt32: Int] = [:]
        for number in tasks.index.numbers {
            let entry = tasks.index[number]
            expected[entry.added.segment, default: 0] += entry.addedBytes
            expected[entry.finished.segment, default: 0] += entry.finishedBytes
        }
        for (id, items) in tasks.evidence.items {
            guard tasks.index.number(of: id) != nil else {
                throw KeptModel.Complaint("evidence is kept of \(id), which isn't there")
            }
            for item in items { expected[item.position.segment, default: 0] += item.bytes }
        }
        for segment in log.segments where tasks.usage[segment.index] != expected[segment.index] ?? 0
        {
            throw KeptModel.Complaint(
                "segment \(segment.index) has \(tasks.usage[segment.index]) bytes alive by the count, and "
                    + "\(expected[segment.index] ?? 0) by its tasks"
            )
        }
    }

    /// The queues of finished tasks have exactly those.
    private func compareRetention(_ state: StorageState) throws {
        var expected: Set<RetentionState.Finished> = []
        for number in state.tasks.index.numbers {
            let entry = state.tasks.index[number]
            guard entry.status.isFinal, !entry.flags.contains(.expiring) else { continue }
            expected.insert(.init(number: number, sequence: entry.lastSequence))
        }
        var retention = state.retention
        var kept = retention.due(now: Timestamp(nanoseconds: .max), atMost: .max)
        for row in 0..<state.windows.endNumber {
            guard let entry = state.windows.entry(row), state.tasks.index.isKept(entry) else {
                continue
            }
            kept.append(.init(number: entry.number, sequence: entry.sequence))
        }
        guard Set(kept) == expected, kept.count == expected.count else {
            throw KeptModel.Complaint("\(kept.count) finished tasks are kept of \(expected.count)")
        }
    }
}
