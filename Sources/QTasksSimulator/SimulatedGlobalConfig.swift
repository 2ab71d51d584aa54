// Part of QTasks. License: see LICENSE.

import AppendLog
import QTasksGlobalConfig
import QTasksModel
import QTasksProcess
import QTasksWire
import ZeroMQ

/// GlobalConfig's process around the production core and the production log, as `GlobalConfigLoop` is.
final class SimulatedGlobalConfig: SimulatedProcess {
    /// On a disk of its own: what goes wrong with the store's is not its business.
    static let store = "/config"

    private static let options = LogOptions(
        segmentBytes: 4 << 10,
        recordBytesMax: 2 << 10,
        zeroFillAheadBytes: 1 << 10,
        zeroFillChunkBytes: 1 << 10
    )

    /// The Storage that started it.
    private(set) weak var parent: SimulatedStorage?

    private(set) var state = ConfigState()
    private var log: Log?

    /// It holds the lock of its folder.
    var hasOpened: Bool { log != nil }

    private var requests: BoundSocket?
    private var updates: BoundSocket?
    /// The log's numbers of records that aren't durable yet, with the settings' own.
    private var inFlight: [(log: UInt64, config: UInt64)] = []
    private var isPlanned = [Bool](repeating: false, count: Job.allCases.count)

    init(_ world: World, life: Int, parent: SimulatedStorage) {
        self.parent = parent
        super.init(world, ProcessName(role: .globalConfig, life: life))
        planOpening()
    }

    override var nextDeadline: UInt64? { state.nextDeadline }

    override var hasUnread: Bool {
        guard let requests, let updates else { return false }
        return world.network.hasArrived(on: requests) || world.network.hasArrived(on: updates)
    }

    override func cleanUp() {
        if log != nil { world.configDisk.endProcess() }
        log = nil
        // sockets hold on to their owner
        (requests, updates) = (nil, nil)
        parent?.globalConfigEnded(self)
    }

    // MARK: Opening

    private func planOpening() {
        world.after(world.random.nanoseconds(.millisecond...20 * .millisecond)) { [self] in
            guard isAlive else { return }
            // the lock is another's until that one has ended (H12)
            guard !world.isConfigTaken(but: self) else { return planOpening() }
            open()
        }
    }

    private func open() {
        var restored = ConfigState()
        var isReadable = true
        do {
            log = try Log.open(
                at: Self.store,
                options: Self.options,
                files: world.configDisk,
                driver: .manual,
                replay: { record in
                    guard let change = try? ConfigRecord(from: record.payload) else {
                        isReadable = false
                        return
                    }
                    restored.restore(change)
                }
            )
        } catch {
            return world.checker.fail("the settings can't be opened: \(error)")
        }
        if !isReadable { world.checker.fail("a setting can't be read back") }
        state = restored
        world.checker.settingsOpened(state)
        updates = world.network.bind(.configUpdates, by: self)
        requests = world.network.bind(.config, by: self)
        planAll()
        wake()
    }

    // MARK: A turn

    override func turn(timerFired: Bool) {
        guard let log, let requests, let updates else { return }
        state.isReadOnly = !log.hasRoom
        for (connection, bytes) in world.network.receive(on: requests, atMost: world.turnLimit()) {
            bytes.withUnsafeBytes { bytes in
                state.request(bytes, from: connection.routingID) {
                    connection.socket.owner === parent
                }
            }
        }
        for (_, bytes) in world.network.receive(on: updates, atMost: world.turnLimit()) {
            bytes.withUnsafeBytes { state.subscription($0) }
        }
        if timerFired {
            state.timer(now: world.now.monotonic)
            log.noteIdle()
        }
        noteDurable(log)
        carryOut(state.flush(), log, requests, updates)
        if let failure = log.failure { world.checker.fail("the settings' log failed: \(failure)") }
        if state.malformed > 0 { world.checker.fail("GlobalConfig got what it can't read") }
        planAll()
    }

    private func noteDurable(_ log: Log) {
        let durable = log.watermarks().durable
        guard let last = inFlight.last(where: { $0.log <= durable }) else { return }
        inFlight.removeAll { $0.log <= durable }
        state.durable(upTo: last.config, now: world.now.monotonic)
    }

    private func carryOut(
        _ outbox: ConfigOutbox,
        _ log: Log,
        _ requests: BoundSocket,
        _ updates: BoundSocket
    ) {
        do {
            for record in outbox.records {
                let place = try log.append(kind: ConfigRecord.kind, payload: record.encoded())
                inFlight.append((log: place.sequence, config: record.sequence))
            }
        } catch {
            return world.checker.fail("a setting can't be appended: \(error)")
        }
        if !outbox.records.isEmpty { log.submit() }
        for message in outbox.publications {
            world.checker.settingPublished(message)
            let isChange = message.count > 3 && message[3] == Command.configUpdate.rawValue
            world.network.publish(message, on: updates, mayBeLost: isChange)
        }
        for reply in outbox.replies {
            world.checker.settingTold(reply.message, state)
            _ = world.network.send(reply.message, on: requests, to: reply.peer)
        }
    }

    // MARK: The log's threads

    private enum Job: Int, CaseIterable {
        case write, sync, prepare, keep
    }

    private func planAll() {
        for job in Job.allCases where !isPlanned[job.rawValue] { plan(job) }
    }

    private func plan(_ job: Job) {
        isPlanned[job.rawValue] = true
        world.after(world.diskDelay()) { [self] in
            isPlanned[job.rawValue] = false
            guard isAlive, let log else { return }
            let didWork =
                switch job {
                case .write: log.runOneWrite()
                case .sync: log.runOneSync()
                case .prepare: log.runOnePreparation()
                case .keep: log.runOneKeep()
                }
            guard didWork else { return }
            wake()
            planAll()
        }
    }
}
