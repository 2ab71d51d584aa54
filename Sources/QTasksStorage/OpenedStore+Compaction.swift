// Part of QTasks. License: see LICENSE.

package import AppendLog
import QTasksModel

extension OpenedStore {
    /// Why a compaction ended before its time.
    package enum CompactionProblem: Hashable {
        case damaged(RecordPosition)
        case noRoom
    }

    /// Compacts every segment that is complete; for a store that nobody serves.
    ///
    /// Blocks.
    ///
    /// - Parameter progress: Called with how many segments are left.
    /// - Returns: What kept it from its end; `nil` where nothing did.
    package mutating func compactAll(_ progress: (Int) -> Void = { _ in }) -> CompactionProblem? {
        keeper.compactAll(log)
        let end = log.segments.last?.index ?? 0
        var idle = 0
        while keeper.isForced {
            progress(log.segments.count { $0.index < end })
            let pace = keeper.step(&state, log, now: .current, isOver: { false })
            log.submit(sync: true)
            state.watermarks(log.watermarks(), log: log)
            _ = state.flush()
            if let damage = keeper.damage { return .damaged(damage) }
            switch pace {
            case .soon: idle = 0
            case .waiting: log.waitForHousekeeping()
            case .idle:
                // what the log's threads have yet to write may be all that it waits for
                idle += 1
                if idle > 1, keeper.isForced { return .noRoom }
                if (try? log.flush()) == nil { return .noRoom }
            }
        }
        // two meta pages have to say so before the files go
        _ = try? log.flush()
        return nil
    }
}
