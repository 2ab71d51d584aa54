// Part of QTasks. License: see LICENSE.

import Glibc
package import Logging
import QTasksGlobalConfig
package import QTasksModel
package import QTasksProcess
import QTasksWire
import ZeroMQ

/// The Starter's process: children, signals and the connection to the Broker become events of
/// ``StarterState``.
///
/// Belongs to one thread that lives as long as the process: the kernel ties the children's lives to
/// it.
package final class StarterLoop {
    private static let signalToken: UInt64 = 0

    private let home: HomeDirectory
    private let config: QueueConfig
    private let runID: String
    private let logger: Logger
    private let onReady: (@Sendable () -> Void)?

    private var state: StarterState
    private var children: [StarterState.Child: ChildProcess] = [:]
    private var identities: [StarterState.Child: ProcessIdentity] = [:]
    /// Also of those that were buried, until their successors have started.
    private var pids: [StarterState.Child: Int32] = [:]
    private var tails: [StarterState.Child: UInt64] = [:]
    private var exits = ExitOutbox()
    private let stderr: StderrTails?
    private let program = WorkerProgram()
    /// With a terminal it means that the terminal is gone.
    private let hangUpRolls = isatty(STDIN_FILENO) == 0
    private var tokens: [UInt64: StarterState.Child] = [:]
    private var nextToken: UInt64 = 1
    private let signals: SignalDescriptor
    private let context: Context
    private let broker: Socket
    private var settings: ConfigSubscription
    private var poll: PollLoop
    private var frames = Frames()
    private var exitCode: Int32?

    /// Connects to the Broker's socket, which needn't be there yet; starts nothing.
    ///
    /// - Parameters:
    ///   - home: Prepared, and locked by the caller.
    ///   - config: What the children are started with.
    ///   - workers: How many worker processes to keep.
    ///   - runID: The same in all processes of this system.
    ///   - endsWhenIdle: It stops by itself once nothing is left to do.
    ///   - logger: Where lines go.
    ///   - onReady: Called once, on the loop's thread, when the system serves.
    /// - Throws: `ProcessError` or `ZeroMQError` where the process has no descriptor left.
    package init(
        home: HomeDirectory,
        config: QueueConfig,
        workers: Int,
        runID: String,
        endsWhenIdle: Bool,
        logger: Logger,
        onReady: (@Sendable () -> Void)? = nil
    ) throws {
        self.home = home
        self.config = config
        self.runID = runID
        self.logger = logger
        self.onReady = onReady
        let grace = config.grace.components
        let milliseconds = grace.seconds * 1000 + grace.attoseconds / 1_000_000_000_000_000
        state = StarterState(
            workers: workers,
            graceMilliseconds: UInt64(milliseconds),
            endsWhenIdle: endsWhenIdle
        )
        stderr = workers > 0 ? try StderrTails() : nil
        signals = try SignalDescriptor([SIGTERM, SIGINT, SIGHUP, SIGCHLD])
        context = try Context()
        broker = try Socket(.dealer, in: context, options: .dealer)
        poll = try PollLoop()
        try poll.watch(descriptor: signals.descriptor, token: Self.signalToken)
        try broker.connect(to: home.endpoint(.workers))
        settings = try ConfigSubscription(
            in: context,
            endpoints: ConfigEndpoints(
                requests: home.endpoint(.config),
                updates: home.endpoint(.configUpdates)
            ),
            now: MonotonicClock.nowNanoseconds()
        )
    }

    /// Runs the system until it is stopped.
    ///
    /// - Returns: The exit code: 0 after a stop, 78 where a part would fail again.
    package func run() throws -> Int32 {
        state.begin(now: MonotonicClock.nowNanoseconds())
        carryOut()
        while exitCode == nil {
            try turn()
            carryOut()
        }
        stderr?.flush(withinMilliseconds: 1000)
        return exitCode ?? 0
    }

    private func turn() throws {
        try poll.setTimer(
            at: [state.nextDeadline, settings.nextDeadline].compactMap { $0 }.min()
        )
        let ready = try poll.wait([broker.pollItem] + settings.pollItems)
        for token in ready.tokens {
            if token == Self.signalToken { takeSignals() } else { reap(token) }
        }
        if ready.isReadable(0) { try receive() }
        for change in try settings.turn(now: MonotonicClock.nowNanoseconds()) {
            RoleLogging.follow(change, initial: config.logLevel)
        }
        if ready.timerFired { state.timer(now: MonotonicClock.nowNanoseconds()) }
    }

    // MARK: Events

    private func takeSignals() {
        while let signal = signals.next() {
            if signal == SIGCHLD {
                reapStrangers()
            } else if signal == SIGHUP, hangUpRolls {
                roll()
            } else {
                logger.info(
                    "asked to stop",
                    metadata: ["event": "signal", "signal": "\(SignalName.of(signal))"]
                )
                state.stopRequested(now: MonotonicClock.nowNanoseconds())
            }
        }
    }

    /// Replaces the workers by those of the program that has our path now.
    private func roll() {
        guard !state.isRolling else { return }
        do throws(ProcessError) {
            try program.renew()
            state.rollRequested(now: MonotonicClock.nowNanoseconds())
        } catch {
            carryOut(.tellRolled(failure: "\(error)"))
        }
    }

    /// As PID 1 of a container, or as a subreaper, whatever lost its parent is ours to wait for.
    private func reapStrangers() {
        let known = Set(children.values.map(\.pid))
        while case .stranger = Strangers.reapNext(known: known) {}
    }

    private func reap(_ token: UInt64) {
        guard let child = tokens[token], let process = children[child],
            let report = process.reap()
        else { return }
        try? poll.unwatch(descriptor: process.pidfd)
        tokens[token] = nil
        children[child] = nil
        if case .worker = child { tellExit(child, report) }
        identities[child] = nil
        logger.debug(
            "reaped",
            metadata: ["event": "reaped", "child": "\(child)", "cause": "\(report)"]
        )
        state.ended(child, report, now: MonotonicClock.nowNanoseconds())
        if !state.isComing(child) { pids[child] = nil }
        reapStrangers()
    }

    private func tellExit(_ child: StarterState.Child, _ report: ExitReport) {
        var message = ExitMessage(
            pid: report.pid,
            startTime: identities[child]?.startTime ?? 0,
            wasSignal: false,
            code: 0,
            maxResidentBytes: report.maxResidentBytes,
            userMicroseconds: report.userMicroseconds,
            systemMicroseconds: report.systemMicroseconds,
            errorTail: tails.removeValue(forKey: child).flatMap { stderr?.collect($0) } ?? []
        )
        switch report.cause {
        case .exited(let code): message.code = code
        case .signaled(let number):
            message.wasSignal = true
            message.code = number
        }
        send(exits.add(message))
    }

    private func receive() throws {
        while try broker.receive(into: &frames) {
            // the Broker is of this build: what can't be read is no message of its
            frames.withBytes(at: 0) { try? receive($0) }
        }
    }

    private func receive(_ bytes: UnsafeRawBufferPointer) throws {
        var reader = WireReader(bytes)
        let header = try MessageHeader.read(from: &reader)
        let now = MonotonicClock.nowNanoseconds()
        switch header.command {
        case .welcome:
            send(WireWriter(.starterHello).bytes)
            for message in exits.messages { send(message) }
            state.brokerConnected()
        case .ready: state.ready()
        case .drained: state.drained()
        case .idle: state.idle(now: now)
        case .exit: exits.taken(header.number)
        case .roll: roll()
        case .joined:
            if let child = child(of: try WorkerNews.read(from: &reader)) {
                state.joined(child, now: now)
            }
        case .killed:
            if let child = child(of: try WorkerNews.read(from: &reader)) {
                state.endsInOrder(child, now: now)
            }
        default: break
        }
    }

    /// The child that a worker is, or that has started it in its group.
    private func child(of pid: Int32) -> StarterState.Child? {
        if let child = pids.first(where: { $0.value == pid })?.key { return child }
        let group = getpgid(pid)
        return pids.first { $0.value == group }?.key
    }

    // MARK: Deeds

    private func carryOut() {
        // a start that fails makes further deeds
        var deeds = state.takeDeeds()
        while !deeds.isEmpty {
            for deed in deeds { carryOut(deed) }
            deeds = state.takeDeeds()
        }
    }

    private func carryOut(_ deed: StarterState.Deed) {
        switch deed {
        case .start(let child): start(child)
        case .terminate(let child): children[child]?.kill(SIGTERM)
        case .kill(let child): children[child]?.killGroup(SIGKILL)
        case .retire(let child):
            guard let process = children[child] else { return }
            send(WorkerNews.encoded(.retire, pid: process.pid))
            process.kill(SIGTERM)
        case .tellRolled(let failure):
            if !failure.isEmpty { program.goBack() }
            send(RestartMessage.answer(.roll, number: 0, failure: failure))
        case .tellEndWhenIdle: send(WireWriter(.idle).bytes)
        case .tellDrain(let grace):
            var message = WireWriter(.drain)
            message.integer(grace)
            send(message.bytes)
        case .tellStop: send(WireWriter(.stop).bytes)
        case .announceReady:
            logger.info(
                "ready",
                metadata: [
                    "event": "ready", "home": "\(home.path)", "workers": "\(children.count - 1)",
                ]
            )
            onReady?()
        case .log(let text, let isWarning):
            logger.log(level: isWarning ? .warning : .info, "\(text)")
        case .finish(let code): exitCode = code
        }
    }

    private func start(_ child: StarterState.Child) {
        let role =
            switch child {
            case .broker: "broker"
            case .worker: config.workerCommand == nil ? "worker" : WorkerLauncher.role
            }
        do {
            var settings = config.handedOver
            settings["home"] = home.path
            let handover = RoleHandover(
                role: role,
                parent: getpid(),
                runID: runID,
                settings: settings
            )
            let process = try spawn(child, role, handover)
            try poll.watch(descriptor: process.pidfd, token: nextToken)
            tokens[nextToken] = child
            nextToken += 1
            children[child] = process
            identities[child] = ProcessIdentity.of(pid: process.pid)
            pids[child] = process.pid
        } catch {
            state.failedToStart(child, "\(error)", now: MonotonicClock.nowNanoseconds())
        }
    }

    private func spawn(
        _ child: StarterState.Child,
        _ role: String,
        _ handover: RoleHandover
    ) throws(ProcessError) -> ChildProcess {
        let arguments = [role, "--home", home.path]
        guard case .worker = child else {
            return try .spawn(arguments: arguments, environment: handover.environment)
        }
        let pipe = stderr?.open()
        defer { if let pipe { close(pipe.writeEnd) } }
        tails[child] = pipe?.token
        return try .spawn(
            executable: program.executable,
            arguments: arguments,
            environment: handover.environment,
            stderr: pipe?.writeEnd ?? -1
        )
    }

    private func send(_ message: [UInt8]) {
        // a Broker that is away hears everything that counts when it is back
        _ = try? broker.send(message)
    }
}

extension QueueConfig {
    /// The settings as a role's handover carries them.
    package var handedOver: [String: String] {
        var settings: [String: String] = [:]
        for setting in Setting.allCases { settings[setting.rawValue] = text(of: setting) }
        return settings
    }

    /// The settings that a handover carries.
    package init(handedOver settings: [String: String]) throws(QTasksError) {
        self.init()
        for setting in Setting.allCases {
            if let text = settings[setting.rawValue] {
                try set(setting, to: text, saying: setting.rawValue)
            }
        }
        try check()
    }
}
