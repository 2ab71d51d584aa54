// Part of QTasks. License: see LICENSE.

import AppendLog
import QTasksModel
import QTasksProcess
import QTasksWire
import QTasksWorker

/// A worker's process around the production core, as `WorkerLoop` is, with handlers that do what the
/// seed says.
final class SimulatedWorker: SimulatedProcess {
    let id: WorkerID
    let process: WorkerProcess
    let names: [String]
    /// The kernel can't show it to the Broker: heartbeats must do.
    let isRemote: Bool
    private var state: WorkerState
    private var effects = WorkerEffects()
    private var broker: ConnectingSocket?
    private var storage: ConnectingSocket?
    private var isStorageAway = false
    private var isStorageBack = false
    private var isAskedToLeave = false
    private var ended: [AttemptEnd] = []
    private var unreadable: [Lease] = []

    /// Where it reads large arguments; `nil`: it is sent them, as a foreign worker is.
    private let store: LogRecords?

    /// Handlers that run, by lease.
    private var running: [Lease: TaskDelivery] = [:]

    /// Who started it.
    private(set) weak var starter: SimulatedStarter?

    init(
        _ world: World,
        number: Int,
        life: Int,
        _ plan: Scenario.Worker,
        by starter: SimulatedStarter
    ) {
        self.starter = starter
        id = WorkerID(high: world.random.next(), low: world.random.next())
        names = plan.names
        isRemote = plan.isRemote && !world.isCalm
        let pid = world.nextPid
        process = WorkerProcess(pid: pid, startTime: UInt64(pid), bootID: world.bootID)
        state = WorkerState(
            identity: .init(worker: id, process: process, parentPid: starter.pid),
            handlers: plan.names.map { name in
                TaskHandler(name: name, kind: .async { arguments, _ in arguments })
            },
            slots: plan.slots,
            seed: world.random.next()
        )
        store = plan.readsStore ? LogRecords(World.store, files: world.disk) : nil
        super.init(world, ProcessName(role: .worker, number: number, life: life))
        precondition(self.pid == pid, "a process has one pid")
        broker = world.network.connect(to: .workers, by: self)
        storage = world.network.connect(to: .results, by: self)
    }

    /// SIGTERM.
    func leave() {
        isAskedToLeave = true
        wake()
    }

    /// Whether this lease's handler runs here.
    func isRunning(_ lease: Lease) -> Bool { running[lease] != nil }

    override var nextDeadline: UInt64? { state.nextDeadline }

    override var hasUnread: Bool { broker.map { world.network.hasArrived(on: $0) } ?? false }

    override func socketConnected(_ socket: ConnectingSocket) {
        if socket === storage, isStorageAway {
            isStorageBack = true
            wake()
        }
    }

    override func cleanUp() {
        world.checker.workerDied(self)
        running = [:]
        // sockets hold on to their owner
        (broker, storage) = (nil, nil)
        world.workerEnded(self)
    }

    override func turn(timerFired: Bool) {
        guard let broker, let storage else { return }
        let now = world.now
        let store = storeInSight()
        for bytes in world.network.receive(on: broker, atMost: world.turnLimit()) {
            bytes.withUnsafeBytes { state.receive($0, now: now, store: store) }
        }
        for lease in unreadable { state.unreadable(lease) }
        unreadable = []
        for end in ended { state.finished(end, now: now) }
        ended = []
        if isAskedToLeave {
            isAskedToLeave = false
            state.leave()
        }
        if isStorageBack {
            (isStorageAway, isStorageBack) = (false, false)
            state.storageIsBack()
        }
        if timerFired { state.timer(now: now) }
        state.endTurn(now: now, into: &effects)
        act(broker, storage)
        for note in effects.notes {
            if case .unreadable = note { countGone() }
        }
        if state.malformedCount > 0 { world.checker.fail("\(name) got a message it can't read") }
        if state.isFinished { end("left in order", .exited(code: 0)) }
    }

    private func countGone() {
        world.checker.statistics.gone += 1
        world.count(.placeGone)
    }

    /// Now and then nothing is where it was: as if Storage had come back and had removed it meanwhile.
    private func storeInSight() -> LogRecords? {
        guard let store else { return nil }
        return world.random.chance(5) ? LogRecords("/elsewhere", files: world.disk) : store
    }

    /// Now and then what is mapped can't be read.
    private func isSpoiled(_ delivery: TaskDelivery) -> Bool {
        guard delivery.isPlaced else { return false }
        return world.random.chance(5)
    }

    private func act(_ broker: ConnectingSocket, _ storage: ConnectingSocket) {
        for message in effects.toBroker {
            if let connection = broker.connection {
                world.checker.workerSaid(message, in: connection)
            }
            _ = world.network.send(message, on: broker)
        }
        for message in effects.toStorage {
            if !world.network.send(message, on: storage) { isStorageAway = true }
        }
        for delivery in effects.starts { start(delivery) }
        for delivery in effects.cancels { cancel(delivery) }
    }

    // MARK: Handlers

    private func start(_ delivery: TaskDelivery) {
        guard delivery.checkArguments(), !isSpoiled(delivery) else {
            countGone()
            unreadable.append(delivery.lease)
            return wake()
        }
        world.checker.checkArguments(delivery.takeCopy(), of: delivery.id)
        let step = world.checker.started(delivery, by: self)
        running[delivery.lease] = delivery
        let startedAt = world.now.wall
        switch step.deed {
        case .end(let outcome):
            world.after(step.time) { [self] in finish(delivery, outcome(delivery), startedAt) }
        case .hang, .goOn: break
        case .kill: world.after(step.time) { [self] in kill(by: delivery) }
        }
    }

    private func kill(by delivery: TaskDelivery) {
        guard isAlive, running[delivery.lease] != nil else { return }
        end("killed by task \(world.scenario.number(of: delivery.id))")
    }

    private func cancel(_ delivery: TaskDelivery) {
        delivery.markCancelled()
        world.checker.cancelled(delivery)
        // only who hangs looks at it
        guard case .hang = world.scenario.step(of: delivery).deed else { return }
        let startedAt = world.now.wall
        let failure = TaskFailure(type: "CancellationError", message: "asked to end")
        world.after(world.random.nanoseconds(0...30 * .millisecond)) { [self] in
            finish(delivery, .error(failure), startedAt)
        }
    }

    private func finish(
        _ delivery: TaskDelivery,
        _ outcome: TaskOutcome,
        _ startedAt: Timestamp
    ) {
        guard isAlive, running.removeValue(forKey: delivery.lease) != nil else { return }
        world.trace(
            name,
            .returned(delivery.holding, task: world.scenario.number(of: delivery.id))
        )
        world.checker.returned(delivery, outcome)
        ended.append(
            AttemptEnd(
                lease: delivery.lease,
                outcome: outcome,
                startedAt: startedAt,
                finishedAt: world.now.wall
            )
        )
        wake()
    }
}
