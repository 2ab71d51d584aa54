// Part of QTasks. License: see LICENSE.
//
// The log is the history: what held at a moment is what its records tell up to that moment.

package import AppendLog
package import QTasksModel
import QTasksWire

/// From when on a log tells what held.
package enum HistoryBegin: Hashable, Sendable {
    /// From its first record on: nothing was there before.
    case complete(since: Timestamp?)
    /// What came before is not in the log any more.
    case at(Timestamp)
    /// What is in the log tells what holds, and of no earlier moment.
    case now
}

/// What held at a moment.
package struct StoreMoment {
    package var time: Timestamp
    package var tasks: TaskFold
    /// The newest record up to then.
    package var sequence: UInt64
    /// Durable records that can't be read.
    package var lost: [LostRecords]
}

/// The moment lies before the log's history.
package struct BeforeHistory: Error, Equatable {
    package var begin: HistoryBegin
}

extension StoreReader {
    /// What held at `time`, all of what happened at that very moment included.
    ///
    /// - Throws: ``BeforeHistory``; ``AppendLogError`` where a checkpoint can't be read.
    package func moment(_ time: Timestamp) throws -> StoreMoment {
        let stamp = UInt64(clamping: time.nanoseconds)
        for checkpoint in try log.checkpoints() where checkpoint.stamp <= stamp {
            guard let tasks = try restore(checkpoint) else { continue }
            return moment(time, tasks, from: checkpoint)
        }
        let begin = try historyBegin()
        if case .complete = begin { return moment(time, Self.makeFold(), from: nil) }
        // of a salvaged store, the beginning holds together or not at all
        guard case .at(let first) = begin, log.firstSequence == 1, first <= time else {
            throw BeforeHistory(begin: begin)
        }
        return moment(time, Self.makeFold(), from: nil)
    }

    private func moment(
        _ time: Timestamp,
        _ tasks: TaskFold,
        from checkpoint: CheckpointInfo?
    ) -> StoreMoment {
        var moment = StoreMoment(
            time: time,
            tasks: tasks,
            sequence: checkpoint?.endSequence ?? 0,
            lost: []
        )
        var isOver = false
        let report = log.forEach(
            from: checkpoint?.start,
            after: checkpoint?.startSequence
        ) { record in
            // what compaction moved happened before
            let isAppended = record.source == nil
            if isAppended, let at = record.moment, at > time { isOver = true }
            guard !isOver else { return }
            _ = try? moment.tasks.replay(record)
            if isAppended { moment.sequence = max(moment.sequence, record.sequence) }
        }
        moment.lost = report.lost
        return moment
    }

    /// From when on the log tells what held.
    package func historyBegin() throws(AppendLogError) -> HistoryBegin {
        if log.firstSequence == 1 { return firstMoment() }
        var oldest: CheckpointInfo?
        for checkpoint in try log.checkpoints() where try restore(checkpoint) != nil {
            oldest = checkpoint
        }
        return oldest.map { .at(Timestamp(nanoseconds: Int64(clamping: $0.stamp))) } ?? .now
    }

    private func firstMoment() -> HistoryBegin {
        struct Known: Error {}
        var first: Timestamp?
        var salvage = SalvagedBeginning()
        do {
            try log.forEach { (record) throws(Known) in
                let at = record.moment
                salvage.note(record, at)
                first = first ?? at
                if !salvage.isInside { throw Known() }
            }
        } catch {}
        return salvage.end.map { .at($0) } ?? .complete(since: first)
    }
}

/// The records that a salvaged store begins with: they tell what held when it was salvaged, and not
/// how that came about.
private struct SalvagedBeginning {
    /// Whether the log may still be in them.
    private(set) var isInside = true
    /// The newest moment that they speak of; `nil` where there are none.
    private(set) var end: Timestamp?

    private var latest = Timestamp(nanoseconds: 0)

    mutating func note(_ record: borrowing RecordView, _ at: Timestamp?) {
        guard isInside, record.source == nil else { return }
        switch StoredKind(rawValue: record.kind) {
        case .worker, .queue, .finish: latest = max(latest, at ?? latest)
        case .carried:
            var reader = WireReader(record.payload)
            let endedAt = (try? StoredCarried(from: &reader))?.endedSince
            latest = max(latest, at ?? latest, endedAt ?? latest)
            end = latest
        case .evidence: latest = max(latest, at ?? latest)
        case .add, .lease, .release, .stale, .cancel, .requeue, .expire, nil: isInside = false
        }
    }
}

extension RecordView {
    /// When it was appended; `nil` where this version doesn't know its kind.
    ///
    /// Every kind begins with it; a copy has that of the record that it stands for.
    var moment: Timestamp? {
        guard StoredKind(rawValue: kind) != nil else { return nil }
        var reader = WireReader(payload)
        return (try? reader.integer("at", as: Int64.self)).map { Timestamp(nanoseconds: $0) }
    }
}
