// Part of QTasks. License: see LICENSE.

import AppendLog
import QTasks
import QTasksModel
import QTasksStorage
import QTasksWire
import ZeroMQ

/// Storage's core and log as `StorageLoop` runs them, with the benchmark in the Broker's place, and in
/// the workers'.
final class BenchStore {
    let log: Log
    private(set) var state: StorageState
    private var keeper: StorageKeeper
    private let bell: Doorbell
    private var number: UInt64 = 0
    private var leases: UInt32 = 0

    /// The wall clock by which records are stamped and tasks are kept.
    var wall = Now.current.wall

    private var now: Now {
        Now(wall: wall, monotonic: MonotonicClock.nowNanoseconds())
    }

    let worker = WorkerID(high: 1, low: 1)

    init(_ directory: String, config: QueueConfig) throws {
        let bell = try Doorbell()
        self.bell = bell
        let settings = StorageState.Settings(config, directory: directory, seed: 1)
        let store = try OpenedStore(
            settings,
            options: .store(config, space: nil),
            keeping: StorageKeeper.Settings(config),
            onProgress: { bell.ring() }
        )
        (log, state, keeper) = (store.log, store.state, store.keeper)
        state.brokerSession(incarnation: log.incarnation, globalConfigPid: 0)
        _ = state.flush()
    }

    var tasks: TaskFold { state.tasks }

    // MARK: What comes in

    /// Adds tasks of 100 bytes of arguments; with `isLeased` each with a lease in the same append.
    ///
    /// - Returns: Their IDs, and leases where they have one.
    func add(
        _ count: Int,
        name: String = "bench",
        isLeased: Bool = false,
        isUnique: Bool = false
    ) throws -> [(id: TaskID, lease: Lease)] {
        var writer = WireWriter(
            .propose,
            number: state.sessionNumber ?? 0,
            reserving: 256 * count
        )
        var added: [(id: TaskID, lease: Lease)] = []
        for _ in 0..<count {
            number += 1
            var lease = Lease.none
            if isLeased {
                leases += 1
                lease = Lease(incarnation: log.incarnation, counter: leases)
            }
            var task = TaskSubmission(name: name, arguments: Self.arguments)
            if isUnique { task.unique = .whileUnfinished("key \(number)") }
            added.append((task.id, lease))
            var envelope = WireWriter(reserving: 192)
            try task.write(to: &envelope)
            envelope.bytes.withUnsafeBytes {
                Proposal.add(
                    number: number,
                    isWatched: false,
                    lease: lease,
                    worker: worker,
                    envelope: $0
                ).write(to: &writer)
            }
        }
        propose(writer)
        return added
    }

    private static let arguments = [UInt8](repeating: UInt8(ascii: "1"), count: 100)

    /// Their worker has done these tasks.
    func finish(_ tasks: [(id: TaskID, lease: Lease)]) {
        var writer = WireWriter(.results, number: 0, reserving: 96 * tasks.count)
        writer.worker(worker)
        for task in tasks {
            ResultEntry(
                id: task.id,
                lease: task.lease,
                startedAt: wall,
                finishedAt: wall,
                outcome: .success(result: [UInt8(ascii: "1")], contentType: "")
            ).write(to: &writer)
        }
        writer.bytes.withUnsafeBytes { state.results($0, now: now, log: log) }
    }

    /// Their worker died of these tasks, each alone in it.
    func kill(_ tasks: [(id: TaskID, lease: Lease)]) {
        var writer = WireWriter(.propose, number: state.sessionNumber ?? 0)
        for task in tasks {
            number += 1
            Proposal.release(
                number: number,
                holding: Holding(id: task.id, lease: task.lease),
                cause: .death,
                isShared: false,
                counts: true
            ).write(to: &writer)
        }
        propose(writer)
        state.decideReleases(now: now, log: log)
    }

    private func propose(_ writer: WireWriter) {
        writer.bytes.withUnsafeBytes { state.brokerMessage($0, now: now, log: log) }
    }

    // MARK: A turn

    /// Ends a turn as `StorageLoop` does.
    ///
    /// - Returns: What the keeper says, and how long its step took, in nanoseconds.
    @discardableResult
    func turn() throws -> (pace: StorageKeeper.Pace, nanoseconds: UInt64) {
        submit()
        state.watermarks(log.watermarks(), log: log)
        _ = state.flush()
        let start = Stopwatch.now()
        let pace = keeper.step(&state, log, now: now) {
            Stopwatch.now() - start >= StorageKeeper.stepTime
        }
        let time = Stopwatch.now() - start
        submit()
        if let failure = log.failure { throw failure }
        return (pace, time)
    }

    private func submit() {
        let wantsSync = state.takeSyncWish(now: now.monotonic)
        guard log.hasUnsubmitted || wantsSync else { return }
        log.submit(sync: wantsSync)
    }

    /// Sleeps until the log has got further, a millisecond at most, and no longer than `nanoseconds`.
    func wait(atMost nanoseconds: UInt64 = 1_000_000) {
        bell.wait(nanoseconds: Int(min(nanoseconds, 1_000_000)))
    }

    /// Waits while the disk is further behind than a system would let it.
    func waitForDisk() {
        while log.pendingBytes > 16 << 20, log.failure == nil { wait() }
    }

    /// Whether a checkpoint or a compaction is under way.
    var isBusy: Bool { log.isWritingCheckpoint || log.isCompacting }

    /// Lets the housekeeping come to its end.
    func settle() throws {
        while true {
            let (pace, _) = try turn()
            if pace == .idle, !isBusy { return }
            if pace != .soon { wait() }
        }
    }

    func close() throws {
        try log.flush()
        keeper.writeLastCheckpoint(state, log)
        try log.close()
    }
}
