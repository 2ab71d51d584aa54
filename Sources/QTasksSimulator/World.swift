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

    /// Hundreds of times what a run takes: one that gets here spins.
    private static let stepsMax = 500_000

    let scenario: Scenario
    var hasRottedAtRelease = false
    let plant: PlantedFault?
    var random: SeededRandom
    let disk: SimulatedDisk
    /// Where the settings are.
    let configDisk: SimulatedDisk
    let checker: Checker
    private(set) var log: Trace

    private var events = EventQueue()
    private(set) var time: UInt64 = 0
    private(set) var eventCount = 0

    /// When the run is over.
    private(set) var end: UInt64 = .max

    /// When the host was started last, and which boot this is.
    var bootedAt: UInt64 = 0
    var bootID = TaskID(high: 1, low: 1)

    /// By how much the wall clock was set in all, in nanoseconds, and how far it was moved to and fro.
    var clockSet: Int64 = 0
    var clockMoves: UInt64 = 0

    /// The wall clock as if nobody had ever set it, where a fault is planted.
    var wallAsOpened: Timestamp { Self.moment(ofWorld: time) }

    var nextPid: Int32 = 100
    var lives: [ProcessName.Role: Int] = [:]

    private var networkOrNil: SimulatedNetwork?
    var starter: SimulatedStarter?
    var broker: SimulatedBroker?
    var storages: [SimulatedStorage] = []
    var configs: [SimulatedGlobalConfig] = []
    var watchers: [SimulatedWatcher?]
    var workers: [SimulatedWorker?]
    var clients: [SimulatedClient?]

    /// What happens right after the next message somewhere.
    var traps: [(address: Address, trap: Scenario.Fault.Trap)] = []

    /// The host has no power, or is starting: nobody may begin.
    var isDown = false

    /// A stop was asked for in this run.
    var hasBeenStopped = false

    /// A caller has set a deadline in this run.
    private(set) var isSomebodyImpatient = false

    /// What the disk was told to do to its next calls, until it has.
    var armed: FaultKind?

    /// The disk was told to fail in this run: whoever uses it may find it so.
    var isDiskSuspect = false

    /// The disk as the log sees it.
    let files: any LogFiles

    /// Sequences that compaction carried forward, by where they lie; where a fault is planted.
    var carried: [UInt64] = []

    /// Bits turned over in a segment.
    var hasRot = false

    /// Storage has said that something on its disk is damaged: what the log holds is no more what was
    /// written to it, and nothing can be held against that.
    var isDamageReported = false

    init(_ scenario: Scenario, plant: PlantedFault?, tracing kept: Int) {
        self.scenario = scenario
        self.plant = plant
        random = SeededRandom(seed: scenario.seed)
        disk = SimulatedDisk(seed: scenario.seed)
        configDisk = SimulatedDisk(seed: ~scenario.seed)
        switch plant {
        case .filesOfTheOlderMetaDeleted?, .tailReusedAfterAFailedSync?:
            files = PlantedFiles(disk, plant ?? .tailReusedAfterAFailedSync)
        default: files = disk
        }
        checker = Checker(config: scenario.config)
        log = Trace(keeping: kept)
        workers = Array(repeating: nil, count: scenario.workers.count)
        clients = Array(repeating: nil, count: scenario.clients)
        watchers = Array(repeating: nil, count: scenario.watchers)
        networkOrNil = SimulatedNetwork(self)
        checker.world = self
    }

    var network: SimulatedNetwork {
        guard let networkOrNil else { preconditionFailure("made in init") }
        return networkOrNil
    }

    // MARK: Time

    /// What the wall clock shows when the run begins.
    static let wallAtStart = Timestamp(nanoseconds: 1_700_000_000_000_000_000)

    var now: Now {
        Now(
            wall: Timestamp(nanoseconds: Self.moment(ofWorld: time).nanoseconds + clockSet),
            monotonic: time - bootedAt + .second
        )
    }

    /// What the wall clock shows at this time where nobody sets it.
    static func moment(ofWorld time: UInt64) -> Timestamp {
        Timestamp(nanoseconds: wallAtStart.nanoseconds + Int64(time))
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
                : late()
        }
    }

    private func late() -> UInt64 {
        count(.messageLate)
        return random.nanoseconds(5 * .millisecond...300 * .millisecond)
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
        guard !random.chance(90), !isCalm else {
            return random.nanoseconds(5 * .microsecond...500 * .microsecond)
        }
        count(.slowDisk)
        return random.nanoseconds(500 * .microsecond...80 * .millisecond)
    }

    /// A fault struck.
    func count(_ kind: FaultKind) { checker.statistics.faults[kind] += 1 }

    /// How many messages of a socket one turn takes: mostly all, now and then few.
    func turnLimit() -> Int { random.chance(60) ? .max : random.between(1...3) }

    // MARK: The run

    /// Runs until nothing is left to happen, a promise is broken, or `end` has come.
    func run(until end: UInt64) {
        self.end = end
        begin()
        while !checker.hasFailed, !isDamageReported, let event = events.next() {
            guard event.time <= end else {
                checker.fail(
                    "P8: \(Trace.milliseconds(end - scenario.calmAt)) ms after the last fault "
                        + "something still happens: \(awaiting)"
                )
                break
            }
            guard eventCount < Self.stepsMax else {
                checker.fail("P8: after \(eventCount) steps something still happens: \(awaiting)")
                break
            }
            time = event.time
            eventCount += 1
            event.action()
        }
        if !checker.hasFailed, !isDamageReported { checker.atRest() }
        for process in living { process.end("the run is over") }
        network.dissolve()
        // what was still to happen holds on to this world
        events = EventQueue()
    }

    private func begin() {
        startStarter()
        for number in clients.indices { startClient(number) }
        for number in watchers.indices { startWatcher(number) }
        for setting in scenario.settings { at(setting.at) { [self] in take(setting) } }
        for step in scenario.steps { at(step.at) { [self] in take(step) } }
        for fault in scenario.faults { at(fault.at) { [self] in commit(fault) } }
        at(scenario.calmAt) { [self] in
            mendDisk()
            endRemoteWorkers()
            if scenario.setsRules { liftRules() }
        }
        if checker.knowsMoments {
            at(scenario.calmAt + Checker.momentsPause) { [self] in checker.checkMoments() }
        }
    }

    /// Who still awaits something, in words.
    private var awaiting: String {
        var names: [String] = []
        func look(_ process: SimulatedProcess?) {
            guard let process, process.isAlive, let deadline = process.nextDeadline else { return }
            names.append("\(process.name) at \(Trace.milliseconds(worldTime(ofBoot: deadline)))")
        }
        clients.forEach(look)
        look(starter)
        look(broker)
        storages.forEach(look)
        configs.forEach(look)
        watchers.forEach(look)
        workers.forEach(look)
        return names.isEmpty ? "no deadline is armed" : names.joined(separator: ", ")
    }

    /// The processes that live.
    var living: [SimulatedProcess] {
        let all: [SimulatedProcess?] =
            clients + watchers + [starter, broker] + storages + configs + workers
        return all.compactMap { $0 }.filter(\.isAlive)
    }

    // MARK: Clients

    private func take(_ step: Scenario.ClientStep) {
        guard let client = clients[step.client], client.isAlive else {
            // he has to wait until he is back
            return after(50 * .millisecond) { [self] in take(step) }
        }
        switch step.deed {
        case .add(let tasks, let waits):
            add(tasks, waits: waits, by: client, givingUpAfter: clientPatience(), again: step)
        case .wait(let tasks): ask(tasks, by: client, again: step) { .wait($0) }
        case .get(let tasks): ask(tasks, by: client, again: step) { .get($0) }
        case .change(let change, let tasks):
            let ids = known(tasks)
            guard !ids.isEmpty else { return }
            let message = ChangeMessage(change, reason: "no more", ids: ids)
            client.begin(.change(message), of: ids)
        case .setRules(let change, let queue): take(change, of: queue, by: client)
        case .compact: client.begin(.compact, of: [])
        }
    }

    /// How long a caller waits; mostly as long as it takes.
    private func clientPatience() -> UInt64? {
        guard !isCalm, !scenario.faults.isEmpty, random.chance(10) else { return nil }
        isSomebodyImpatient = true
        return random.nanoseconds(5 * .millisecond...800 * .millisecond)
    }

    /// Whoever gave up comes back with the same.
    private func comeBack(with step: Scenario.ClientStep) {
        after(random.nanoseconds(10 * .millisecond...1500 * .millisecond)) { [self] in take(step) }
    }

    private func ask(
        _ tasks: [Int],
        by client: SimulatedClient,
        again step: Scenario.ClientStep,
        _ request: ([TaskID]) -> ClientRequest
    ) {
        let ids = known(tasks)
        guard !ids.isEmpty else { return }
        client.begin(request(ids), of: ids, givingUpAfter: clientPatience()) { [weak self] in
            self?.comeBack(with: step)
        }
    }

    /// Tasks that are sure to be there: whoever asks for others is told that there are none.
    private func known(_ tasks: [Int]) -> [TaskID] {
        tasks.map { scenario.tasks[$0].submission.id }.filter { checker.isAcknowledged($0) }
    }

    func add(
        _ tasks: [Int],
        waits: Bool,
        by client: SimulatedClient,
        givingUpAfter patience: UInt64? = nil,
        again step: Scenario.ClientStep? = nil
    ) {
        let submissions = tasks.map { scenario.tasks[$0].submission }
        do {
            let batch = try EnvelopeBatch(submissions)
            client.begin(
                .add(batch, wait: waits),
                of: submissions.map(\.id),
                givingUpAfter: patience
            ) { [weak self] in
                if let step { self?.comeBack(with: step) }
            }
        } catch {
            checker.fail("a task that can't be encoded: \(error)")
        }
    }
}
