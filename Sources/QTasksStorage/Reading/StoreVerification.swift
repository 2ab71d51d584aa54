// Part of QTasks. License: see LICENSE.

package import AppendLog
package import QTasksModel
import QTasksWire

/// Everything that can be checked of a store.
///
/// Its files first, then its records, then what follows from them: the tasks by the log alone and by
/// each checkpoint must be the same, and every task's records must be there and be its own.
package struct StoreVerification {
    /// One checkpoint, and whether the tasks that it leads to are those of the log.
    package struct Checkpoint {
        package var info: CheckpointInfo
        /// Whether the log has what it refers to; one that nobody can use is of no harm.
        package var isUsable: Bool
        package var isReadable = true
        /// Tasks that it has otherwise than the log, or only one of the two has.
        package var differing: [TaskID] = []
    }

    /// A task whose records are not what the index says.
    package struct Problem: Hashable {
        package var id: TaskID
        package var position: RecordPosition
        package var what: String
    }

    package private(set) var files: [FileDamage]
    package private(set) var metaPages: Int
    package private(set) var segments = 0
    package private(set) var records: UInt64 = 0
    package private(set) var firstSequence: UInt64 = 0
    package private(set) var lastSequence: UInt64 = 0
    package private(set) var tasks = 0
    package private(set) var lost: [LostRecords] = []
    package private(set) var damagedBytes: [DamagedBytes] = []
    package private(set) var damagedRecords: [OpenedStore.DamagedTask] = []
    package private(set) var unreadable: [StoredPlace] = []
    package private(set) var unknownRecords = 0
    package private(set) var checkpoints: [Checkpoint] = []
    package private(set) var problems: [Problem] = []
    /// Why the log couldn't be read at all.
    package private(set) var failure: String?

    /// Whether everything is as it was written.
    package var isOK: Bool {
        files.isEmpty && lost.isEmpty && damagedBytes.isEmpty && damagedRecords.isEmpty
            && unreadable.isEmpty && problems.isEmpty && failure == nil
            && checkpoints.allSatisfy { $0.isReadable && $0.differing.isEmpty }
    }

    /// Checks the store.
    ///
    /// - Parameters:
    ///   - directory: The store's.
    ///   - fileLayer: How to read it.
    ///   - progress: Called with what is being done.
    /// - Throws: `ENOENT` where there is no such store;
    ///   ``AppendLogError/newerFormat(path:version:supported:)``.
    package init(
        _ directory: String,
        files fileLayer: any LogFiles = PosixFiles(),
        progress: (String) -> Void = { _ in }
    ) throws(AppendLogError) {
        progress("checking the files")
        let check = try LogFileCheck(directory, files: fileLayer)
        (files, metaPages, segments) = (check.damages, check.metaPages, check.segments)
        guard check.metaPages > 0 || check.segments == 0 else {
            failure = "neither meta page is whole: the segments can be salvaged into a new store"
            return
        }
        let reader = try StoreReader(directory, files: fileLayer)
        try verify(reader, check, progress)
    }

    private mutating func verify(
        _ reader: StoreReader,
        _ check: LogFileCheck,
        _ progress: (String) -> Void
    ) throws(AppendLogError) {
        segments = reader.log.segmentInfos.count
        firstSequence = reader.log.firstSequence
        let reading = withoutActuallyEscaping(progress) { progress in
            reader.read(StoreReader.makeFold(), from: nil) { progress("reading segment \($0)") }
        }
        records = reading.report.records
        lastSequence = reading.report.lastSequence
        lost = reading.report.lost
        damagedBytes = reading.report.damaged
        damagedRecords = reading.damaged
        unreadable = reading.unreadable
        unknownRecords = reading.tasks.unknownRecords
        tasks = reading.tasks.index.count
        let usable = Set(try reader.log.checkpoints().map(\.number))
        for info in check.checkpoints {
            progress("comparing checkpoint \(info.number)")
            var checkpoint = Checkpoint(info: info, isUsable: usable.contains(info.number))
            if checkpoint.isUsable { try compare(&checkpoint, reader, reading) }
            checkpoints.append(checkpoint)
        }
        progress("reading the tasks")
        checkTasks(reader, reading.tasks)
    }

    private func compare(
        _ checkpoint: inout Checkpoint,
        _ reader: StoreReader,
        _ reading: StoreReader.Reading
    ) throws(AppendLogError) {
        let restored: TaskFold?
        do throws(AppendLogError) {
            restored = try reader.restore(checkpoint.info)
        } catch {
            // a writer has removed it since
            guard case .system("open", _, _) = error else { throw error }
            return checkpoint.isUsable = false
        }
        guard let restored else { return checkpoint.isReadable = false }
        // what a live store got since the first pass is no difference
        let other = reader.read(
            restored,
            from: checkpoint.info,
            until: reading.report.end
        )
        checkpoint.differing = reading.tasks.differences(from: other.tasks)
    }

    private mutating func checkTasks(_ reader: StoreReader, _ tasks: TaskFold) {
        for number in tasks.index.numbers {
            let entry = tasks.index[number]
            check(reader, entry, entry.added, "add") { payload throws(WireError) in
                var reader = WireReader(payload)
                let envelope = try Envelope(try StoredAdd(from: &reader).envelope)
                return envelope.id == entry.id
                    && TaskFold.contentCRC(envelope) == entry.contentCRC
            }
            for item in tasks.evidence[entry.id] {
                check(reader, entry, item.position, "evidence") { payload throws(WireError) in
                    var reader = WireReader(payload)
                    let holding = try StoredEvidence(from: &reader).holding
                    return holding == Holding(id: entry.id, lease: item.lease)
                }
            }
            guard entry.finished != .none else { continue }
            check(reader, entry, entry.finished, "result") { payload throws(WireError) in
                var reader = WireReader(payload)
                return try StoredFinish(from: &reader).result.id == entry.id
            }
        }
    }

    private mutating func check(
        _ reader: StoreReader,
        _ entry: TaskEntry,
        _ position: RecordPosition,
        _ what: String,
        _ isItsOwn: (UnsafeRawBufferPointer) throws(WireError) -> Bool
    ) {
        var problem: String?
        do throws(AppendLogError) {
            try reader.log.withPayload(at: position) { payload in
                do throws(WireError) {
                    if try !isItsOwn(payload) { problem = "its \(what) is another task's" }
                } catch {
                    problem = "its \(what) makes no sense: \(error)"
                }
            }
        } catch {
            problem = "its \(what) can't be read"
        }
        guard let problem else { return }
        problems.append(Problem(id: entry.id, position: position, what: problem))
    }
}

extension TaskFold {
    /// The tasks that another fold of the same log has otherwise, or that only one of them has.
    package func differences(from other: TaskFold) -> [TaskID] {
        var differing: [TaskID] = []
        for number in index.numbers {
            let entry = index[number]
            let same = other.index.number(of: entry.id).map { other.index[$0] }
            if same.map({ !isSame(entry, $0, in: other) }) ?? true { differing.append(entry.id) }
        }
        for number in other.index.numbers {
            let id = other.index.core(number).id
            if index.number(of: id) == nil { differing.append(id) }
        }
        let moment = max(latest, other.latest)
        let (mine, theirs) = (standing(at: moment), other.standing(at: moment))
        if mine != theirs {
            for id in Set(mine.keys).union(theirs.keys) where mine[id] != theirs[id] {
                differing.append(id)
            }
        }
        return differing
    }

    /// By when a task is to be leased, and how it holds a unique key.
    private struct Standing: Equatable {
        var deadline: Int64?
        var scope: UInt8?
        var windowEnd: UInt32?
    }

    /// What tasks' adds ask for that still matters at that moment; the hashes are each fold's own.
    private func standing(at moment: Timestamp) -> [TaskID: Standing] {
        var found: [TaskID: Standing] = [:]
        for row in 0..<deadlines.endNumber {
            guard let entry = deadlines.entry(row), index.isDeadline(entry) else { continue }
            let id = index.core(entry.number).id
            found[id, default: Standing()].deadline = entry.moment
        }
        for row in 0..<uniqueKeys.endNumber {
            guard let claim = uniqueKeys.claim(row), index.holds(claim, at: moment) else {
                continue
            }
            let id = index.core(claim.number).id
            found[id, default: Standing()].scope = claim.scope
            found[id]?.windowEnd = claim.end
        }
        return found
    }

    /// Numbers are each fold's own; when a task is due is reckoned back by who wrote the checkpoint.
    private func isSame(_ entry: TaskEntry, _ theirs: TaskEntry, in other: TaskFold) -> Bool {
        var (mine, same) = (entry, theirs)
        same.worker = mine.worker
        same.lane = mine.lane
        if mine.due != .none, same.due != .none { same.due = mine.due }
        let ignored: TaskEntry.Flags = [.watched, .expiring, .dueByWall, .standing]
        mine.flags.subtract(ignored)
        same.flags.subtract(ignored)
        return mine == same && lane(of: entry) == other.lane(of: theirs)
            && worker(of: entry) == other.worker(of: theirs)
            && evidence[entry.id] == other.evidence[entry.id]
    }
}
