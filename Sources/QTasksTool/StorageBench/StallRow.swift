// Part of QTasks. License: see LICENSE.

import AppendLog
import CLinux
import Glibc
import QTasks
import QTasksModel
import QTasksProcess
import QTasksStorage

/// How long compaction and checkpoints hold up Storage's loop under load, and what that does to
/// acknowledgements.
///
/// Tasks pass through at a steady pace, half a million others wait; checkpoints and compaction follow each
/// other all the time. An acknowledgement's time counts from when its batch was due.
struct StallRow {
    /// A batch of tasks, added and finished, every two milliseconds: as many a second as a whole system gets
    /// through on two cores.
    ///
    /// As fast as the loop could, it would take all there is of the processors, and then a hypervisor with a
    /// quota stops the machine for 20 ms at a time.
    private static let pace: UInt64 = 2_000_000
    private static let batchSize = 60

    private let folder: TemporaryFolder

    init(_ folder: TemporaryFolder) {
        self.folder = folder
    }

    func measure() throws -> [GoalRow] {
        let home = try folder.make("stall")
        defer { TemporaryFolder.remove(home) }
        var config = QueueConfig()
        config.history = .none
        try config.set(.retention, to: "10m", saying: "retention")
        let store = try BenchStore("\(home)/store", config: config)
        for _ in 0..<500 {
            _ = try store.add(1000)
            try store.turn()
            store.waitForDisk()
        }
        try store.log.flush()
        clinux_set_awaited(1, 1)
        defer { clinux_set_awaited(0, 1) }
        var rounds: [Round] = []
        var before = try bareLoop()
        for _ in 0..<3 {
            var round = try round(store)
            let after = try bareLoop()
            round.syncs = (before.syncs + after.syncs).sorted()
            round.bare = (before.acknowledgements + after.acknowledgements).sorted()
            before = after
            rounds.append(round)
        }
        let steps = rounds.flatMap(\.steps).sorted()
        let stall = steps.percentile(0.999)
        let middle = rounds.sorted { $0.excess < $1.excess }[rounds.count / 2]
        return [
            GoalRow(
                name: "stall",
                value: stall,
                unit: "ms (p99.9 of \(steps.count) steps)",
                limit: 1,
                goal: "<= 2",
                isReached: stall <= 2 && steps.count > 1000
            ),
            GoalRow(
                name: "stall-acknowledgements",
                value: middle.worst,
                unit: "ms (p99.9 of \(middle.acknowledgements), median of \(rounds.count) rounds; "
                    + "of a bare loop, timed alike: \(GoalRow.plain(middle.bare.percentile(0.999))))",
                limit: middle.sync,
                goal: "<= 10 x the fdatasync p99, or its p99.9",
                isReached: middle.excess <= 1
            ),
        ]
    }

    private struct Round {
        var steps: [Double] = []
        var acknowledgements = 0
        /// Their p99.9, in milliseconds.
        var worst = 0.0
        /// What bare syncs took before and after it, in milliseconds.
        var syncs: [Double] = []
        /// The same from when each was due, as acknowledgements are timed.
        var bare: [Double] = []

        /// The p99 of a bare sync.
        var sync: Double { syncs.percentile(0.99) }

        /// A disk that hesitates by itself can't be outdone.
        var excess: Double { worst / max(10 * sync, syncs.percentile(0.999)) }
    }

    private func round(_ store: BenchStore) throws -> Round {
        var round = Round()
        var times: [Double] = []
        var waiting: [(sequence: UInt64, due: UInt64)] = []
        let begin = store.wall
        let start = Stopwatch.now()
        var batch: UInt64 = 0
        while Stopwatch.seconds(since: start) < 20 {
            let due = start + batch * Self.pace
            if Stopwatch.now() >= due {
                batch += 1
                store.finish(try store.add(Self.batchSize, isLeased: true))
                waiting.append((store.log.lastSequence, due))
                // a second each, so that what is finished expires in time
                store.wall = Timestamp(
                    nanoseconds: begin.nanoseconds + Int64(batch) * 1_000_000_000
                )
            }
            let (pace, length) = try store.turn()
            if store.isBusy { round.steps.append(Double(length) / 1e6) }
            let durable = store.log.watermarks().durable
            while let first = waiting.first, first.sequence <= durable {
                times.append(Double(Stopwatch.now() - first.due) / 1e6)
                waiting.removeFirst()
            }
            let (time, next) = (Stopwatch.now(), start + batch * Self.pace)
            if pace != .soon, time < next { store.wait(atMost: next - time) }
        }
        times.sort()
        round.acknowledgements = times.count
        round.worst = times.percentile(0.999)
        return round
    }

    /// How long bare writes and syncs take, and how late they are done, in milliseconds.
    ///
    /// One every two milliseconds, as the row has: back to back a disk shows its best side only.
    private func bareLoop() throws -> (syncs: [Double], acknowledgements: [Double]) {
        let path = "\(folder.path)/bare-stall"
        defer { unlink(path) }
        var disk = try BareDisk(path, bytes: 16 << 20)
        let block = [UInt8](repeating: 0x61, count: 32 << 10)
        var (syncs, acknowledgements): ([Double], [Double]) = ([], [])
        let begin = Stopwatch.now()
        for number in 0..<5000 as Range<UInt64> {
            let due = begin + number * Self.pace
            let time = Stopwatch.now()
            if time < due { usleep(UInt32((due - time) / 1000)) }
            let start = Stopwatch.now()
            disk.write(block)
            disk.sync()
            let end = Stopwatch.now()
            syncs.append(Double(end - start) / 1e6)
            acknowledgements.append(Double(end - due) / 1e6)
        }
        return (syncs, acknowledgements)
    }
}
