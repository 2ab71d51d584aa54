// Part of QTasks. License: see LICENSE.

import AppendLog
import Glibc
import QTasksModel
import QTasksWire

@testable import QTasksStorage

/// A log that remembers what was appended since somebody asked.
final class RecordingLog: KeptLog {
    let kept: Log
    private var fresh: [KeptModel.Record] = []

    init(_ log: Log) {
        kept = log
    }

    /// What was appended since the last call.
    func take() -> [KeptModel.Record] {
        defer { fresh = [] }
        return fresh
    }

    var incarnation: UInt32 { kept.incarnation }
    var isShortOfSpace: Bool { kept.isShortOfSpace }

    func append(
        kind: StoredKind,
        head: [UInt8],
        body: UnsafeRawBufferPointer
    ) throws(AppendLogError) -> StoredPlace {
        let place = try kept.append(kind: kind, head: head, body: body)
        let bytes = head + Array(body)
        fresh.append(.init(sequence: place.sequence, kind: kind.rawValue, bytes: bytes))
        return place
    }

    /// A record that no version knows.
    func appendUnknown(_ bytes: [UInt8]) throws {
        let (sequence, _) = try kept.append(kind: KeptModel.unknownKind, payload: bytes)
        fresh.append(.init(sequence: sequence, kind: KeptModel.unknownKind, bytes: bytes))
    }

    func withRecord<Result>(
        at position: RecordPosition,
        _ body: (UnsafeRawBufferPointer) -> Result
    ) throws(AppendLogError) -> Result {
        try kept.withPayload(at: position, body)
    }

    func withStart<Result>(
        of position: RecordPosition,
        _ body: (RecordStart) -> Result
    ) throws(AppendLogError) -> Result? {
        try kept.withStart(of: position, body)
    }

    func hold(_ segment: UInt32) {
        kept.hold(segment)
    }

    func unhold(_ segment: UInt32) {
        kept.unhold(segment)
    }

    func carry(
        _ view: borrowing RecordView,
        kind: UInt8,
        flags: UInt8,
        payloadBytes: Int,
        fill: (UnsafeMutableRawBufferPointer) -> Void
    ) throws(AppendLogError) -> RecordPosition {
        try kept.carry(view, kind: kind, flags: flags, payloadBytes: payloadBytes, fill: fill)
    }
}

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
    private(set) var keeper: StorageKeeper
    private var submitted: UInt64 = 0
    /// How far the log was when its process ended.
    private var safe = Watermarks(written: 0, durable: 0)
    /// How often it was opened, and how often a checkpoint was used for it.
    private(set) var openings = 0
    private(set) var restored = 0
    /// By how much the wall clock was set in all, in nanoseconds, and the latest that it ever showed.
    private var steps: Int64 = 0
    private var latestWall: Int64 = 0

    init(seed: UInt64, _ plan: Plan) {
        self.plan = plan
        random = SeededGenerator(seed: seed)
        disk = SimulatedDisk(seed: seed)
        model = KeptModel(config: plan.config)
        state = StorageState(settings: Bench.settings(plan.config), now: now)
        keeper = StorageKeeper(settings: plan.keeping)
    }

    private var settings: StorageState.Settings {
        StorageState.Settings(
            config: plan.config,
            directory: Self.path,
            bootID: bootID,
            pid: 1,
            seed: 99
        )
    }

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
        submitted = store.log.lastSequence
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

    private var hasPower: Bool { (try? disk.list(Self.path)) != nil }

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

    // MARK: A turn

    /// What was appended goes into the model.
    func drain() throws {
        guard let log else { return }
        for record in log.take() { try model.append(record) }
    }

    /// The end of a turn: what was appended goes on its way, and a little house is kept.
    func turn(jobs: Int, keeps: Bool = true, looks: Int = .max) throws {
        guard let log else { return }
        try drain()
        submit(log)
        for _ in 0..<jobs { _ = runOneJob(log.kept) }
        if let failure = log.kept.failure { state.fail("\(failure)") }
        state.watermarks(log.kept.watermarks(), log: log)
        if log.kept.hasRoom, state.awaitsSpace { state.spaceMayBeBack(now: now, log: log) }
        _ = state.flush()
        guard keeps else { return }
        keep(log, looks: looks)
        try drain()
        submit(log)
    }

    @discardableResult
    private func keep(_ log: RecordingLog, looks: Int) -> StorageKeeper.Pace {
        var looks = looks
        return keeper.step(&state, log, now: now) {
            looks -= 1
            return looks < 0
        }
    }

    private func submit(_ log: RecordingLog) {
        let wantsSync = state.takeSyncWish(now: now.monotonic)
        guard log.kept.hasUnsubmitted || wantsSync else { return }
        log.kept.submit(sync: wantsSync)
        submitted = log.kept.lastSequence
    }

    private func runOneJob(_ log: Log) -> Bool {
        switch Int.random(in: 0..<4, using: &random) {
        case 0: log.runOneWrite()
        case 1: log.runOneSync()
        case 2: log.runOnePreparation()
        default: log.runOneKeep()
        }
    }

    /// Everything that can be done is done: the log is durable, and the keeper has nothing left.
    func settle() throws {
        guard let log else { return }
        log.kept.retrySpace()
        for _ in 0..<10_000 {
            log.kept.submit(sync: true)
            log.kept.noteIdle()
            var didWork = false
            while log.kept.runOneWrite() || log.kept.runOneSync() || log.kept.runOneKeep()
                || log.kept.runOnePreparation()
            {
                didWork = true
            }
            if let failure = log.kept.failure { return state.fail("\(failure)") }
            state.watermarks(log.kept.watermarks(), log: log)
            _ = state.flush()
            let pace = keep(log, looks: 50)
            try drain()
            if pace == .idle, !didWork { return }
        }
        throw KeptModel.Complaint("housekeeping has no end")
    }

    // MARK: Events

    func propose(_ proposals: Proposal...) {
        guard let log else { return }
        var writer = WireWriter(.propose, number: state.sessionNumber ?? 0)
        for proposal in proposals { proposal.write(to: &writer) }
        writer.bytes.withUnsafeBytes { state.brokerMessage($0, now: now, log: log) }
        state.decideReleases(now: now, log: log)
    }

    func add(_ task: TaskSubmission, isWatched: Bool = false, first: (Lease, WorkerID)? = nil)
        throws
    {
        var writer = WireWriter()
        try task.write(to: &writer)
        writer.bytes.withUnsafeBytes {
            propose(
                .add(
                    number: 1,
                    isWatched: isWatched,
                    lease: first?.0 ?? .none,
                    worker: first?.1 ?? Bench.worker,
                    envelope: $0
                )
            )
        }
    }

    func lease(_ id: TaskID, _ lease: Lease, to worker: WorkerID, synced: Bool = false) {
        guard let handle = state.tasks.index.number(of: id) else { return }
        let place = QueuedPlace(sequence: state.tasks.index[handle].sequence, handle: handle)
        propose(.lease(number: 2, place: place, lease: lease, worker: worker, synced: synced))
    }

    func push(_ id: TaskID, _ lease: Lease, _ outcome: TaskOutcome, from worker: WorkerID) {
        guard let log else { return }
        var writer = WireWriter(.results)
        writer.worker(worker)
        ResultEntry(
            id: id,
            lease: lease,
            startedAt: now.wall,
            finishedAt: now.wall,
            outcome: outcome
        ).write(to: &writer)
        writer.bytes.withUnsafeBytes { state.results($0, now: now, log: log) }
    }

    // MARK: Looking

    /// The live store.
    func compareLive() throws {
        guard let log, state.failure == nil, hasPower else { return }
        try drain()
        try compare(state, log.kept, with: model, isFresh: false)
    }

    /// What an opening would find if the process ended now, with its checkpoints or without.
    func compareCopy(withoutCheckpoints: Bool) throws {
        guard let log, state.failure == nil else { return }
        try drain()
        let copy = disk.copy()
        let written = log.kept.watermarks().written
        if withoutCheckpoints {
            for path in try Self.checkpoints(copy) { try copy.remove(path) }
        }
        var unknown: [UInt64: [UInt8]] = [:]
        let store = try OpenedStore(
            settings,
            options: plan.options,
            keeping: plan.keeping,
            now: now,
            files: copy,
            driver: .manual,
            observe: { record in
                guard record.kind == KeptModel.unknownKind else { return }
                unknown[record.sequence] = Array(record.payload)
            }
        )
        guard store.log.lastSequence >= written else {
            throw KeptModel.Complaint("P1: what was written is gone")
        }
        let expected = try model.prefix(upTo: store.log.lastSequence)
        try compare(store.state, store.log, with: expected, isFresh: true)
        guard withoutCheckpoints else { return }
        guard unknown == expected.unknown else {
            throw KeptModel.Complaint("records of a later version are gone")
        }
    }

    static func checkpoints(_ disk: SimulatedDisk) throws -> [String] {
        try disk.list(path).filter { $0.hasPrefix("checkpoint-") }.map { "\(path)/\($0)" }
    }
}

extension KeptModel.Record {
    init(_ record: borrowing RecordView) {
        self.init(
            sequence: record.sequence,
            kind: record.kind,
            bytes: Array(record.payload)
        )
    }
}

// MARK: - Comparing

extension KeptStore {
    /// What Storage knows must be what the records say, whatever it read them from.
    ///
    /// - Throws: `KeptModel.Complaint` about the first thing that differs.
    func compare(
        _ state: StorageState,
        _ log: Log,
        with model: KeptModel,
        isFresh: Bool
    ) throws {
        var expected: [LaneKey: [UInt64]] = [:]
        var leaving = 0
        for number in state.tasks.index.numbers {
            let entry = state.tasks.index[number]
            let lane = state.tasks.lanes[entry.lane]
            expected[LaneKey(lane), default: LaneKey.none][Int(entry.status.code) - 1] += 1
            if entry.flags.contains(.expiring) {
                guard !isFresh, model.leaving[entry.id] != nil else {
                    throw KeptModel.Complaint("\(entry.id) is about to be forgotten for no reason")
                }
                leaving += 1
                continue
            }
            guard let task = model.tasks[entry.id] else {
                throw KeptModel.Complaint(
                    "\(entry.id) is there as \(entry), and the log has no such"
                )
            }
            try compare(entry, lane, task, model, state, isFresh: isFresh)
            do {
                try compareBytes(entry, task, log)
            } catch let error as AppendLogError {
                guard hasPower else { throw error }
                throw KeptModel.Complaint("\(entry) can't be read: \(error)")
            }
        }
        guard state.tasks.index.count == model.tasks.count + leaving else {
            let gone = model.tasks.filter { state.tasks.index.number(of: $0.key) == nil }
            throw KeptModel.Complaint("P1: these are gone: \(gone)")
        }
        try compareCounts(state.tasks.lanes, expected)
        try compareUsage(state.tasks, log)
        try compareRetention(state)
    }

    private struct LaneKey: Hashable {
        static let none = [UInt64](repeating: 0, count: TaskStatus.allCases.count)
        var name: String
        var queue: String

        init(_ lane: LaneTable.Lane) {
            (name, queue) = (lane.name, lane.queue)
        }
    }

    private func compare(
        _ entry: TaskEntry,
        _ lane: LaneTable.Lane,
        _ task: KeptModel.Task,
        _ model: KeptModel,
        _ state: StorageState,
        isFresh: Bool
    ) throws {
        let ended = task.endedAt.map { UInt32(($0.nanoseconds + 999_999_999) / 1_000_000_000) } ?? 0
        let isSame =
            entry.status == task.status && entry.sequence == task.sequence
            && entry.lastSequence == task.lastSequence && entry.attempt == task.attempt
            && entry.failures == task.failures && entry.deaths == task.deaths
            && entry.isSuspect == task.isSuspect && entry.priority == task.priority
            && entry.epoch == 0 && entry.endedAt == ended
            && entry.keptFor == task.keptFor.map { UInt32($0) } ?? 0
            && (entry.finished == .none) == (task.result == nil)
            && lane.name == task.name && lane.queue == task.queue
            && (task.status != .process && !task.status.isFinal || entry.lease == task.lease)
        guard isSame else {
            throw KeptModel.Complaint("Storage has \(entry) in \(lane); the log says \(task)")
        }
        try compareWorker(entry, task, model, state.tasks.workers)
        try compareDue(entry, task, state.settings.bootID, isFresh: isFresh)
    }

    private func compareWorker(
        _ entry: TaskEntry,
        _ task: KeptModel.Task,
        _ model: KeptModel,
        _ workers: WorkerTable
    ) throws {
        let id = entry.worker == WorkerTable.none ? nil : workers[entry.worker].id
        guard id == task.worker else {
            throw KeptModel.Complaint("\(entry.id) is with \(id as Any); the log says \(task)")
        }
        guard task.status == .process, let worker = task.worker, !model.ended.contains(worker)
        else { return }
        guard workers.process(of: worker) == model.processes[worker] else {
            throw KeptModel.Complaint(
                "P5: \(worker), which runs a task, is \(workers.process(of: worker) as Any); the log "
                    + "says \(model.processes[worker] as Any)"
            )
        }
    }

    private func compareDue(
        _ entry: TaskEntry,
        _ task: KeptModel.Task,
        _ bootID: TaskID,
        isFresh: Bool
    ) throws {
        guard let due = task.due else {
            guard entry.due == 0 || task.status != .scheduled else {
                throw KeptModel.Complaint("\(entry) has a time, and the log doesn't: \(task)")
            }
            return
        }
        if due.boot != 0, due.bootID == bootID {
            guard entry.due == due.boot else {
                throw KeptModel.Complaint("\(entry) is due at \(due.boot) by this boot's clock")
            }
            return
        }
        guard entry.flags.contains(.dueByWall) == (due.boot == 0) else {
            throw KeptModel.Complaint("\(entry) goes by the wrong clock: \(due)")
        }
        guard isFresh else { return }
        // what is past is past, whenever that was noticed
        let left = max(0, due.wall.nanoseconds - now.wall.nanoseconds)
        let expected = Int64(now.monotonic) + left
        // a time that was past once may be taken for the moment when that was noticed; other clocks
        // than the wall's are not moved by its steps
        let isExact = due.boot == 0 && due.wall.nanoseconds > latestWall
        let tolerance = isExact ? 1_000_000 : 1_000_000 + 2 * steps
        let found = max(Int64(entry.due), Int64(now.monotonic))
        guard abs(found - expected) <= tolerance else {
            throw KeptModel.Complaint(
                "\(entry) is due at \(entry.due); \(due) is \(expected) by this boot's clock"
            )
        }
    }

    /// Every place that is kept can be read, and has what was appended.
    private func compareBytes(_ entry: TaskEntry, _ task: KeptModel.Task, _ log: Log) throws {
        let (envelope, bytes) = try log.withRecord(at: entry.added) { record in
            var reader = WireReader(record.payload)
            return ((try? StoredAdd(from: &reader)).map { Array($0.envelope) }, record.bytesOnDisk)
        }
        guard envelope == task.envelope else {
            throw KeptModel.Complaint("the add of \(entry) is another")
        }
        guard entry.addedBytes == PackedSize(bytes: bytes).bytes else {
            throw KeptModel.Complaint("the add of \(entry) takes \(bytes) bytes")
        }
        guard let result = task.result else { return }
        let (found, taken) = try log.withRecord(at: entry.finished) {
            (Array($0.payload), $0.bytesOnDisk)
        }
        guard found == result else {
            throw KeptModel.Complaint("the result of \(entry) is another")
        }
        guard entry.finishedBytes == PackedSize(bytes: taken).bytes else {
            throw KeptModel.Complaint("the result of \(entry) takes \(taken) bytes")
        }
    }

    private func compareCounts(_ lanes: LaneTable, _ expected: [LaneKey: [UInt64]]) throws {
        for lane in lanes.lanes where lane.byStatus != expected[LaneKey(lane)] ?? LaneKey.none {
            throw KeptModel.Complaint("counts \(lane); it is \(expected[LaneKey(lane)] as Any)")
        }
    }

    private func compareUsage(_ tasks: TaskFold, _ log: Log) throws {
        var expected: [UInt32: Int] = [:]
        for number in tasks.index.numbers {
            let entry = tasks.index[number]
            expected[entry.added.segment, default: 0] += entry.addedBytes
            expected[entry.finished.segment, default: 0] += entry.finishedBytes
        }
        for segment in log.segments where tasks.usage[segment.index] != expected[segment.index] ?? 0
        {
            throw KeptModel.Complaint(
                "segment \(segment.index) has \(tasks.usage[segment.index]) bytes alive by the count, and "
                    + "\(expected[segment.index] ?? 0) by its tasks"
            )
        }
    }

    /// The queues of finished tasks have exactly those.
    private func compareRetention(_ state: StorageState) throws {
        var expected: Set<RetentionState.Finished> = []
        for number in state.tasks.index.numbers {
            let entry = state.tasks.index[number]
            guard entry.status.isFinal, !entry.flags.contains(.expiring) else { continue }
            expected.insert(.init(number: number, sequence: entry.lastSequence))
        }
        var retention = state.retention
        let kept = retention.due(now: Timestamp(nanoseconds: .max), atMost: .max)
        guard Set(kept) == expected, kept.count == expected.count else {
            throw KeptModel.Complaint("\(kept.count) finished tasks are kept of \(expected.count)")
        }
    }
}
