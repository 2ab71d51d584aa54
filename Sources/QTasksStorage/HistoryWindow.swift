// Part of QTasks. License: see LICENSE.

package import AppendLog

/// How far back the log is left as it was, for time travel; whatever is reached first ends it.
package struct HistoryWindow: Sendable, Equatable {
    /// In nanoseconds.
    package var age: UInt64
    package var bytes: Int

    package init(age: UInt64, bytes: Int) {
        self.age = age
        self.bytes = bytes
    }

    package static let none = HistoryWindow(age: 0, bytes: 0)

    var isEmpty: Bool { age == 0 || bytes == 0 }
}

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
        guard !window.isEmpty else {
            firstSegment = .max
            obsolete = checkpoints.dropLast().map(\.number)
            return
        }
        let base = checkpoints.lastIndex { checkpoint in
            now >= window.age && checkpoint.stamp <= now - window.age
                || bytesSince(checkpoint.start) >= window.bytes
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
            let spacing = max(window.bytes / 8, 2 * next.bytes)
            let isFar =
                bytesSince(last.start) - bytesSince(next.start) >= spacing
                || next.stamp - min(next.stamp, last.stamp) >= window.age / 8
            if isFar { kept = index } else { obsolete.append(next.number) }
        }
        return obsolete
    }
}
