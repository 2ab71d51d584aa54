// Part of QTasks. License: see LICENSE.

import AppendLog
import Glibc
import QTasks
import QTasksModel
import QTasksProcess
import QTasksStorage

/// Whether a few tasks that stay for ever hold up the space of millions that pass through.
///
/// 400 tasks die at the very beginning and are kept; then others are added, executed and forgotten, at a
/// few hundred a second of the time by which they are stamped: retention is at least ten minutes.
struct BuriedRow {
    private let folder: TemporaryFolder

    init(_ folder: TemporaryFolder) {
        self.folder = folder
    }

    func measure(passing count: Int) throws -> GoalRow {
        let home = try folder.make("disk-buried")
        defer { TemporaryFolder.remove(home) }
        var config = QueueConfig()
        config.history = .none
        config.durability = .written
        config.maxDeliveries = 1
        try config.set(.retention, to: "10m/365d", saying: "retention")
        let store = try BenchStore("\(home)/store", config: config)
        store.kill(try store.add(400, name: "buried", isLeased: true))
        var most = 0.0
        var alive = 0.0
        let start = store.wall
        for batch in 1...count / 1000 {
            store.finish(try store.add(1000, isLeased: true))
            // a thousand in three seconds
            store.wall = Timestamp(nanoseconds: start.nanoseconds + Int64(batch) * 3_000_000_000)
            try keepUp(store)
            let live = liveBytes(store)
            let excess = Double(store.log.bytesUsed - live) / segmentBytes
            if excess > most { (most, alive) = (excess, Double(live)) }
        }
        try store.log.flush()
        try store.settle()
        let isKept = store.tasks.lanes.count(of: .dead) == 400
        return GoalRow(
            name: "disk-buried",
            value: most,
            unit: "segments beyond \(Int(alive) >> 20) MiB alive",
            limit: 1,
            goal: "<= 3, 400 kept",
            isReached: most <= 3 && isKept
        )
    }

    private let segmentBytes = Double(64 << 20)

    /// Turns until the housekeeping has nothing more to do for now, as a loop that isn't busy has.
    private func keepUp(_ store: BenchStore) throws {
        repeat {
            store.waitForDisk()
        } while try store.turn().pace == .soon
    }

    private func liveBytes(_ store: BenchStore) -> Int {
        store.log.segments.reduce(0) { $0 + store.tasks.usage[$1.index] }
    }
}
