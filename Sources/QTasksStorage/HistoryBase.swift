// Part of QTasks. License: see LICENSE.

package import AppendLog
package import QTasksModel

/// Where history begins: at a checkpoint, since the records before it alone don't tell what held.
package struct HistoryBase: Equatable {
    /// Segments before this one may be compacted.
    package var firstSegment: UInt32
    /// Checkpoints that nothing needs any more.
    package var obsolete: [UInt32]

    /// - Parameters:
    ///   - window: How far back to go.
    ///   - checkpoints: Oldest first.
    ///   - now: The newest moment in the log, in nanoseconds since 1970, as are the stamps.
    ///   - bytesSince: How many bytes of records lie behind a place.
    package init(
        _ window: HistoryWindow,
        checkpoints: [CheckpointInfo],
        now: UInt64,
        bytesSince: (RecordPosition) -> Int
    ) {
        guard window != .none else {
            firstSegment = .max
            obsolete = checkpoints.dropLast().map(\.number)
            return
        }
        let (age, bytes) = (window.nanoseconds, Int(clamping: window.bytes))
        let base = checkpoints.lastIndex { checkpoint in
            now >= age && checkpoint.stamp <= now - age || bytesSince(checkpoint.start) >= bytes
        }
        firstSegment = base.map { checkpoints[$0].start.segment } ?? 0
        obsolete = Self.thinned(window, checkpoints, from: base ?? 0, bytesSince)
    }

    /// All before the base, and those so close behind another that the window hardly moves by them.
    private static func thinned(
        _ window: HistoryWindow,
        _ checkpoints: [CheckpointInfo],
        from base: Int,
        _ bytesSince: (RecordPosition) -> Int
    ) -> [UInt32] {
        var obsolete = checkpoints.prefix(base).map(\.number)
        var kept = base
        for index in checkpoints.indices.dropFirst(base + 1).dropLast() {
            let (last, next) = (checkpoints[kept], checkpoints[index])
            // one that is large is worth its room only for as much of history
            let spacing = max(Int(clamping: window.bytes / 8), 2 * next.bytes)
            let isFar =
                bytesSince(last.start) - bytesSince(next.start) >= spacing
                || next.stamp - min(next.stamp, last.stamp) >= window.nanoseconds / 8
            if isFar { kept = index } else { obsolete.append(next.number) }
        }
        return obsolete
    }
}

extension HistoryWindow {
    fileprivate var nanoseconds: UInt64 {
        let (product, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        return overflow ? .max : product
    }
}
