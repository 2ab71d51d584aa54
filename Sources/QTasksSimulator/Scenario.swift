// Part of QTasks. License: see LICENSE.

import AppendLog
import QTasksModel
import QTasksStorage
import QTasksWire
import QTasksWorker

/// What a seed stands for: who is there, what they want, and what goes wrong.
struct Scenario {
    /// A worker process, in each of its lives.
    struct Worker {
        var names: [String]
        var slots: Int
        /// It can open the store, and is told of large arguments by their place.
        var readsStore: Bool
        /// The kernel can't show it to the Broker.
        var isRemote: Bool
    }

    /// What one execution of a handler comes to.
    struct Step {
        enum Deed {
            /// It ends like this.
            case end((TaskDelivery) -> TaskOutcome)
            /// It goes on until it is cancelled.
            case hang
            /// It goes on as long as its process lives.
            case goOn
            /// It takes its process with it.
            case kill
        }

        /// How long it takes.
        var time: UInt64
        var deed: Deed
    }

    /// A task and how its handler behaves.
    struct PlannedTask {
        enum Kind {
            case succeeds
            /// Throws so many times first, with retries.
            case failsFirst(Int)
            case failsForGood
            case cancels
            /// Never returns before its time limit.
            case hangs
            /// Nor after it: its worker has to go.
            case ignoresItsEnd
            /// Kills its worker so many times first.
            case poison(Int)
        }

        var submission: TaskSubmission
        var kind: Kind
        var time: UInt64
        var retryAfter: UInt64
    }

    /// What a client does at some time.
    struct ClientStep {
        enum Deed {
            case add(tasks: [Int], waits: Bool)
            case wait(tasks: [Int])
            case get(tasks: [Int])
            case change(TaskChange, tasks: [Int])
            /// `queue pause`, `queue limit`.
            case setRules(QueueChange, queue: String)
            /// `log compact`.
            case compact
        }

        var at: UInt64
        var client: Int
        var deed: Deed
    }

    /// Somebody changes a setting.
    struct Setting {
        var at: UInt64
        var watcher: Int
        var key: String
        /// `nil`: it is taken away.
        var value: [UInt8]?
    }

    struct Fault {
        enum Kind: Equatable {
            case killWorker, killStorage, killBroker, killClient
            case killAll, losePower
            case breakSession
            case pauseWorker, pauseBroker, pauseStorage, pauseClient
            case leave
            /// SIGTERM to the Starter, and `kill -9`.
            case stop, killStarter
            case killGlobalConfig
            /// The wall clock is set by so many nanoseconds.
            case stepClock(Int64)
            /// After so many calls the next of its kind fails.
            case failDisk(SimulatedDisk.Call, after: Int)
            /// So many bytes are left, for so long.
            case fillDisk(room: Int, for: UInt64)
            case rotMeta, rotSegment
            /// Something happens right after the next message on one kind of connection.
            case trap(Address, Trap)
        }

        enum Trap: CaseIterable {
            case killConnecting, killBinding, breakSession, losePower
            /// The sender dies while the receiver is busy.
            case killWhileBusy
        }

        var at: UInt64
        var kind: Kind
    }

    let seed: UInt64
    var config = QueueConfig()

    /// How Storage keeps house: checkpoints all the time, and every history that there can be.
    private(set) var keeping = StorageKeeper.Settings(history: .none)
    private(set) var workers: [Worker] = []
    private(set) var clients = 1
    var tasks: [PlannedTask] = []
    var steps: [ClientStep] = []
    var faults: [Fault] = []

    /// The newest meta page rots at the one moment at which it alone says with which segment the log begins.
    var rotsAtRelease = false

    /// Somebody sets the rules of queues.
    var setsRules = false

    /// Those who follow the settings, and what they change.
    var watchers = 1
    var settings: [Setting] = []

    /// From which size on arguments and results are told by their place: in every other seed none are.
    var placedBytesMin: Int { seed.isMultiple(of: 2) ? .max : 60 + Int(seed % 7) * 20 }

    /// How long running tasks may take to end when the system is stopped.
    var graceMilliseconds: UInt64 = 0

    /// From here on nothing goes wrong any more.
    var calmAt: UInt64

    /// All adds come at once, and wait in line.
    private let isBurst: Bool

    private var numbers: [TaskID: Int] = [:]

    /// Everything the seed decides before the run.
    init(seed: UInt64) {
        self.seed = seed
        var random = SeededRandom(seed: seed &* 0x9E37_79B9_7F4A_7C15 ^ 0x5143)
        calmAt = random.nanoseconds(UInt64.second...5 * .second)
        isBurst = random.chance(30)
        config.maxPayload = 4096
        keeping.checkpointBytes = random.between(1...16) << 10
        if random.chance(50) {
            keeping.history =
                HistoryWindow(
                    seconds: UInt64(random.between(1...60)),
                    bytes: UInt64(random.between(1...64)) << 10
                ) ?? .none
        }
        if random.chance(15) { config.durability = looseLevel(Int(truncatingIfNeeded: seed)) }
        planWorkers(&random)
        clients = random.between(1...3)
        planTasks(&random)
        planSteps(&random)
        planFaults(&random)
        planHost()
        planChanges()
        planMoments()
        planQueues()
        planPurges()
        if keepsShortly { planRetention() }
        planStanding()
    }

    /// A task's place in the plan, as people know it in the trace; -1 for a stranger.
    func number(of id: TaskID) -> Int { numbers[id] ?? -1 }

    /// What a handler does with what was handed to it.
    func step(of delivery: TaskDelivery) -> Step {
        let task = tasks[number(of: delivery.id)]
        let number = number(of: delivery.id)
        func succeed() -> Step.Deed {
            .end { .success(result: Array("\(number) under \($0.lease)".utf8), contentType: nil) }
        }
        func fail(_ message: String) -> TaskFailure {
            TaskFailure(type: "Planned", message: message)
        }
        let deed: Step.Deed =
            switch task.kind {
            case .succeeds: succeed()
            case .failsFirst(let times):
                Int(delivery.failures) >= times
                    ? succeed()
                    : .end { delivery in
                        let limit = delivery.maxAttempts ?? 100
                        let failure = fail("under \(delivery.lease)")
                        guard delivery.failures + 1 < limit else { return .error(failure) }
                        return .retry(
                            failure,
                            afterMilliseconds: task.retryAfter / .millisecond,
                            maxAttempts: limit
                        )
                    }
            case .failsForGood: .end { .error(fail("under \($0.lease)")) }
            case .cancels: .end { .cancel(reason: "under \($0.lease)") }
            case .hangs: .hang
            case .ignoresItsEnd: .goOn
            case .poison(let times): Int(delivery.attempt) > times ? succeed() : .kill
            }
        return Step(time: task.time, deed: deed)
    }

    // MARK: Planning

    private mutating func planWorkers(_ random: inout SeededRandom) {
        for number in 0..<random.between(1...4) {
            // the first knows both names, so that everything can be run
            let names = number == 0 || random.chance(50) ? ["alpha", "beta"] : ["alpha"]
            let slots = random.between(1...4)
            // from the seed, so that everything else stays as it was
            let readsStore = placedBytesMin < .max && (seed >> 1 + UInt64(number)) % 4 != 0
            let isRemote = (seed >> 3 + UInt64(number)) % 8 == 0
            workers.append(
                Worker(names: names, slots: slots, readsStore: readsStore, isRemote: isRemote)
            )
        }
    }

    private mutating func planTasks(_ random: inout SeededRandom) {
        var ids = TaskIDGenerator(seed: (random.next(), random.next()))
        for number in 0..<random.between(isBurst ? 30...70 : 8...40) {
            var submission = TaskSubmission(
                id: ids.next(milliseconds: 1_000_000),
                name: random.chance(70) ? "alpha" : "beta",
                arguments: Array(repeating: UInt8(number), count: random.below(200))
            )
            if random.chance(30) { submission.queue = "other" }
            if random.chance(30) { submission.priority = Int16(random.between(-1...2)) }
            if random.chance(20) {
                submission.start = .after(milliseconds: UInt64(random.below(1500)))
            }
            if random.chance(20) { submission.durability = looseLevel(number) }
            let kind = planKind(&random)
            if case .hangs = kind {
                submission.timeLimitMilliseconds = UInt64(random.between(10...400))
            }
            if random.chance(30) { submission.maxAttempts = UInt32(random.between(1...4)) }
            tasks.append(
                PlannedTask(
                    submission: submission,
                    kind: kind,
                    time: random.chance(80)
                        ? random.nanoseconds(100 * .microsecond...40 * .millisecond)
                        : random.nanoseconds(40 * .millisecond...1500 * .millisecond),
                    retryAfter: random.nanoseconds(0...600 * .millisecond)
                )
            )
            numbers[submission.id] = number
        }
    }

    /// Told once written; in some seeds every other one is synced a little later.
    private func looseLevel(_ number: Int) -> Durability {
        guard seed.isMultiple(of: 3), !number.isMultiple(of: 2) else { return .written }
        return .interval(milliseconds: UInt32(5 + number & 31))
    }

    private func planKind(_ random: inout SeededRandom) -> PlannedTask.Kind {
        switch random.below(100) {
        case ..<66: .succeeds
        case ..<78: .failsFirst(random.between(1...3))
        case ..<84: .failsForGood
        case ..<88: .cancels
        case ..<94: .hangs
        default: .poison(random.chance(50) ? 100 : random.between(1...2))
        }
    }

    private mutating func planSteps(_ random: inout SeededRandom) {
        var number = 0
        while number < tasks.count {
            let count = min(random.between(1...6), tasks.count - number)
            let at = random.nanoseconds(0...(isBurst ? calmAt / 8 : calmAt))
            let batch = Array(number..<number + count)
            let client = random.below(clients)
            steps.append(
                ClientStep(
                    at: at,
                    client: client,
                    deed: .add(tasks: batch, waits: random.chance(50))
                )
            )
            if random.chance(30) {
                // the same again, perhaps by somebody else: one task all the same (P1, P3)
                let later = at + random.nanoseconds(0...2 * .second)
                steps.append(
                    ClientStep(
                        at: later,
                        client: random.below(clients),
                        deed: .add(tasks: batch, waits: random.chance(30))
                    )
                )
            }
            if random.chance(40) {
                let later = at + random.nanoseconds(0...3 * .second)
                let deed: ClientStep.Deed =
                    random.chance(60) ? .wait(tasks: batch) : .get(tasks: batch)
                steps.append(ClientStep(at: later, client: random.below(clients), deed: deed))
            }
            number += count
        }
        steps.sort { $0.at < $1.at }
    }

    private func planTrap(_ random: inout SeededRandom) -> Fault.Trap {
        switch random.below(100) {
        case ..<35: .killConnecting
        case ..<45: .killWhileBusy
        case ..<60: .killBinding
        case ..<95: .breakSession
        default: .losePower
        }
    }

    private mutating func planFaults(_ random: inout SeededRandom) {
        // some runs have none, so that order is checked where nothing excuses it
        guard !random.chance(10) else { return }
        let kinds: [Fault.Kind] = [
            .killWorker, .killWorker, .killWorker, .killStorage, .killStorage, .killBroker,
            .killBroker, .killClient, .killAll, .losePower, .breakSession, .breakSession,
            .breakSession, .breakSession, .pauseWorker, .pauseBroker, .pauseStorage, .pauseClient,
            .leave,
        ]
        for _ in 0..<random.between(1...10) {
            let kind =
                random.chance(40)
                ? Fault.Kind.trap(random.pick(Address.allCases), planTrap(&random))
                : random.pick(kinds)
            faults.append(Fault(at: random.nanoseconds(0...calmAt), kind: kind))
        }
        faults.sort { $0.at < $1.at }
    }
}
