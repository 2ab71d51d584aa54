// Part of QTasks. License: see LICENSE.

import AppendLog
import QTasksBroker
import QTasksModel
import QTasksProcess
import QTasksWire
import ZeroMQ

/// The Broker's process around the production core, as `BrokerLoop` is.
final class SimulatedBroker: SimulatedProcess {
    private(set) var state: BrokerState
    private var clients: BoundSocket?
    private var workers: BoundSocket?
    private var storage: ConnectingSocket?
    private(set) var child: SimulatedStorage?

    /// Workers whose pidfd is in the poll set.
    private var watched: [WorkerID: SimulatedWorker] = [:]

    /// Whoever spoke in this turn, by pid: their pidfds are at hand, also if they have died since.
    private var strangers: [Int32: SimulatedWorker] = [:]

    // pidfds that are ready.
    private var deadWorkers: [WorkerID] = []
    private var isStorageDead = false

    /// Who started it.
    private(set) weak var starter: SimulatedStarter?

    init(_ world: World, life: Int, by starter: SimulatedStarter) {
        self.starter = starter
        var settings = BrokerState.Settings(
            config: world.scenario.config,
            pid: world.nextPid,
            parentPid: starter.pid,
            home: "/simulated"
        )
        // so that a worker that was only stalled is given up, too
        settings.heartbeatNanoseconds = 200 * .millisecond
        settings.silenceNanoseconds = 1000 * .millisecond
        settings.lentBytesMin = world.scenario.placedBytesMin
        state = BrokerState(settings: settings)
        super.init(world, ProcessName(role: .broker, life: life))
        clients = world.network.bind(.clients, by: self)
        workers = world.network.bind(.workers, by: self)
        world.after(world.random.nanoseconds(0...5 * .millisecond)) { [self] in startStorage() }
    }

    override var nextDeadline: UInt64? {
        [state.nextDeadline, wallDeadline].compactMap { $0 }.min()
    }

    /// When the timer of the wall clock goes off, as that is set now.
    private var wallDeadline: UInt64? {
        guard let moment = state.nextWallDeadline else { return nil }
        let wall = world.plant == .wallClockReckonedOnce ? world.wallAsOpened : world.now.wall
        let left = max(0, moment.nanoseconds - wall.nanoseconds)
        return world.now.monotonic + UInt64(left)
    }

    /// The kernel moves what waits for a moment of the wall clock.
    func clockStepped() {
        guard isAlive, state.nextWallDeadline != nil else { return }
        armTimer()
    }

    override var hasUnread: Bool {
        let network = world.network
        return [clients, workers].contains { $0.map { network.hasArrived(on: $0) } ?? false }
            || storage.map { network.hasArrived(on: $0) } ?? false
    }

    override func cleanUp() {
        watched = [:]
        // sockets hold on to their owner
        (clients, workers, storage) = (nil, nil, nil)
        // PR_SET_PDEATHSIG
        if let child {
            world.after(world.random.nanoseconds(0...2 * .millisecond)) {
                child.end("its parent died")
            }
        }
        world.brokerEnded(self)
    }

    override func turn(timerFired: Bool) {
        guard let clients, let workers else { return }
        world.checker.order.beginTurn(at: world.time)
        state.advance(to: world.now)
        receiveStorage()
        receiveWorkers(workers)
        serveDescriptors()
        receiveClients(clients)
        if timerFired {
            state.timer(now: world.now)
            world.checker.order.timer(now: world.now)
        }
        carryOut(state.flush())
        strangers = [:]
    }

    // MARK: Receiving

    private func receiveStorage() {
        guard let storage else { return }
        for bytes in world.network.receive(on: storage, atMost: world.turnLimit()) {
            world.checker.brokerHeard(bytes)
            do {
                let read = try world.plant?.misread(bytes) ?? bytes
                try read.withUnsafeBytes { try state.storageMessage($0) }
            } catch {
                world.checker.fail("the Broker can't read what Storage said: \(error)")
            }
        }
    }

    private func receiveWorkers(_ socket: BoundSocket) {
        let limit = deadWorkers.isEmpty ? world.turnLimit() : .max
        for (connection, bytes) in world.network.receive(on: socket, atMost: limit) {
            var session = connection.routingID
            if world.plant == .oldSessionHonoured, let current = connection.socket.connection {
                session = current.routingID
            }
            let peer = lookUpPeer(connection)
            bytes.withUnsafeBytes { state.workerMessage($0, from: session, peer: peer) }
        }
    }

    /// The descriptor of a connection that is gone may be closed by now.
    private func lookUpPeer(_ connection: Connection) -> PeerProcess {
        guard !connection.isBroken || world.random.chance(50) else { return .remote }
        let owner = connection.socket.owner
        if let worker = owner as? SimulatedWorker {
            guard !worker.isRemote else { return .remote }
            strangers[owner.pid] = worker
        }
        return .local(pid: owner.pid)
    }

    private func receiveClients(_ socket: BoundSocket) {
        for (connection, bytes) in world.network.receive(on: socket, atMost: world.turnLimit()) {
            bytes.withUnsafeBytes { state.clientMessage($0, from: connection.routingID) }
        }
    }

    // MARK: Processes

    private func startStorage() {
        guard isAlive else { return }
        let child = SimulatedStorage(world, life: world.takeLife(.storage), parent: self)
        self.child = child
        world.storageStarted(child)
        storage = world.network.connect(to: .storage, by: self)
    }

    /// Storage's pidfd is ready.
    func storageEnded() {
        guard isAlive else { return }
        isStorageDead = true
        wake()
    }

    /// A worker's pidfd is ready, if it is watched.
    func workerEnded(_ worker: SimulatedWorker) {
        guard isAlive, watched[worker.id] === worker else { return }
        deadWorkers.append(worker.id)
        wake()
    }

    private func serveDescriptors() {
        let dead = deadWorkers
        deadWorkers = []
        for worker in dead where watched[worker] != nil {
            state.workerDied(worker, wasSeen: true)
        }
        guard isStorageDead else { return }
        isStorageDead = false
        child = nil
        if let storage { world.network.close(storage) }
        storage = nil
        state.storageLost()
        guard !state.isStopped else { return }
        world.after(world.random.nanoseconds(0...150 * .millisecond)) { [self] in startStorage() }
    }

    // MARK: Carrying out

    private func carryOut(_ outbox: BrokerOutbox) {
        guard isAlive else { return }
        for message in outbox.toStorage.map(\.joined) {
            world.checker.brokerProposed(message)
            if let storage { _ = world.network.send(message, on: storage) }
        }
        for (session, message) in Self.ordered(outbox.toWorkers) {
            world.checker.brokerToldWorker(message, session)
            guard let workers else { continue }
            if !world.network.send(message, on: workers, to: session) {
                state.workerUnreachable(session)
            }
        }
        for (session, message) in Self.ordered(outbox.toClients) {
            send(message, to: session)
        }
        for reply in outbox.placed {
            let message = state.message(of: reply) { read($0, into: $1) }
            if let message { send(message, to: reply.session) }
            // what is large is counted until it has gone out
            state.clientTook(reply.session, reply.count)
        }
        for deed in outbox.deeds { carryOut(deed) }
        if !outbox.deeds.isEmpty || !outbox.placed.isEmpty { carryOut(state.flush()) }
    }

    private func send(_ message: [UInt8], to session: Session) {
        world.checker.brokerToldClient(message)
        guard let clients else { return }
        if !world.network.send(message, on: clients, to: session) { state.clientGone(session) }
    }

    /// What compaction has moved may be gone by now, and at times more than that.
    private func read(
        _ reference: PayloadReference,
        into target: UnsafeMutableRawBufferPointer
    ) -> Bool {
        let position = RecordPosition(segment: reference.segment, offset: reference.offset)
        guard !world.random.chance(10) else {
            countGone()
            return false
        }
        do {
            try LogRecords(World.store, files: world.disk).read(
                position,
                sequence: reference.sequence,
                from: Int(reference.start),
                into: target
            )
            world.checker.statistics.placedReplies += 1
            return true
        } catch {
            countGone()
            return false
        }
    }

    private func countGone() {
        world.checker.statistics.goneReplies += 1
        world.count(.placeGone)
    }

    /// By session: in which order different peers are told comes from a dictionary and means nothing.
    private static func ordered(
        _ messages: [(session: Session, message: [UInt8])]
    ) -> [(session: Session, message: [UInt8])] {
        messages.enumerated()
            .sorted {
                ($0.element.session.order, $0.offset) < ($1.element.session.order, $1.offset)
            }
            .map(\.element)
    }

    private func carryOut(_ deed: BrokerOutbox.Deed) {
        switch deed {
        case .check(let id, let process): check(id, process)
        case .forget(let id): watched[id] = nil
        case .terminate(let id):
            world.count(.limitOverrun)
            world.checker.broker(self, ends: id)
            watched[id]?.leave()
        case .kill(let id):
            // after a death too, for what that process may have left
            if watched[id]?.isAlive == true { world.checker.broker(self, ends: id) }
            kill(id)
        case .drained: break
        case .finish: end("the system is stopped", .exited(code: 0))
        }
    }

    private func kill(_ id: WorkerID) {
        guard world.plant == .drainRequeuesRunningTasks, watched[id]?.isAlive == true else {
            watched[id]?.end("killed by the Broker")
            return
        }
        // its leases are given back all the same
        deadWorkers.append(id)
        wake()
    }

    private func check(_ id: WorkerID, _ process: WorkerProcess) {
        guard let worker = strangers[process.pid] ?? world.livingWorker(process) else {
            return state.workerDied(id, wasSeen: false)
        }
        watched[id] = worker
        if !worker.isAlive { workerEnded(worker) }
    }
}

extension RoutingID {
    /// Its number: the simulated network counts them.
    var order: UInt64 {
        withBytes { $0.reduce(0) { $0 << 8 | UInt64($1) } }
    }
}
