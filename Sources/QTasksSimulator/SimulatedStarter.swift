// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksProcess
import QTasksStarter
import QTasksWire

/// The Starter's process around the production core, as `StarterLoop` is.
final class SimulatedStarter: SimulatedProcess {
    typealias Child = StarterState.Child

    private var state: StarterState
    private var broker: ConnectingSocket?
    private var exits = ExitOutbox()
    private var children: [Child: SimulatedProcess] = [:]
    private var hasBegun = false
    private var isAskedToStop = false

    /// pidfds that are ready.
    private var dead: [(child: Child, process: SimulatedProcess)] = []

    init(_ world: World, life: Int) {
        state = StarterState(
            workers: world.scenario.workers.count,
            graceMilliseconds: world.scenario.graceMilliseconds
        )
        super.init(world, ProcessName(role: .starter, life: life))
        broker = world.network.connect(to: .workers, by: self)
        wake()
    }

    /// SIGTERM.
    func stop() {
        isAskedToStop = true
        wake()
    }

    /// A child's pidfd is ready.
    func childEnded(_ process: SimulatedProcess) {
        guard isAlive, let child = children.first(where: { $0.value === process })?.key else {
            return
        }
        dead.append((child, process))
        wake()
    }

    override var nextDeadline: UInt64? { state.nextDeadline }

    override var hasUnread: Bool { broker.map { world.network.hasArrived(on: $0) } ?? false }

    override func cleanUp() {
        // PR_SET_PDEATHSIG
        for process in world.started(by: self) {
            world.after(world.random.nanoseconds(0...2 * .millisecond)) {
                process.end("its parent died")
            }
        }
        children = [:]
        // sockets hold on to their owner
        broker = nil
        world.starterEnded(self)
    }

    override func turn(timerFired: Bool) {
        let now = world.now.monotonic
        if !hasBegun {
            hasBegun = true
            state.begin(now: now)
        }
        let ended = dead
        dead = []
        for (child, process) in ended { reap(child, process, now) }
        if isAskedToStop {
            isAskedToStop = false
            state.stopRequested(now: now)
        }
        receive()
        if timerFired { state.timer(now: now) }
        carryOut()
    }

    private func reap(_ child: Child, _ process: SimulatedProcess, _ now: UInt64) {
        children[child] = nil
        let report = ExitReport(
            pid: process.pid,
            cause: process.cause,
            maxResidentBytes: 0,
            userMicroseconds: 0,
            systemMicroseconds: 0
        )
        if case .worker = child { tellExit(report) }
        state.ended(child, report, now: now)
    }

    private func tellExit(_ report: ExitReport) {
        var message = ExitMessage(
            pid: report.pid,
            startTime: UInt64(report.pid),
            wasSignal: false,
            code: 0,
            maxResidentBytes: 0,
            userMicroseconds: 0,
            systemMicroseconds: 0
        )
        switch report.cause {
        case .exited(let code): message.code = code
        case .signaled(let number): (message.wasSignal, message.code) = (true, number)
        }
        send(exits.add(message))
    }

    private func receive() {
        guard let broker else { return }
        for bytes in world.network.receive(on: broker, atMost: world.turnLimit()) {
            let header = bytes.withUnsafeBytes { bytes -> MessageHeader? in
                var reader = WireReader(bytes)
                return try? MessageHeader.read(from: &reader)
            }
            switch header?.command {
            case .welcome:
                state.brokerConnected()
                send(WireWriter(.starterHello).bytes)
                for message in exits.messages { send(message) }
            case .exit: exits.taken(header?.number ?? 0)
            case .ready: state.ready()
            case .drained: state.drained()
            default: break
            }
        }
    }

    private func send(_ message: [UInt8]) {
        guard let broker else { return }
        _ = world.network.send(message, on: broker)
    }

    // MARK: Deeds

    private func carryOut() {
        var deeds = state.takeDeeds()
        while isAlive, !deeds.isEmpty {
            for deed in deeds where isAlive { carryOut(deed) }
            deeds = state.takeDeeds()
        }
    }

    private func carryOut(_ deed: StarterState.Deed) {
        switch deed {
        case .start(.broker): children[.broker] = world.startBroker(by: self)
        case .start(.worker(let place)):
            children[.worker(place)] = world.startWorker(place, by: self)
        case .terminate(let child): (children[child] as? SimulatedWorker)?.leave()
        case .kill(let child): children[child]?.end("killed by the Starter")
        case .tellDrain(let grace):
            var message = WireWriter(.drain)
            message.integer(grace)
            send(message.bytes)
        case .tellStop: send(WireWriter(.stop).bytes)
        // nobody asks for a rolling restart here, nor for an end once all is done
        case .retire, .tellRolled, .tellEndWhenIdle, .announceReady: break
        case .log(let text, _): world.trace(name, .note(text))
        case .finish(let code):
            if code != 0 { world.checker.fail("the system ends by itself with code \(code)") }
            end("the system is stopped", .exited(code: code))
        }
    }
}
