// Part of QTasks. License: see LICENSE.

import QTasksClient
import QTasksModel
import QTasksWire

/// A client's process around the production core, as `ClientLoop` is.
final class SimulatedClient: SimulatedProcess {
    private var state = ClientState(broker: "the simulated system")
    private var socket: ConnectingSocket?
    private var commands: [(call: UInt64, ClientRequest, deadline: UInt64?)] = []
    private var callNext: UInt64 = 1

    /// A call that has not ended.
    private struct Call {
        var ids: [TaskID]
        /// What is changed of them, where that is what is wanted.
        var change: TaskChange?
        /// What is changed of a queue.
        var rules: QueueMessage?
        /// When whoever called gives up, in nanoseconds of `CLOCK_BOOTTIME`.
        var deadline: UInt64?
        /// What he does when he has.
        var comeBack: () -> Void
    }

    private var calls: [UInt64: Call] = [:]

    init(_ world: World, number: Int, life: Int) {
        super.init(world, ProcessName(role: .client, number: number, life: life))
        socket = world.network.connect(to: .clients, by: self)
    }

    /// A caller wants something.
    ///
    /// - Parameters:
    ///   - request: What it is.
    ///   - ids: The tasks it is about.
    ///   - wait: After how many nanoseconds he gives up; `nil`: never.
    ///   - comeBack: Called once he has.
    func begin(
        _ request: ClientRequest,
        of ids: [TaskID],
        givingUpAfter wait: UInt64? = nil,
        comeBack: @escaping () -> Void = {}
    ) {
        let deadline = wait.map { world.now.monotonic + $0 }
        var call = Call(ids: ids, deadline: deadline, comeBack: comeBack)
        if case .change(let message) = request { call.change = message.change }
        if case .queue(let message) = request { call.rules = message }
        calls[callNext] = call
        commands.append((callNext, request, deadline))
        callNext += 1
        wake()
    }

    /// The tasks of calls that have not ended.
    var awaited: [TaskID] { calls.values.flatMap(\.ids).sorted() }

    /// Whether a call has not ended.
    var isWaiting: Bool { !calls.isEmpty }

    override var nextDeadline: UInt64? { state.nextDeadline }

    override var hasUnread: Bool { socket.map { world.network.hasArrived(on: $0) } ?? false }

    override func cleanUp() {
        // sockets hold on to their owner
        socket = nil
        calls = [:]
    }

    override func turn(timerFired: Bool) {
        guard let socket else { return }
        let now = world.now.monotonic
        for bytes in world.network.receive(on: socket, atMost: world.turnLimit()) {
            bytes.withUnsafeBytes { state.received($0, now: now) }
        }
        for (call, request, deadline) in commands {
            state.begin(call, request, deadline: deadline, now: now)
        }
        commands = []
        if timerFired { state.timer(now: now) }
        state.flush(now: now)
        for message in state.takeMessages() {
            guard world.network.send(message, on: socket) else {
                state.disconnected()
                break
            }
        }
        for completion in state.takeCompletions() { complete(completion) }
        if state.malformedCount > 0 { world.checker.fail("a client got a message it can't read") }
    }

    private func complete(_ completion: ClientCompletion) {
        guard let call = calls.removeValue(forKey: completion.call) else {
            return world.checker.fail("call \(completion.call) of \(name) ended twice")
        }
        let ids = call.ids
        if let deadline = call.deadline, deadline <= world.now.monotonic {
            if completion.isIncomplete {
                world.count(.clientGivesUp)
                return call.comeBack()
            }
        }
        switch completion.result {
        case .success(.added(let ids, let failures)):
            for (index, id) in ids.enumerated() {
                world.checker.clientHeard(of: id, failure: failures[index])
            }
        case .success(.reports(let reports, let ids)):
            guard reports.count == ids.count else {
                return world.checker.fail("\(reports.count) reports of \(ids.count) tasks")
            }
            for (id, report) in zip(ids, reports) { world.checker.clientHeard(of: id, report) }
        case .success(.changed(let receipts)):
            guard let change = call.change, receipts.count == ids.count else {
                return world.checker.fail("\(receipts.count) receipts of \(ids.count) changes")
            }
            for receipt in receipts { world.checker.clientHeard(receipt, of: change) }
        case .success(.queueRules(let rules)):
            guard let message = call.rules else {
                return world.checker.fail("\(name) hears of rules that it didn't ask for")
            }
            world.checker.clientHeard(rules, of: message)
        case .success(.pong), .success(.inspected), .success(.compacted), .success(.restarted):
            break
        // Storage was killed twice before it had opened, or the system is stopped: nobody compacts or
        // changes anything then
        case .failure(let error)
        where (ids.isEmpty || call.change != nil)
            && (error.code == .storageUnavailable
                || error.code == .stopping && world.hasBeenStopped):
            break
        case .failure(let error): world.checker.fail("\(name): \(error)")
        }
    }
}

extension ClientCompletion {
    /// Whether somebody has to ask again to know everything.
    fileprivate var isIncomplete: Bool {
        switch result {
        case .success(.added(_, let failures)): !failures.isEmpty
        case .success(.reports(let reports, _)):
            reports.contains { report in
                switch report {
                case .timedOut, .failed: true
                case .record, .notFound: false
                }
            }
        case .success(.pong), .success(.inspected), .success(.compacted), .success(.changed),
            .success(.restarted), .success(.queueRules):
            false
        case .failure: true
        }
    }
}
