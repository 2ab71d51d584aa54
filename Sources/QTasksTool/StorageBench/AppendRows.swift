// Part of QTasks. License: see LICENSE.

import AppendLog
import CLinux
import Glibc
import QTasks
import QTasksProcess
import ZeroMQ

/// The log by itself: records of 100 bytes, appended, written, synced.
struct AppendRows {
    private static let payload = [UInt8](repeating: 0x61, count: 100)
    /// What such a record takes up on disk.
    private static let bytes = Log.bytesOnDisk(payloadBytes: payload.count)

    private let folder: TemporaryFolder

    init(_ folder: TemporaryFolder) {
        self.folder = folder
    }

    private func withLog<Value>(
        _ name: String,
        _ body: (Log, Doorbell) throws -> Value
    ) throws -> Value {
        let bell = try Doorbell()
        let path = "\(folder.path)/\(name)"
        let log = try Log.open(at: path, onProgress: { bell.ring() }, replay: { _ in })
        defer { TemporaryFolder.remove(path) }
        let value = try body(log, bell)
        try log.close()
        return value
    }

    // MARK: append-written

    /// Appends until the kernel has all of it; nothing is synced.
    func written() throws -> GoalRow {
        let count = 4_000_000
        var rates: [Double] = []
        var limits: [Double] = []
        for round in 0..<3 {
            limits.append(try bareWrites(count, round))
            rates.append(
                try withLog("written-\(round)") { log, bell in
                    let start = Stopwatch.now()
                    try append(count, to: log, bell)
                    return Double(count) / Stopwatch.seconds(since: start)
                }
            )
        }
        let rate = rates.median
        return GoalRow(
            name: "append-written",
            value: rate.rounded(),
            unit: "records/s",
            limit: limits.median.rounded(),
            goal: ">= 1500000",
            isReached: rate >= 1_500_000
        )
    }

    private func append(_ count: Int, to log: Log, _ bell: Doorbell) throws {
        for number in 1...count {
            _ = try log.append(kind: 1, payloadBytes: Self.payload.count) { target in
                Self.payload.withUnsafeBytes { target.copyMemory(from: $0) }
            }
            guard number % 1000 == 0 else { continue }
            log.submit(sync: false)
            // as a loop does whose disk is behind
            while log.pendingBytes > 8 << 20 { bell.wait() }
        }
        log.submit(sync: false)
        while log.watermarks().written < UInt64(count) { bell.wait() }
    }

    private func bareWrites(_ count: Int, _ round: Int) throws -> Double {
        let path = "\(folder.path)/bare-writes-\(round)"
        defer { unlink(path) }
        var disk = try BareDisk(path, bytes: 256 << 20)
        let block = [UInt8](repeating: 0x61, count: 1000 * Self.bytes)
        let start = Stopwatch.now()
        for _ in 0..<count / 1000 { disk.write(block) }
        return Double(count) / Stopwatch.seconds(since: start)
    }

    // MARK: group-syncs, group-records

    /// One sync after the other, each with a group of its own that came while the last one ran.
    func syncs() throws -> GoalRow {
        let (rate, limit) = try alternate(rounds: 15, groups: 300, records: 1)
        return GoalRow(
            name: "group-syncs",
            value: rate.rounded(),
            unit: "syncs/s",
            limit: limit.rounded(),
            goal: ">= 0.85 of the limit",
            isReached: rate >= 0.85 * limit
        )
    }

    /// The same with a thousand records a group.
    func records() throws -> GoalRow {
        let (rate, limit) = try alternate(rounds: 7, groups: 200, records: 1000)
        return GoalRow(
            name: "group-records",
            value: (rate * 1000).rounded(),
            unit: "records/s",
            limit: (limit * 1000).rounded(),
            goal: ">= 300000",
            isReached: rate * 1000 >= 300_000
        )
    }

    /// Groups made durable a second, by the log and by bare writes and syncs, in turn: the disk's mood
    /// changes by the second, so the two are compared round by round.
    private func alternate(
        rounds: Int,
        groups: Int,
        records: Int
    ) throws -> (rate: Double, limit: Double) {
        let path = "\(folder.path)/bare-syncs"
        defer { unlink(path) }
        var disk = try BareDisk(path, bytes: 64 << 20)
        let group = [UInt8](repeating: 0x61, count: records * Self.bytes + 24)
        return try withLog("syncs") { log, bell in
            var pairs: [(rate: Double, limit: Double)] = []
            for round in 0..<rounds {
                var start = Stopwatch.now()
                for _ in 0..<groups {
                    disk.write(group)
                    disk.sync()
                }
                let limit = Double(groups) / Stopwatch.seconds(since: start)
                start = Stopwatch.now()
                let syncs = try sync(groups, of: records, log, bell)
                let rate = Double(syncs) / Stopwatch.seconds(since: start)
                if round > 0 { pairs.append((rate, limit)) }  // the first one warms up
            }
            let middle = pairs.sorted { $0.rate / $0.limit < $1.rate / $1.limit }[pairs.count / 2]
            return middle
        }
    }

    /// Makes groups durable until the log has synced so many times, and returns how often it did.
    ///
    /// One group runs and one waits, so none shares its sync. A sync counts where the watermark was seen to
    /// move: two that went by unseen are counted as one.
    private func sync(_ groups: Int, of records: Int, _ log: Log, _ bell: Doorbell) throws -> Int {
        var syncs = 0
        var durable = log.watermarks().durable
        while syncs < groups {
            while log.lastSequence - durable < UInt64(2 * records) { try submit(records, log) }
            bell.wait()
            let mark = log.watermarks().durable
            if mark > durable { syncs += 1 }
            durable = mark
        }
        try log.flush()
        return syncs
    }

    private func submit(_ records: Int, _ log: Log) throws {
        for _ in 0..<records { try log.append(kind: 1, payload: Self.payload) }
        log.submit(sync: true)
    }
}

extension Doorbell {
    /// Sleeps until it rings, a while at most.
    func wait(nanoseconds: Int = 1_000_000_000) {
        if clinux_wait_readable(descriptor, Int64(nanoseconds)) > 0 { clear() }
    }
}
