// Part of QTasks. License: see LICENSE.

package import QTasksProcess

/// What the Starter decides: who is started, when a dead child comes back, and the order of a stop.
///
/// ```
///   starting ---ready---> serving ---signal---> draining ---drained---> stopping the Broker
///                                                                            | it ended
///                                     done <---all ended--- stopping the workers
///   Any stop that takes longer than grace + 5 s, and a second signal: everything is killed, which
///   loses nothing.
/// ```
///
/// Seed: the Starter starts only Workers and the Broker, and stops them in the opposite order. No
/// processes, sockets or clocks; time comes in nanoseconds of `CLOCK_BOOTTIME`.
package struct StarterState {
    /// One of the Starter's children.
    package enum Child: Hashable, Sendable {
        case broker
        /// By number, from 0 on; a rolling restart gives new ones.
        case worker(Int)
    }

    /// What is to be done outside.
    package enum Deed: Equatable {
        case start(Child)
        /// SIGTERM to an idle worker.
        case terminate(Child)
        case kill(Child)
        /// Its successor works: SIGTERM to it, with the Broker's knowledge.
        case retire(Child)
        /// Whoever asked for a rolling restart hears that it is over; why before all were replaced, or "".
        case tellRolled(failure: String)
        /// Have the Broker say when nothing is left to do.
        case tellEndWhenIdle
        case tellDrain(graceMilliseconds: UInt64)
        case tellStop
        /// The system serves.
        case announceReady
        case log(String, isWarning: Bool)
        case finish(code: Int32)
    }

    enum Phase: Equatable {
        case serving
        case draining
        case stoppingBroker
        case stoppingWorkers
        case killing(code: Int32)
        case done
    }

    /// How long a stop may take beyond its grace period, in nanoseconds.
    private static let patience: UInt64 = 5_000_000_000

    /// One request often arrives twice: timeout(1) and terminals signal a process and then its group.
    private static let repeatWindow: UInt64 = 200_000_000

    /// How long an idle worker may take to end, in nanoseconds.
    private static let workerPatience: UInt64 = 2_000_000_000

    private let workerCount: Int
    private let graceMilliseconds: UInt64
    private let endsWhenIdle: Bool
    private(set) var phase = Phase.serving
    private(set) var alive: [Child: UInt64] = [:]
    private var policies: [Child: RestartPolicy] = [:]
    private(set) var restarts: [Child: UInt64] = [:]
    /// Workers whose end the Broker has called in order.
    private var expected: Set<Child> = []
    /// The rolling restart that is under way.
    var roll: Roll?
    /// New workers that took too long to join: nobody replaces them.
    var abandoned: Set<Child> = []
    /// The number of the next worker.
    var nextWorker: Int
    private var killAt: UInt64?
    private var stopRequestedAt: UInt64?
    private var isReady = false
    private var isBrokerConnected = false
    var deeds: [Deed] = []

    /// - Parameters:
    ///   - workers: How many to keep.
    ///   - graceMilliseconds: How long running tasks may go on when it is stopped.
    ///   - endsWhenIdle: It stops by itself once nothing is queued, scheduled or running.
    package init(workers: Int, graceMilliseconds: UInt64, endsWhenIdle: Bool = false) {
        workerCount = workers
        nextWorker = workers
        self.graceMilliseconds = graceMilliseconds
        self.endsWhenIdle = endsWhenIdle
    }

    /// What the last events want done, in order.
    package mutating func takeDeeds() -> [Deed] {
        defer { deeds = [] }
        return deeds
    }

    /// When ``timer(now:)`` is to be called; `nil` while nothing is awaited (P8).
    package var nextDeadline: UInt64? {
        (Array(restarts.values) + [killAt, roll?.deadline].compactMap { $0 }).min()
    }

    /// Everything begins: the workers, then the Broker (they wait for each other by themselves).
    package mutating func begin(now: UInt64) {
        for place in 0..<workerCount { start(.worker(place), now) }
        start(.broker, now)
    }

    /// The Broker answers.
    ///
    /// One that was restarted meanwhile knows of no drain.
    package mutating func brokerConnected() {
        isBrokerConnected = true
        if phase == .draining { deeds.append(.tellDrain(graceMilliseconds: graceMilliseconds)) }
        if phase == .serving, endsWhenIdle { deeds.append(.tellEndWhenIdle) }
    }

    /// The Broker says that the store is open.
    package mutating func ready() {
        guard phase == .serving, !isReady else { return }
        isReady = true
        deeds.append(.announceReady)
    }

    /// SIGTERM, SIGINT or SIGHUP: the first one drains, the second one ends it at once.
    package mutating func stopRequested(now: UInt64) {
        if let first = stopRequestedAt, now < first + Self.repeatWindow { return }
        if stopRequestedAt == nil { stopRequestedAt = now }
        switch phase {
        case .serving:
            beginStop(now)
            guard isBrokerConnected else {
                // nobody has been leased anything that we know of: nothing to wait for
                return killAll(code: 0, "stopping before the system was ready")
            }
            phase = .draining
            deeds.append(.log("stopping: tasks that run may end", isWarning: false))
            deeds.append(.tellDrain(graceMilliseconds: graceMilliseconds))
        case .draining, .stoppingBroker, .stoppingWorkers:
            killAll(code: 0, "asked a second time: stopping at once")
        case .killing, .done: break
        }
    }

    /// The Broker found nothing left to do, and drains.
    package mutating func idle(now: UInt64) {
        guard phase == .serving else { return }
        beginStop(now)
        phase = .draining
        deeds.append(.log("nothing is left to do: stopping", isWarning: false))
    }

    /// The Broker says that this worker's end is in order: it killed it, or it has done its share.
    ///
    /// So its successor comes at once, whichever of the two is heard of first.
    package mutating func endsInOrder(_ child: Child, now: UInt64) {
        guard phase == .serving else { return }
        if alive[child] != nil {
            expected.insert(child)
        } else if restarts.removeValue(forKey: child) != nil {
            start(child, now)
        }
    }

    /// No worker holds a task any more.
    package mutating func drained() {
        guard phase == .draining else { return }
        phase = .stoppingBroker
        deeds.append(.tellStop)
    }

    /// A child ended and was reaped.
    package mutating func ended(_ child: Child, _ report: ExitReport, now: UInt64) {
        let startedAt = alive.removeValue(forKey: child) ?? now
        if child == .broker { isBrokerConnected = false }
        switch phase {
        case .serving, .draining:
            if phase == .draining, child != .broker { return }
            if endedInRoll(child, report, now) { return }
            if expected.remove(child) != nil {
                deeds.append(.log("\(child) has made room for a new one", isWarning: false))
                return start(child, now)
            }
            restart(child, report, startedAt, now)
        case .stoppingBroker:
            if child == .broker { stopWorkers(now) }
        case .stoppingWorkers, .killing: finishIfAllEnded()
        case .done: break
        }
    }

    /// A start failed: as if the child had ended at once.
    package mutating func failedToStart(_ child: Child, _ reason: String, now: UInt64) {
        deeds.append(.log("\(child) can't be started: \(reason)", isWarning: true))
        let report = ExitReport(
            pid: 0,
            cause: .exited(code: 71),
            maxResidentBytes: 0,
            userMicroseconds: 0,
            systemMicroseconds: 0
        )
        ended(child, report, now: now)
    }

    package mutating func timer(now: UInt64) {
        for (child, at) in restarts where at <= now {
            restarts[child] = nil
            start(child, now)
        }
        rollTimer(now: now)
        if let killAt, killAt <= now {
            self.killAt = nil
            switch phase {
            case .draining, .stoppingBroker: killAll(code: 0, "the stop takes too long")
            case .stoppingWorkers, .killing: for child in alive.keys { deeds.append(.kill(child)) }
            case .serving, .done: break
            }
        }
    }

    // MARK: Steps

    private mutating func beginStop(_ now: UInt64) {
        if roll != nil { endRoll(failure: "the system is being stopped") }
        restarts = restarts.filter { $0.key == .broker }
        killAt = now + graceMilliseconds * 1_000_000 + Self.patience
    }

    /// Whether it will be started again, or has been asked for already.
    package func isComing(_ child: Child) -> Bool {
        alive[child] != nil || restarts[child] != nil
    }

    /// Nobody needs it any more.
    mutating func dropRestart(of child: Child) {
        restarts[child] = nil
        policies[child] = nil
    }

    mutating func start(_ child: Child, _ now: UInt64) {
        alive[child] = now
        deeds.append(.start(child))
    }

    private mutating func restart(
        _ child: Child,
        _ report: ExitReport,
        _ startedAt: UInt64,
        _ now: UInt64
    ) {
        var policy = policies[child] ?? RestartPolicy()
        let decision = policy.childEnded(at: now, startedAt: min(startedAt, now), report: report)
        policies[child] = policy
        switch decision {
        case .restart(let at):
            deeds.append(.log("\(child) ended: \(report)", isWarning: true))
            if at <= now { start(child, now) } else { restarts[child] = at }
        case .giveUp(let reason):
            killAll(code: ExitReport.codeOfPermanentFailure, "\(child) ended: \(reason)")
        }
    }

    private mutating func stopWorkers(_ now: UInt64) {
        phase = .stoppingWorkers
        killAt = now + Self.workerPatience
        deeds.append(.log("the Broker has stopped; the workers follow", isWarning: false))
        for child in alive.keys { deeds.append(.terminate(child)) }
        finishIfAllEnded()
    }

    private mutating func killAll(code: Int32, _ reason: String) {
        phase = .killing(code: code)
        roll = nil
        restarts = [:]
        killAt = nil
        deeds.append(.log(reason, isWarning: true))
        for child in alive.keys { deeds.append(.kill(child)) }
        finishIfAllEnded()
    }

    private mutating func finishIfAllEnded() {
        guard alive.isEmpty else { return }
        var code: Int32 = 0
        if case .killing(let told) = phase { code = told }
        phase = .done
        killAt = nil
        deeds.append(.finish(code: code))
    }
}

extension StarterState.Child: CustomStringConvertible {
    package var description: String {
        switch self {
        case .broker: "the Broker"
        case .worker(let place): "worker \(place + 1)"
        }
    }
}
