// Part of QTasks. License: see LICENSE.

import AppendLog
import QTasksModel
import QTasksProcess
import QTasksStorage
import QTasksWire
import ZeroMQ

/// Storage's process around the production core and the production log, as `StorageLoop` is; the
/// log's threads are events of the world.
final class SimulatedStorage: SimulatedProcess {
    /// How long after the last commit the log's lower bound is written (`StorageLoop`).
    private static let idlePause: UInt64 = .second

    /// How often a full disk is asked for room (`StorageLoop`).
    private static let spacePause: UInt64 = .second

    /// Small, so that segments end often.
    static let options = LogOptions(
        segmentBytes: 12 << 10,
        recordBytesMax: 10 << 10,
        zeroFillAheadBytes: 4 << 10,
        zeroFillChunkBytes: 4 << 10
    )

    /// The Broker that started it.
    private(set) weak var parent: SimulatedBroker?

    /// Its child.
    private(set) var globalConfig: SimulatedGlobalConfig?

    private(set) var log: AuditedLog?
    private(set) var state: StorageState?
    private var keeper: StorageKeeper?
    private var hasHousework = false
    private var broker: BoundSocket?
    private var results: BoundSocket?
    private var session: RoutingID?
    private var submitted: UInt64 = 0
    private var lastCommit: UInt64 = 0
    private var idleAt: UInt64?
    private var retentionAt: UInt64?
    private var spaceAt: UInt64?
    private var hasProgressed = false
    private var isPlanned = [Bool](repeating: false, count: Job.allCases.count)

    init(_ world: World, life: Int, parent: SimulatedBroker) {
        self.parent = parent
        super.init(world, ProcessName(role: .storage, life: life))
        planOpening()
    }

    override var nextDeadline: UInt64? {
        if hasHousework { return world.now.monotonic }
        return [idleAt, spaceAt, state?.syncDeadline, retentionAt].compactMap { $0 }.min()
    }

    /// When finished tasks are to be forgotten, in nanoseconds of `CLOCK_BOOTTIME`, where nothing else is
    /// awaited.
    var restDeadline: UInt64? {
        let awaits = hasHousework || idleAt != nil || spaceAt != nil || state?.syncDeadline != nil
        return awaits ? nil : retentionAt
    }

    override var hasUnread: Bool {
        guard let broker, let results else { return false }
        return world.network.hasArrived(on: broker) || world.network.hasArrived(on: results)
    }

    override func cleanUp() {
        if let log { world.checker.storageEnded(marks: log.watermarks()) }
        log = nil
        state = nil
        // sockets hold on to their owner
        (broker, results) = (nil, nil)
        // one that never got to the store may end beside one that has it
        if !world.isStoreTaken(but: self) { world.disk.endProcess() }
        if let globalConfig {
            world.after(world.random.nanoseconds(0...2 * .millisecond)) {
                globalConfig.end("its parent died")
            }
        }
        world.storageEnded(self)
    }

    /// GlobalConfig's pidfd is ready some time after this.
    func globalConfigEnded(_ ended: SimulatedGlobalConfig) {
        guard isAlive, globalConfig === ended else { return }
        world.after(world.random.nanoseconds(0...150 * .millisecond)) { [self] in
            if isAlive { globalConfig = world.startGlobalConfig(by: self) }
        }
    }

    // MARK: Opening

    private func planOpening() {
        world.after(world.random.nanoseconds(.millisecond...30 * .millisecond)) { [self] in
            guard isAlive else { return }
            // the lock is another's until that one has ended (H12)
            guard !world.isStoreTaken(but: self) else { return planOpening() }
            open()
        }
    }

    private func open() {
        var settings = StorageState.Settings(
            config: world.scenario.config,
            directory: World.store,
            bootID: world.bootID,
            pid: pid,
            seed: world.scenario.seed
        )
        settings.placedBytesMin = world.scenario.placedBytesMin
        var records: [Ledger.Record] = []
        do {
            let store = try OpenedStore(
                settings,
                options: Self.options,
                keeping: world.scenario.keeping,
                now: world.now,
                files: world.files,
                driver: .manual,
                observe: { if $0.source == nil { records.append(Ledger.Record($0)) } }
            )
            world.noteArmed()
            if world.hasRot, store.log.recovery.isDamaged || store.unreadable > 0 {
                world.checker.damageReported(store)
                return world.reportDamage()
            }
            if store.unreadable > 0 { world.checker.fail("a record can't be read back") }
            log = AuditedLog(store.log, by: self)
            state = store.state
            keeper = store.keeper
            submitted = store.log.lastSequence
            world.checker.storageOpened(store.log, store.state, records)
        } catch {
            return world.storeFailed(self, error)
        }
        results = world.network.bind(.results, by: self)
        broker = world.network.bind(.storage, by: self)
        globalConfig = world.startGlobalConfig(by: self)
        plan(.prepare)
        wake()
    }

    // MARK: A turn

    override func turn(timerFired: Bool) {
        guard let log, var state, let broker, let results else { return }
        // lent out for the turn, so that its collections aren't copied
        self.state = nil
        if hasProgressed {
            hasProgressed = false
            logProgressed(&state, log)
        }
        if timerFired { timer(&state, log) }
        receiveBroker(broker, &state, log)
        if world.plant != .releaseWithoutReadingPull {
            receiveResults(results, &state, log, atMost: world.turnLimit())
        }
        decideReleases(results, &state, log)
        if world.plant == .releaseWithoutReadingPull {
            receiveResults(results, &state, log, atMost: .max)
        }
        submit(&state, log)
        let told = believed(log.watermarks())
        state.watermarks(told, log: log)
        let outbox = state.flush()
        if state.counters.malformed + state.counters.unreadable > 0 {
            guard !world.hasRot else { return world.reportDamage() }
            world.checker.fail("Storage got or holds what it can't read: \(outbox.notices)")
        }
        for message in outbox.toBroker { send(message, on: broker, &state) }
        if state.failure != nil { return end("its disk failed", .exited(code: 74)) }
        if outbox.shallStop { return stop(&state, log, results, broker) }
        keepHouse(&state, log)
        world.checker.checkCounts(state, durable: told.durable)
        self.state = state
    }

    /// The orderly end: every commit, then the log (`StorageLoop`).
    private func stop(
        _ state: inout StorageState,
        _ log: AuditedLog,
        _ results: BoundSocket,
        _ broker: BoundSocket
    ) {
        let stopped = globalConfig
        globalConfig = nil
        stopped?.end("the system is stopped", .exited(code: 0))
        receiveResults(results, &state, log, atMost: .max)
        do {
            try log.log.flush()
            world.checker.logProgressed(log.watermarks())
            state.watermarks(believed(log.watermarks()), log: log)
            for message in state.flush().toBroker { send(message, on: broker, &state) }
            keeper?.writeLastCheckpoint(state, log.log)
            try log.log.close()
            send(WireWriter(.storageStopped).bytes, on: broker, &state)
            end("the system is stopped", .exited(code: 0))
        } catch {
            noteFailure(error)
            end("its disk failed: \(error)", .exited(code: 74))
        }
    }

    /// As much of it as the seed gives time for.
    private func keepHouse(_ state: inout StorageState, _ log: AuditedLog) {
        var looks = world.random.below(4)
        let pace = keeper?.step(&state, log, now: world.now) {
            looks -= 1
            return looks < 0
        }
        hasHousework = pace == .soon
        retentionAt = keeper?.nextDeadline(&state, now: world.now)
        submit(&state, log)
        planAll()
    }

    /// What the core is told of the log: the truth, unless the fault is planted.
    private func believed(_ marks: Watermarks) -> Watermarks {
        guard world.plant == .resultToldBeforeDurable else { return marks }
        return Watermarks(written: marks.written, durable: marks.written)
    }

    private func receiveBroker(
        _ socket: BoundSocket,
        _ state: inout StorageState,
        _ log: AuditedLog
    ) {
        for (connection, bytes) in world.network.receive(on: socket, atMost: world.turnLimit()) {
            if bytes.isEmpty {
                session = connection.routingID
                state.brokerSession(incarnation: log.incarnation, globalConfigPid: 0)
            } else if connection.routingID == session {
                bytes.withUnsafeBytes { state.brokerMessage($0, now: world.now, log: log) }
            }
        }
    }

    private func receiveResults(
        _ socket: BoundSocket,
        _ state: inout StorageState,
        _ log: AuditedLog,
        atMost limit: Int
    ) {
        for (_, bytes) in world.network.receive(on: socket, atMost: limit) {
            if world.plant == .cancelKeepsLease { takeLate(bytes, log) }
            bytes.withUnsafeBytes { state.results($0, now: world.now, log: log) }
        }
    }

    /// See ``PlantedFault/cancelKeepsLease``; `StoredFinish` has the layout.
    private func takeLate(_ bytes: [UInt8], _ log: AuditedLog) {
        world.checker.reading(bytes) { _, reader in
            let worker = try reader.worker("worker")
            while !reader.isAtEnd {
                let entry = try ResultEntry(from: &reader)
                guard case .success = entry.outcome,
                    world.checker.changes.revoked.contains(entry.lease),
                    world.checker.ledger.tasks[entry.id]?.status == .cancel
                else { continue }
                var record = WireWriter()
                record.integer(world.now.wall.nanoseconds)
                record.u8(TaskStatus.success.code)
                record.worker(worker)
                entry.write(to: &record)
                _ = try record.bytes.withUnsafeBytes {
                    try log.append(kind: .finish, head: [], body: $0)
                }
            }
        }
    }

    /// What lies in the PULL socket counts before a release does (H26).
    private func decideReleases(
        _ socket: BoundSocket,
        _ state: inout StorageState,
        _ log: AuditedLog
    ) {
        guard state.hasReleases else { return }
        if world.plant != .releaseWithoutReadingPull {
            receiveResults(socket, &state, log, atMost: .max)
        }
        world.checker.unreadResults = world.network.unread(on: socket)
        state.decideReleases(now: world.now, log: log)
        world.checker.unreadResults = []
    }

    private func send(_ message: [UInt8], on socket: BoundSocket, _ state: inout StorageState) {
        guard let session else { return }
        guard !world.network.send(message, on: socket, to: session) else { return }
        self.session = nil
        state.brokerGone()
    }

    // MARK: The log

    private func submit(_ state: inout StorageState, _ log: AuditedLog) {
        let wantsSync = state.takeSyncWish(now: world.now.monotonic)
        guard log.log.hasUnsubmitted || wantsSync else { return }
        log.log.submit(sync: wantsSync)
        // a quiet log writes a little on the thread that submits
        if world.random.chance(50), log.log.runOneWrite() {
            world.checker.logProgressed(log.watermarks())
            if log.log.failure != nil {
                hasProgressed = true
                wake()
            }
        }
        planAll()
        guard log.log.lastSequence > submitted else { return }
        submitted = log.log.lastSequence
        lastCommit = world.now.monotonic
        if idleAt == nil { idleAt = lastCommit + Self.idlePause }
    }

    /// As `StorageLoop.logProgressed` does.
    private func logProgressed(_ state: inout StorageState, _ log: AuditedLog) {
        if let failure = log.log.failure {
            noteFailure(failure)
            state.fail("\(failure)")
        }
        if log.log.hasRoom {
            spaceAt = nil
            if state.awaitsSpace { state.spaceMayBeBack(now: world.now, log: log) }
        } else if spaceAt == nil {
            spaceAt = world.now.monotonic + Self.spacePause
        }
    }

    private func noteFailure(_ failure: any Error) {
        world.noteArmed()
        let isExpected = (failure as? AppendLogError).map { world.isDiskFault($0) } ?? false
        guard !isExpected else { return }
        if world.hasRot { return world.reportDamage() }
        world.checker.fail("the log failed: \(failure)")
    }

    private func timer(_ state: inout StorageState, _ log: AuditedLog) {
        if let at = spaceAt, at <= world.now.monotonic {
            spaceAt = world.now.monotonic + Self.spacePause
            log.log.retrySpace()
            if state.awaitsSpace { state.spaceMayBeBack(now: world.now, log: log) }
        }
        guard let at = idleAt, at <= world.now.monotonic else { return }
        let due = lastCommit + Self.idlePause
        guard due <= world.now.monotonic else {
            idleAt = due
            return
        }
        idleAt = nil
        log.log.submit(sync: true)
        log.log.noteIdle()
        planAll()
    }

    /// What the log's threads do.
    private enum Job: Int, CaseIterable {
        case write, sync, prepare, keep
    }

    private func planAll() {
        for job in Job.allCases { plan(job) }
    }

    private func plan(_ job: Job) {
        guard !isPlanned[job.rawValue] else { return }
        isPlanned[job.rawValue] = true
        world.after(world.diskDelay()) { [self] in
            isPlanned[job.rawValue] = false
            guard isAlive, let log else { return }
            let didWork =
                switch job {
                case .write: log.log.runOneWrite()
                case .sync: log.log.runOneSync()
                case .prepare: log.log.runOnePreparation()
                case .keep: log.log.runOneKeep()
                }
            if world.armed != nil { world.noteArmed() }
            if job == .sync, world.rotAtRelease() { return }
            guard didWork else { return }
            world.checker.logProgressed(log.watermarks())
            hasProgressed = true
            wake()
            planAll()
        }
    }
}
