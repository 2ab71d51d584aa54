// Part of QTasks. License: see LICENSE.

import AppendLog
import QTasksClient
import QTasksModel
import QTasksWire

/// One host in virtual time: its processes, its disk, and what the seed does to them.
///
/// Everything happens in one thread, in the order of ``EventQueue``; every choice is drawn from one
/// generator. So a run follows from its seed alone.
final class World {
    static let store = "/store"

    let scenario: Scenario
    let plant: PlantedFault?
    var random: SeededRandom
    let disk: SimulatedDisk
    let checker: Checker
    private(set) var log: Trace

    private var events = EventQueue()
    private(set) var time: UInt64 = 0
    private(set) var eventCount = 0

    /// When the run is over.
    private(set) var end: UInt64 = .max

    /// When the host was started last, and which boot this is.
    private var bootedAt: UInt64 = 0
    private(set) var bootID = TaskID(high: 1, low: 1)

    private(set) var nextPid: Int32 = 100
    private var lives: [ProcessName.Role: Int] = [:]

    private var networkOrNil: SimulatedNetwork?
    private(set) var broker: SimulatedBroker?
    private var storages: [SimulatedStorage] = []
    private(set) var workers: [SimulatedWorker?]
    private(set) var clients: [SimulatedClient?]

    /// What happens right after the next message somewhere.
    private var traps: [(address: Address, trap: Scenario.Fault.Trap)] = []

    /// The host has no power, or is starting: nobody may begin.
    private var isDown = false

    init(_ scenario: Scenario, plant: PlantedFault?, tracing kept: Int) {
        self.scenario = scenario
        self.plant = plant
        random = SeededRandom(seed: scenario.seed)
        disk = SimulatedDisk(seed: scenario.seed)
        checker = Checker(config: scenario.config)
        log = Trace(keeping: kept)
        workers = Array(repeating: nil, count: scenario.workers.count)
        clients = Array(repeating: nil, count: scenario.clients)
        networkOrNil = SimulatedNetwork(self)
        checker.world = self
    }

    var network: SimulatedNetwork {
        guard let networkOrNil else { preconditionFailure("made in init") }
        return networkOrNil
    }

    // MARK: Time

    var now: Now {
        Now(
            wall: Timestamp(nanoseconds: 1_700_000_000_000_000_000 + Int64(time)),
            monotonic: time - bootedAt + .second
        )
    }

    /// The world's time at a moment of this boot's clock.
    func worldTime(ofBoot monotonic: UInt64) -> UInt64 {
        let (sum, overflow) = monotonic.addingReportingOverflow(bootedAt)
        return overflow ? .max : sum - min(sum, .second)
    }

    /// Nothing goes wrong any more.
    var isCalm: Bool { time >= scenario.calmAt }

    func at(_ time: UInt64, _ action: @escaping () -> Void) {
        events.insert(at: max(time, self.time), tie: random.next(), action)
    }

    func after(_ delay: UInt64, _ action: @escaping () -> Void) {
        at(time + delay, action)
    }

    func trace(_ who: ProcessName, _ event: Trace.Event) {
        log.add(time, who, event)
    }

    /// How long a message takes.
    func messageDelay() -> UInt64 {
        switch random.below(100) {
        case ..<90: random.nanoseconds(10 * .microsecond...200 * .microsecond)
        case ..<98: random.nanoseconds(200 * .microsecond...5 * .millisecond)
        default:
            isCalm
                ? random.nanoseconds(200 * .microsecond...5 * .millisecond)
                : random.nanoseconds(5 * .millisecond...300 * .millisecond)
        }
    }

    /// How long a process takes to get to its turn.
    func turnDelay() -> UInt64 {
        switch random.below(100) {
        case ..<85: random.nanoseconds(1 * .microsecond...20 * .microsecond)
        case ..<97: random.nanoseconds(20 * .microsecond...500 * .microsecond)
        default:
            isCalm
                ? random.nanoseconds(20 * .microsecond...500 * .microsecond)
                : random.nanoseconds(500 * .microsecond...20 * .millisecond)
        }
    }

    /// How long a write or a sync takes.
    func diskDelay() -> UInt64 {
        random.chance(90) || isCalm
            ? random.nanoseconds(5 * .microsecond...500 * .microsecond)
            : random.nanoseconds(500 * .microsecond...80 * .millisecond)
    }

    /// How many messages of a socket one turn takes: mostly all, now and then few.
    func turnLimit() -> Int { random.chance(60) ? .max : random.between(1...3) }

    // MARK: The run

    /// Runs until nothing is left to happen, a promise is broken, or `end` has come.
    func run(until end: UInt64) {
        self.end = end
        begin()
        while !checker.hasFailed, let event = events.next() {
            guard event.time <= end else {
                checker.fail(
                    "P8: \(Trace.milliseconds(end - scenario.calmAt)) ms after the last fault "
                        + "something still happens: \(armed)"
                )
                break
            }
            time = event.time
            eventCount += 1
            event.action()
        }
        if !checker.hasFailed { checker.atRest() }
        for process in living { process.end("the run is over") }
        network.dissolve()
    }

    private func begin() {
        for number in workers.indices { startWorker(number) }
        startBroker()
        for number in clients.indices { startClient(number) }
        for step in scenario.steps { at(step.at) { [self] in take(step) } }
        for fault in scenario.faults { at(fault.at) { [self] in commit(fault) } }
    }

    /// Who still awaits something, in words.
    private var armed: String {
        var names: [String] = []
        func look(_ process: SimulatedProcess?) {
            guard let process, process.isAlive, let deadline = process.nextDeadline else { return }
            names.append("\(process.name) at \(Trace.milliseconds(worldTime(ofBoot: deadline)))")
        }
        clients.forEach(look)
        look(broker)
        storages.forEach(look)
        workers.forEach(look)
        return names.isEmpty ? "no deadline is armed" : names.joined(separator: ", ")
    }

    /// The processes that live.
    var living: [SimulatedProcess] {
        let all: [SimulatedProcess?] = clients + [broker] + storages + workers
        return all.compactMap { $0 }.filter(\.isAlive)
    }

    // MARK: Clients

    private func take(_ step: Scenario.ClientStep) {
        guard let client = clients[step.client], client.isAlive else {
            // he has to wait until he is back
            return after(50 * .millisecond) { [self] in take(step) }
        }
        switch step.deed {
        case .add(let tasks, let waits): add(tasks, waits: waits, by: client)
        case .wait(let tasks):
            let ids = known(tasks)
            if !ids.isEmpty { client.begin(.wait(ids), of: ids) }
        case .get(let tasks):
            let ids = known(tasks)
            if !ids.isEmpty { client.begin(.get(ids), of: ids) }
        case .compact: client.begin(.compact, of: [])
        }
    }

    /// Tasks that are sure to be there: whoever asks for others is told that there are none.
    private func known(_ tasks: [Int]) -> [TaskID] {
        tasks.map { scenario.tasks[$0].submission.id }.filter { checker.isAcknowledged($0) }
    }

    private func add(_ tasks: [Int], waits: Bool, by client: SimulatedClient) {
        let submissions = tasks.map { scenario.tasks[$0].submission }
        do {
            let batch = try EnvelopeBatch(submissions)
            client.begin(.add(batch, wait: waits), of: submissions.map(\.id))
        } catch {
            checker.fail("a task that can't be encoded: \(error)")
        }
    }

    // MARK: The plan's faults

    private func commit(_ fault: Scenario.Fault) {
        guard !isDown else { return }
        switch fault.kind {
        case .killWorker: livingWorkers.randomOne(&random)?.end("kill -9")
        case .killStorage: storages.filter(\.isAlive).randomOne(&random)?.end("kill -9")
        case .killBroker: broker?.end("kill -9")
        case .killClient: livingClients.randomOne(&random)?.end("kill -9")
        case .killAll: for process in living { process.end("kill -9 of all") }
        case .losePower: losePower()
        case .breakSession:
            if let session = network.open.randomOne(&random) { network.breakSession(session) }
        case .pauseWorker: pause(livingWorkers.randomOne(&random))
        case .pauseBroker: pause(broker)
        case .pauseStorage: pause(storages.filter(\.isAlive).randomOne(&random))
        case .pauseClient: pause(livingClients.randomOne(&random))
        case .leave: livingWorkers.randomOne(&random)?.leave()
        case .trap(let address, let trap): traps.append((address, trap))
        }
        restartClients()
    }

    /// A message went out on this connection: whoever set a trap for it strikes.
    func sent(on connection: Connection) {
        guard !traps.isEmpty, !isCalm,
            let index = traps.firstIndex(where: { $0.address == connection.bound.address })
        else { return }
        let trap = traps.remove(at: index).trap
        after(random.nanoseconds(0...300 * .microsecond)) { [self] in
            guard !isDown else { return }
            strike(trap, connection)
            restartClients()
        }
    }

    private func strike(_ trap: Scenario.Fault.Trap, _ connection: Connection) {
        switch trap {
        case .killConnecting: connection.socket.owner.end("kill -9")
        case .killWhileBusy:
            let time = random.nanoseconds(.millisecond...20 * .millisecond)
            connection.bound.owner.pause(for: time)
            connection.socket.owner.end("kill -9")
        case .killBinding: connection.bound.owner.end("kill -9")
        case .breakSession: network.breakSession(connection)
        case .losePower: losePower()
        }
    }

    private func restartClients() {
        for (number, client) in clients.enumerated() where client?.isAlive != true {
            restartClient(number)
        }
    }

    private func pause(_ process: SimulatedProcess?) {
        process?.pause(for: random.nanoseconds(5 * .millisecond...1500 * .millisecond))
    }

    private func losePower() {
        trace(ProcessName(role: .world), .note("the power goes"))
        isDown = true
        for process in living { process.end("no power") }
        disk.crash(seed: random.next())
        checker.powerLost()
        after(random.nanoseconds(50 * .millisecond...500 * .millisecond)) { [self] in
            bootedAt = time
            bootID = TaskID(high: 1, low: bootID.low + 1)
            isDown = false
            for number in workers.indices { startWorker(number) }
            startBroker()
        }
    }

    private var livingWorkers: [SimulatedWorker] { workers.compactMap { $0 }.filter(\.isAlive) }
    private var livingClients: [SimulatedClient] { clients.compactMap { $0 }.filter(\.isAlive) }

    // MARK: Processes: what the Starter and the kernel do

    func takePid() -> Int32 {
        defer { nextPid += 1 }
        return nextPid
    }

    func takeLife(_ role: ProcessName.Role) -> Int {
        lives[role, default: 0] += 1
        return lives[role, default: 0]
    }

    /// How long after a process's end its pidfd becomes readable.
    private func pidfdDelay() -> UInt64 {
        random.nanoseconds(0...(random.chance(50) ? 100 * .microsecond : 5 * .millisecond))
    }

    private func startBroker() {
        guard !isDown, broker?.isAlive != true else { return }
        broker = SimulatedBroker(self, life: takeLife(.broker))
    }

    func brokerEnded(_ ended: SimulatedBroker) {
        after(random.nanoseconds(0...200 * .millisecond)) { [self] in startBroker() }
    }

    func storageStarted(_ storage: SimulatedStorage) {
        storages.removeAll { !$0.isAlive }
        storages.append(storage)
    }

    /// The Broker's pidfd of its child becomes ready.
    func storageEnded(_ storage: SimulatedStorage) {
        let parent = storage.parent
        after(pidfdDelay()) {
            if parent.child === storage { parent.storageEnded() }
        }
    }

    /// Whether somebody else holds the store's lock.
    func isStoreTaken(but storage: SimulatedStorage) -> Bool {
        storages.contains { $0 !== storage && $0.isAlive && $0.log != nil }
    }

    /// The store could not be opened.
    func storeFailed(_ storage: SimulatedStorage, _ error: AppendLogError) {
        checker.fail("the store can't be opened: \(error)")
    }

    private func startWorker(_ number: Int) {
        guard !isDown, workers[number]?.isAlive != true else { return }
        let life = (workers[number]?.name.life ?? 0) + 1
        workers[number] = SimulatedWorker(
            self,
            number: number,
            life: life,
            scenario.workers[number]
        )
    }

    func workerEnded(_ worker: SimulatedWorker) {
        let number = worker.name.number
        after(pidfdDelay()) { [self] in broker?.workerEnded(worker) }
        after(random.nanoseconds(.millisecond...300 * .millisecond)) { [self] in
            startWorker(number)
        }
    }

    /// The process that this is, if it lives.
    func livingWorker(_ process: WorkerProcess) -> SimulatedWorker? {
        workers.compactMap { $0 }.first { $0.isAlive && $0.process == process }
    }

    /// The worker of that name, if it lives.
    func livingWorker(_ id: WorkerID) -> SimulatedWorker? {
        workers.compactMap { $0 }.first { $0.isAlive && $0.id == id }
    }

    private func startClient(_ number: Int) {
        guard clients[number]?.isAlive != true else { return }
        let life = (clients[number]?.name.life ?? 0) + 1
        clients[number] = SimulatedClient(self, number: number, life: life)
    }

    /// A client comes back and adds once more what nobody has told him is there.
    private func restartClient(_ number: Int) {
        after(random.nanoseconds(300 * .millisecond...700 * .millisecond)) { [self] in
            guard !isDown else { return restartClient(number) }
            guard clients[number]?.isAlive != true else { return }
            startClient(number)
            guard let client = clients[number] else { return }
            for step in scenario.steps where step.client == number && step.at <= time {
                guard case .add(let tasks, _) = step.deed else { continue }
                let missing = tasks.filter {
                    !checker.isAcknowledged(scenario.tasks[$0].submission.id)
                }
                if !missing.isEmpty { add(missing, waits: random.chance(50), by: client) }
            }
        }
    }
}

extension Array {
    fileprivate func randomOne(_ random: inout SeededRandom) -> Element? {
        isEmpty ? nil : random.pick(self)
    }
}
