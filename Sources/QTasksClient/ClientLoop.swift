// Part of QTasks. License: see LICENSE.

import Logging
import QTasksModel
import QTasksWire
import Synchronization
import ZeroMQ

/// Turns what happens at the socket, in the inbox and on the clock into events of a client's core.
///
/// Does what ``ClientState`` decides. Belongs to one thread from beginning to end.
struct ClientLoop: ~Copyable {
    /// Messages that are read before anything is sent, so that one side can't starve the other.
    private static let messagesPerTurn = 256

    private let inbox: ClientInbox
    private let logger: Logger
    private var state: ClientState
    private var waiters: [UInt64: Waiter] = [:]
    private let socket: Socket
    private var frames = Frames()
    private var poll: PollLoop
    private var isStopping = false

    /// Runs a client until it is stopped; then, or where libzmq fails, every call ends with an
    /// error.
    static func run(
        _ address: BrokerAddress,
        in context: Context?,
        inbox: ClientInbox,
        logger: Logger
    ) {
        do throws(ZeroMQError) {
            var loop = try ClientLoop(address, in: context, inbox: inbox, logger: logger)
            do throws(ZeroMQError) {
                try loop.run()
                loop.end(with: QTasksError(.connectionLost, "the connection was closed"))
            } catch {
                loop.end(with: .failed(address, error))
            }
        } catch {
            let failure = QTasksError.failed(address, error)
            for command in inbox.close(saying: failure) {
                if case .begin(_, _, _, let waiter) = command { waiter.resume(.failure(failure)) }
            }
        }
    }

    private init(
        _ address: BrokerAddress,
        in context: Context?,
        inbox: ClientInbox,
        logger: Logger
    ) throws(ZeroMQError) {
        let ownContext = if let context { context } else { try Context() }
        let socket = try Socket(.dealer, in: ownContext, options: .dealer)
        try socket.connect(to: address.endpoint)
        let poll = try PollLoop()
        try poll.watch(descriptor: inbox.doorbell.descriptor, token: 0)
        self.inbox = inbox
        self.logger = logger
        self.socket = socket
        self.poll = poll
        state = ClientState(broker: address.description)
    }

    private mutating func run() throws(ZeroMQError) {
        let items = [socket.pollItem]
        while !isStopping {
            try poll.setTimer(at: state.nextDeadline)
            let ready = try poll.wait(items)
            let now = MonotonicClock.nowNanoseconds()
            if ready.isReadable(0) { try receive(now: now) }
            if !ready.tokens.isEmpty { takeCommands(now: now) }
            if ready.timerFired { state.timer(now: now) }
            state.flush(now: now)
            try send()
            tell()
        }
    }

    private mutating func receive(now: UInt64) throws(ZeroMQError) {
        for _ in 0..<Self.messagesPerTurn {
            guard try socket.receive(into: &frames) else { break }
            guard frames.count == 1 else { continue }  // no message of this protocol
            frames.withBytes(at: 0) { bytes in
                log("received", bytes)
                state.received(bytes, now: now)
            }
        }
        frames.clear()
    }

    private mutating func takeCommands(now: UInt64) {
        inbox.doorbell.clear()
        for command in inbox.take() {
            switch command {
            case .begin(let call, let request, let deadline, let waiter):
                waiters[call] = waiter
                state.begin(call, request, deadline: deadline, now: now)
            case .forget(let call):
                state.forget(call)
                waiters.removeValue(forKey: call)?.resume(.failure(CancellationError()))
            case .stop:
                isStopping = true
            }
        }
    }

    private mutating func send() throws(ZeroMQError) {
        for message in state.takeMessages() {
            guard try socket.send(message) == .sent else {
                // nobody is there: the next session says all of it again
                return state.disconnected()
            }
            message.withUnsafeBytes { log("sent", $0) }
        }
    }

    /// Wakes the callers whose calls have ended: once a turn, and with no lock held.
    private mutating func tell() {
        let isInSession = state.session != nil
        if inbox.isInSession.load(ordering: .relaxed) != isInSession {
            inbox.isInSession.store(isInSession, ordering: .relaxed)
        }
        for completion in state.takeCompletions() {
            let result: Result<ClientReply, any Error> = completion.result.mapError { $0 }
            waiters.removeValue(forKey: completion.call)?.resume(result)
        }
    }

    private mutating func end(with error: QTasksError) {
        inbox.isInSession.store(false, ordering: .relaxed)
        for command in inbox.close(saying: error) {
            if case .begin(_, _, _, let waiter) = command { waiter.resume(.failure(error)) }
        }
        state.endAll(with: error)
        tell()
    }

    private func log(_ event: String, _ bytes: UnsafeRawBufferPointer) {
        guard logger.logLevel <= .debug else { return }
        var reader = WireReader(bytes)
        guard let header = try? MessageHeader.read(from: &reader) else { return }
        logger.debug(
            "\(event) \(header.command)",
            metadata: [
                "component": "client", "event": "\(header.command)", "peer": "broker",
                "bytes": "\(bytes.count)", "number": "\(header.number)",
            ]
        )
    }
}

extension QTasksError {
    /// libzmq or Linux failed under a client.
    static func failed(_ address: BrokerAddress, _ error: ZeroMQError) -> QTasksError {
        QTasksError(.internalError, "cannot talk to \(address.description)", cause: error)
    }
}
