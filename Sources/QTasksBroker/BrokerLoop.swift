// Part of QTasks. License: see LICENSE.

import AppendLog
import Glibc
package import Logging
import QTasksGlobalConfig
import QTasksModel
package import QTasksProcess
import QTasksWire
import Synchronization
import ZeroMQ

/// The Broker's process: turns sockets, pidfds and time into events of ``BrokerState``, and carries
/// out what it decides.
///
/// Belongs to one thread, which also starts Storage (recovery.md, H13).
package final class BrokerLoop {
    /// How many messages of one socket are taken in a turn before the others have theirs.
    private static let messagesPerTurn = 256

    private let home: HomeDirectory
    private let logger: Logger
    private let context: Context
    private let records: LogRecords
    private let returns: ReturnedBytes
    private let clients: Socket
    private let workers: Socket
    private var state: BrokerState
    private var storage: StorageLink
    private var watched = WatchedWorkers()
    private var config: ConfigSubscription
    private let initialLogLevel: String
    private var poll: PollLoop
    private var alarm: WallClockAlarm
    private var frames = Frames()
    private var exitCode: Int32?

    /// Binds the Broker's sockets and starts Storage.
    ///
    /// - Throws: `ZeroMQError` where a socket can't be bound, `ProcessError` where Storage can't be started.
    package init(
        settings: BrokerState.Settings,
        home: HomeDirectory,
        handover: RoleHandover,
        logger: Logger
    ) throws {
        self.home = home
        self.logger = logger
        initialLogLevel = settings.config.logLevel
        let limit = Int64(settings.config.maxPayload) + 1 << 20
        context = try Context()
        records = LogRecords(home.storePath)
        returns = ReturnedBytes(doorbell: try Doorbell())
        clients = try Socket(.router, in: context, options: .router(maxMessageBytes: limit))
        workers = try Socket(.router, in: context, options: .router(maxMessageBytes: limit))
        state = BrokerState(settings: settings)
        poll = try PollLoop()
        alarm = try WallClockAlarm()
        try poll.watch(descriptor: alarm.descriptor, token: WallClockAlarm.token)
        try poll.watch(descriptor: returns.doorbell.descriptor, token: ReturnedBytes.token)
        try clients.bind(to: home.endpoint(.clients))
        try workers.bind(to: home.endpoint(.workers))
        if let listen = settings.config.listen { try clients.bind(to: listen) }
        config = try ConfigSubscription(
            in: context,
            endpoints: ConfigEndpoints(
                requests: home.endpoint(.config),
                updates: home.endpoint(.configUpdates)
            ),
            now: MonotonicClock.nowNanoseconds()
        )
        storage = StorageLink(home: home, handover: handover)
        if settings.config.listen != nil {
            let endpoint = try clients.lastEndpoint
            logger.notice(
                "clients are served on TCP too: every user of this host can reach it",
                metadata: ["event": "listening", "endpoint": "\(endpoint)"]
            )
        }
    }

    /// Serves until the system is stopped.
    ///
    /// - Returns: The process's exit code.
    package func run() throws -> Int32 {
        try storage.start(in: context, watching: poll, now: MonotonicClock.nowNanoseconds())
        let items = [clients.pollItem, workers.pollItem] + config.pollItems
        while exitCode == nil { try turn(items) }
        return exitCode ?? 0
    }

    /// One turn: everything that is there, up to a bound, then everything that follows from it.
    private func turn(_ lasting: [PollItem]) throws {
        try poll.setTimer(at: earliestDeadline)
        try alarm.set(at: state.nextWallDeadline)
        var items = lasting
        if let item = storage.pollItem { items.append(item) }
        let ready = try poll.wait(items)
        state.advance(to: .current)
        state.isTracing = logger.logLevel <= .debug
        if items.count > lasting.count, ready.isReadable(lasting.count) { try receiveStorage() }
        if ready.isReadable(1) || !ready.tokens.isEmpty {
            try receiveWorkers(isDeathNear: !ready.tokens.isEmpty)
        }
        for token in ready.tokens { try descriptorReady(token) }
        if ready.isReadable(0) { try receiveClients() }
        if ready.isReadable(2) || ready.isReadable(3) || ready.timerFired { try followConfig() }
        if ready.timerFired {
            state.timer(now: .current)
            try storage.timer(in: context, watching: poll, now: MonotonicClock.nowNanoseconds())
        }
        try carryOut(state.flush())
        watched.forgetStrangers()
    }

    private var earliestDeadline: UInt64? {
        [state.nextDeadline, storage.restartAt, config.nextDeadline].compactMap { $0 }.min()
    }

    private func followConfig() throws {
        for change in try config.turn(now: MonotonicClock.nowNanoseconds()) {
            RoleLogging.follow(change, initial: initialLogLevel)
        }
    }

    // MARK: Receiving

    private func receiveClients() throws {
        for _ in 0..<Self.messagesPerTurn {
            guard try clients.receive(into: &frames) else { return }
            let session = frames.routingID(at: 0)
            guard !state.shallCut(session) else {
                cutConnection()
                continue
            }
            guard frames.count == 2, !frames.overflowed else {
                let refusal = Self.refusalOfFrames
                let isMark = state.sends(refusal.count, to: session)
                try send(refusal, to: session, isMark: isMark)
                continue
            }
            frames.withBytes(at: 1) { bytes in
                state.clientMessage(bytes, from: session) { frames.keep(at: 1) }
            }
        }
    }

    /// Ends the connection that the received message came on: libzmq finds it gone, and drops what was
    /// queued for it.
    ///
    /// The descriptor may be another connection's by now: that one would be made again, and what was
    /// unanswered on it said again.
    private func cutConnection() {
        if let descriptor = frames.sourceDescriptor { shutdown(descriptor, Int32(SHUT_RDWR)) }
    }

    /// A worker may have died (`isDeathNear`): what it said before, such as which tasks it handed back,
    /// is read first.
    private func receiveWorkers(isDeathNear: Bool) throws {
        for _ in 0..<(isDeathNear ? 64 : 1) * Self.messagesPerTurn {
            guard try workers.receive(into: &frames) else { return }
            guard frames.count == 2, !frames.overflowed else {
                _ = try? workers.send(Self.refusalOfFrames, to: frames.routingID(at: 0))
                continue
            }
            let session = frames.routingID(at: 0)
            let peer = frames.withBytes(at: 1) { isPeerWanted($0) } ? lookUpPeer() : .remote
            frames.withBytes(at: 1) { state.workerMessage($0, from: session, peer: peer) }
        }
    }

    private func receiveStorage() throws {
        for _ in 0..<Self.messagesPerTurn {
            guard try storage.receive(into: &frames) else { return }
            try frames.withBytes(at: 0) { bytes in
                do {
                    try state.storageMessage(bytes)
                } catch {
                    logger.critical(
                        "Storage said what can't be read: it is of another build",
                        metadata: ["event": "refused", "error": "\(error)"]
                    )
                    throw error
                }
            }
        }
    }

    /// Everything beside the routing id is one frame; more are a peer's mistake.
    private static var refusalOfFrames: [UInt8] {
        let refusal = Refusal(.malformed, "a message of this protocol is one frame")
        return ErrorMessage.encoded(refusal, number: 0)
    }

    /// Only what needs trust costs a system call.
    private func isPeerWanted(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard bytes.count >= MessageHeader.byteCount, let command = Command(rawValue: bytes[3])
        else { return false }
        switch command {
        case .hello, .starterHello, .exit, .drain, .stop, .retire, .roll, .idle: return true
        default: return false
        }
    }

    private func lookUpPeer() -> PeerProcess {
        guard let descriptor = frames.sourceDescriptor else { return .remote }
        switch PeerIdentity(descriptor: descriptor) {
        case .local(let identity, let handle):
            watched.keep(handle, of: identity)
            return .local(pid: identity.pid)
        case .remote: return .remote
        case .gone: return .gone
        }
    }

    // MARK: Processes

    private func descriptorReady(_ token: UInt64) throws {
        if token == StorageLink.token {
            try storageEnded()
        } else if token == WallClockAlarm.token {
            alarm.take()
            state.timer(now: .current)
        } else if token == ReturnedBytes.token {
            for (session, bytes, isMark) in returns.takeAll() {
                if bytes > 0 { state.clientTook(session, bytes) }
                if isMark { state.clientReadOn(session) }
            }
        } else if let worker = watched.ended(token, poll) {
            state.workerDied(worker, wasSeen: true)
        }
    }

    private func storageEnded() throws {
        guard let report = storage.reap(watching: poll) else { return }
        let isExpected = state.isStopped
        logger.log(
            level: isExpected ? .debug : .warning,
            "Storage has ended",
            metadata: ["event": "storage ended", "cause": "\(report)"]
        )
        state.storageLost()
        guard !isExpected else { return }
        if let code = storage.planRestart(after: report, now: MonotonicClock.nowNanoseconds()) {
            exitCode = code
        }
    }

    private func carryOut(_ outbox: BrokerOutbox) throws {
        // first, so that the lines of all processes stand in the order of the messages
        if !outbox.notices.isEmpty || !outbox.arrows.isEmpty { write(outbox) }
        // what a dead worker's tasks left running goes before they are given to others (H16)
        for deed in outbox.deeds { if case .kill(let worker) = deed { watched.kill(worker) } }
        for message in outbox.toStorage {
            try storage.send(message.bytes, with: message.attachment?.frame)
        }
        for (session, message) in outbox.toWorkers {
            let outcome = try workers.send(message, to: session)
            if outcome == .unreachable { state.workerUnreachable(session) }
        }
        for (session, message) in outbox.toClients {
            try send(message, to: session, isMark: state.sends(message.count, to: session))
        }
        for reply in outbox.placed {
            let message = state.message(of: reply) { read($0, into: $1) }
            if let message { try send(message, to: reply.session, isMark: false) }
        }
        for deed in outbox.deeds { carryOut(deed) }
        for (worker, pid) in outbox.toWeigh {
            if let bytes = ResidentMemory.bytes(of: pid) {
                state.weighed(worker, residentBytes: bytes)
            }
        }
        // a worker that was found dead has leases to give back, and a record that wasn't where it was
        // said to be is asked for: no other turn may come to do it
        if !outbox.deeds.isEmpty || !outbox.placed.isEmpty || !outbox.toWeigh.isEmpty {
            try carryOut(state.flush())
        }
    }

    private func send(_ message: [UInt8], to session: Session, isMark: Bool) throws {
        var outcome: SendOutcome
        let isLarge = message.count >= BrokerState.largeMessageBytes
        if isLarge || isMark {
            let bytes = isLarge ? message.count : 0
            let frame = LentFrame(message) { [returns] in returns.put(session, bytes, isMark) }
            outcome = try clients.send(frame, to: session)
        } else {
            outcome = try clients.send(message, to: session)
        }
        if outcome == .unreachable { state.clientGone(session) }
    }

    /// Reads with `pread` into the client's message, never from a mapping: a page that the disk can't
    /// read would be a signal, and the Broker must not die of it.
    private func read(
        _ reference: PayloadReference,
        into target: UnsafeMutableRawBufferPointer
    ) -> Bool {
        do {
            try records.read(
                RecordPosition(segment: reference.segment, offset: reference.offset),
                sequence: reference.sequence,
                from: Int(reference.start),
                into: target
            )
            return true
        } catch {
            logger.debug(
                "a record isn't where it was",
                metadata: ["event": "reference gone", "error": "\(error)"]
            )
            return false
        }
    }

    private func carryOut(_ deed: BrokerOutbox.Deed) {
        switch deed {
        case .check(let worker, let process):
            if !watched.watch(worker, process, poll) {
                state.workerDied(worker, wasSeen: false)
            }
        case .forget(let worker): watched.forget(worker, poll)
        case .terminate(let worker): watched.terminate(worker)
        case .kill: break  // done first
        case .drained: break
        case .finish: exitCode = 0
        }
    }

    private func write(_ outbox: BrokerOutbox) {
        for notice in outbox.notices {
            var metadata: Logger.Metadata = ["event": "\(notice.event)"]
            for (key, value) in notice.details { metadata[key] = "\(value)" }
            logger.log(
                level: notice.isWarning ? .warning : .info,
                "\(notice.message)",
                metadata: metadata
            )
        }
        for arrow in outbox.arrows {
            logger.debug(
                "\(arrow.event)",
                metadata: [
                    "component": "broker", "event": "\(arrow.event)", "task": "\(arrow.task)",
                    "peer": "\(arrow.peer)",
                ]
            )
        }
    }
}

/// Large messages and marks that libzmq is done with, from its threads to the loop.
private final class ReturnedBytes: Sendable {
    /// The doorbell in the poll set.
    static let token = UInt64.max / 2  // far above those of watched workers

    let doorbell: Doorbell
    /// `bytes`: 0 unless it is large.
    private let returned = Mutex<[(session: Session, bytes: Int, isMark: Bool)]>([])

    init(doorbell: Doorbell) {
        self.doorbell = doorbell
    }

    /// Any thread.
    func put(_ session: Session, _ bytes: Int, _ isMark: Bool) {
        returned.withLock { $0.append((session, bytes, isMark)) }
        doorbell.ring()
    }

    func takeAll() -> [(session: Session, bytes: Int, isMark: Bool)] {
        doorbell.clear()
        return returned.withLock { returned in
            defer { returned = [] }
            return returned
        }
    }
}
