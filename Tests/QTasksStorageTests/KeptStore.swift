// Part of QTasks. License: see LICENSE.

import AppendLog
import QTasksModel

@testable import QTasksStorage

/// Storage's core, its keeper and its log on a simulated disk, driven as `StorageLoop` does, with a
/// model of what was appended beside them.
final class KeptStore {
    static let path = "/store"

    struct Plan {
        var config = QueueConfig()
        var keeping = StorageKeeper.Settings(history: .none)
        var options = LogOptions(
            segmentBytes: 12 << 10,
            recordBytesMax: 6 << 10,
            zeroFillAheadBytes: 0,
            zeroFillChunkBytes: 4 << 10
        )
    }

    let plan: Plan
    let disk: SimulatedDisk
    var random: SeededGenerator
    private(set) var model: KeptModel
    private(set) var now = Now(
        wall: Timestamp(nanoseconds: 1_700_000_000_000_000_000),
        monotonic: 5_000_000_000
    )
    private var bootID = TaskID(high: 3, low: 1)

    /// `nil` while the store is closed.
    private(set) var log: RecordingLog?
    var state: StorageState
    var keeper: StorageKeeper
    /// How far the log was when its process ended.
    private var safe = Watermarks(written: 0, durable: 0)
    /// How often it was opened, and how often a checkpoint was used for it.
    private(set) var openings = 0
    private(set) var restored = 0
    /// By how much the wall clock was set in all, in nanoseconds, and the latest that it ever showed.
    private(set) var steps: Int64 = 0
    private(set) var latestWall: Int64 = 0

    init(seed: UInt64, _ plan: Plan) {
        self.plan = plan
        random = SeededGenerator(seed: seed)
        disk = SimulatedDisk(seed: seed)
        model = KeptModel(config: plan.config)
        state = StorageState(settings: Bench.settings(plan.config), now: now)
        keeper = StorageKeeper(settings: plan.keeping)
    }

    var settings: StorageState.Settings {
        StorageState.Settings(
            config: plan.config,
            directory: Self.path,
            bootID: bootID,
            pid: 1,
            seed: 99
        )
    }

    /// Whatever it is now: the model hears of the newest records later.
    func wanted(gone id: TaskID) { model.unwanted.insert(id) }

    // MARK: Time

    /// Time passes, on both clocks.
    func pass(_ nanoseconds: Int64) {
        now.monotonic += UInt64(nanoseconds)
        now.wall = Timestamp(nanoseconds: now.wall.nanoseconds + nanoseconds)
        latestWall = max(latestWall, now.wall.nanoseconds)
    }

    /// Somebody sets the wall clock.
    func setClock(by step: Int64) {
        now.wall = Timestamp(nanoseconds: now.wall.nanoseconds + step)
        steps += abs(step)
    }

    // MARK: Opening and ends

    /// Opens the store, however often it takes, and compares it with the model.
    func open() throws {
        latestWall = max(latestWall, now.wall.nanoseconds)
        for _ in 0..<5 {
            do {
                try openOnce()
                return
            } catch let error as AppendLogError {
                guard case .system = error else { throw error }
                // the power went, or a fault was armed
                disk.setCapacity(.max)
                losePowerAgain()
            }
        }
        throw KeptModel.Complaint("the store can't be opened")
    }

    private func openOnce() throws {
        var read: [KeptModel.Record] = []
        let store = try OpenedStore(
            settings,
            options: plan.options,
            keeping: plan.keeping,
            now: now,
            files: disk,
            driver: .manual,
            observe: { if $0.source == nil { read.append(.init($0)) } }
        )
        guard store.unreadable == 0 else { throw KeptModel.Complaint("a record makes no sense") }
        guard !store.log.recovery.isDamaged else {
            throw KeptModel.Complaint("P9: lost \(store.log.recovery)")
        }
        try restart(with: read, upTo: store.log.lastSequence)
        (state, keeper) = (store.state, store.keeper)
        log = RecordingLog(store.log)
        openings += 1
        if store.log.recovery.checkpoint != nil { restored += 1 }
        try compare(state, store.log, with: model, isFresh: true)
        state.brokerSession(incarnation: store.log.incarnation, globalConfigPid: 0)
        _ = state.flush()
    }

    private func restart(with read: [KeptModel.Record], upTo last: UInt64) throws {
        guard last >= safe.written else {
            throw KeptModel.Complaint("P1: \(last) records are left of \(safe) that were safe")
        }
        guard last <= model.lastSequence else {
            throw KeptModel.Complaint(
                "\(last) records, and only \(model.lastSequence) were appended"
            )
        }
        for record in read where record != model.records[Int(record.sequence) - 1] {
            throw KeptModel.Complaint("record \(record.sequence) came back as another")
        }
        model = try model.prefix(upTo: last)
        safe = Watermarks(written: last, durable: last)
    }

    var hasPower: Bool { (try? disk.list(Self.path)) != nil }

    /// The process is gone; the page cache stays.
    func kill() {
        guard let log else { return }
        // the disk may have lost its power already
        guard hasPower else { return losePower() }
        safe = log.kept.watermarks()
        self.log = nil
        disk.endProcess()
    }

    /// The power is gone, and back.
    func losePower() {
        if let log { safe = log.kept.watermarks() }
        self.log = nil
        losePowerAgain()
    }

    private func losePowerAgain() {
        safe.written = safe.durable
        disk.crash(seed: random.next())
        bootID = TaskID(high: 3, low: bootID.low + 1)
        now.monotonic = UInt64.random(in: 1...20_000_000_000, using: &random)
    }

    /// An orderly end; as good as a kill where a fault gets in its way.
    func close() throws {
        guard let log else { return }
        try drain()
        do {
            try log.kept.flush()
            state.watermarks(log.kept.watermarks(), log: log)
            keeper.writeLastCheckpoint(state, log.kept)
            try log.kept.close()
            safe = Watermarks(written: model.lastSequence, durable: model.lastSequence)
            self.log = nil
            disk.endProcess()
        } catch {
            kill()
        }
    }

    /// What was appended goes into the model.
    func drain() throws {
        guard let log else { return }
        for record in log.take() { try model.append(record) }
    }
}
