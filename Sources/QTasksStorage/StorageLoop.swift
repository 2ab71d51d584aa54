// Part of QTasks. License: see LICENSE.

import AppendLog
import CLinux
import Glibc
package import Logging
import QTasksGlobalConfig
package import QTasksModel
package import QTasksProcess
import QTasksWire
import ZeroMQ

/// Storage's process: turns sockets, the log's progress and time into events of ``StorageState``, and
/// carries out what it decides.
///
/// Belongs to one thread, which also starts GlobalConfig (H13).
package final class StorageLoop {
    /// How many messages of one socket are taken in a turn before the others have theirs.
    private static let messagesPerTurn = 256

    /// How many results are read ahead of a release at most: a worker that never stops pushing must
    /// not hold up the deaths of the others.
    private static let messagesBeforeRelease = 4096

    /// How long after the last commit the log notes how far it is durable.
    private static let idlePause: UInt64 = 1_000_000_000

    /// How often a full disk is asked for room.
    private static let spacePause: UInt64 = 1_000_000_000

    private static let doorbellToken: UInt64 = 0

    private let home: HomeDirectory
    private let brokerPid: Int32
    private let logger: Logger
    private let initialLogLevel: String
    private let context: Context
    private let doorbell: Doorbell
    private let log: Log
    private var state: StorageState
    private var keeper: StorageKeeper
    /// Whether there is housekeeping that needs no event to go on.
    private var hasHousework = false
    private let results: Socket
    private let broker: Socket
    private var config: ConfigSubscription
    private var globalConfig: GlobalConfigChild
    private var poll: PollLoop
    private var frames = Frames()

    private var session: RoutingID?
    private var submitted: UInt64
    private var lastCommit: UInt64 = 0
    private var idleAt: UInt64?
    private var spaceAt: UInt64?
    private var retentionAt: UInt64?
    /// What reading the store and telling the Broker of it took is free and has not gone back to the system.
    private var holdsOpeningMemory = true
    private var exitCode: Int32?

    /// Opens the store and binds Storage's sockets; the caller holds the lock for them.
    ///
    /// It blocks for as long as reading the store takes.
    ///
    /// - Throws: `AppendLogError` where the store can't be opened, `ZeroMQError` where a socket can't be
    ///   bound, `ProcessError` where the home is not to be trusted.
    package init(
        home: HomeDirectory,
        config: QueueConfig,
        handover: RoleHandover,
        logger: Logger
    ) throws {
        self.home = home
        self.logger = logger
        brokerPid = handover.parent
        initialLogLevel = config.logLevel
        context = try Context()
        let doorbell = try Doorbell()
        self.doorbell = doorbell
        let settings = StorageState.Settings(config, directory: home.storePath)
        let store = try Self.open(settings, logger: logger) { doorbell.ring() }
        (log, state, keeper) = (store.log, store.state, store.keeper)
        submitted = log.lastSequence
        lastCommit = MonotonicClock.nowNanoseconds()
        idleAt = lastCommit + Self.idlePause
        let limit = Int64(config.maxPayload) + 1 << 20
        results = try Socket(.pull, in: context, options: .pull(maxMessageBytes: limit))
        // no limit here: the Broker packs a turn's proposals into one message, and nobody else is heard
        var options = SocketOptions.router(maxMessageBytes: nil)
        options.linger = .seconds(1)
        broker = try Socket(.router, in: context, options: options)
        poll = try PollLoop()
        try poll.watch(descriptor: doorbell.descriptor, token: Self.doorbellToken)
        try results.bind(to: home.endpoint(.results))
        try broker.bind(to: home.endpoint(.storage))
        globalConfig = GlobalConfigChild(home: home, handover: handover, pid: getpid())
        self.config = try ConfigSubscription(
            in: context,
            endpoints: ConfigEndpoints(
                requests: home.endpoint(.config),
                updates: home.endpoint(.configUpdates)
            ),
            now: MonotonicClock.nowNanoseconds()
        )
    }

    /// Serves until Storage is stopped.
    ///
    /// - Returns: The process's exit code.
    package func run() throws -> Int32 {
        try globalConfig.start(watching: poll, now: MonotonicClock.nowNanoseconds())
        let items = [broker.pollItem, results.pollItem] + config.pollItems
        while exitCode == nil { try turn(items) }
        return exitCode ?? 0
    }

    /// One turn: everything that is there, up to a bound, then everything that follows from it.
    private func turn(_ items: [PollItem]) throws {
        try poll.setTimer(at: hasHousework ? 1 : earliestDeadline)
        let ready = try poll.wait(items)
        state.isTracing = logger.logLevel <= .debug
        for token in ready.tokens { try descriptorReady(token) }
        if ready.timerFired { try timer() }
        if ready.isReadable(0) { try receiveBroker() }
        if ready.isReadable(1) { try receiveResults(atMost: Self.messagesPerTurn) }
        if state.hasReleases {
            try receiveResults(atMost: Self.messagesBeforeRelease)
            state.decideReleases(now: .current, log: log)
        }
        if ready.isReadable(2) || ready.isReadable(3) || ready.timerFired { try followConfig() }
        submit()
        state.watermarks(log.watermarks(), log: log)
        try carryOut(state.flush())
        keepHouse()
    }

    /// A little housekeeping, when everybody has been answered.
    private func keepHouse() {
        guard exitCode == nil else { return }
        let end = MonotonicClock.nowNanoseconds() + StorageKeeper.stepTime
        let pace = keeper.step(&state, log, now: .current) {
            MonotonicClock.nowNanoseconds() >= end
        }
        hasHousework = pace == .soon
        retentionAt = keeper.nextDeadline(&state, now: .current)
        submit()
    }

    // MARK: Receiving

    private func receiveBroker() throws {
        for _ in 0..<Self.messagesPerTurn {
            guard try broker.receive(into: &frames) else { return }
            guard frames.count == 2 || frames.count == 3, !frames.overflowed else { continue }
            let sender = frames.routingID(at: 0)
            if frames.isEmpty(at: 1) {
                guard isFromBroker() else { continue }
                session = sender
                state.brokerSession(
                    incarnation: log.incarnation,
                    globalConfigPid: globalConfig.pid
                )
            } else if sender == session {
                // its own time for each message: the Broker's clock must not be ahead of ours
                let now = Now.current
                frames.withBytes(at: 1) { message in
                    guard frames.count == 3 else {
                        return state.brokerMessage(message, now: now, log: log)
                    }
                    frames.withBytes(at: 2) {
                        state.brokerMessage(message, attachment: $0, now: now, log: log)
                    }
                }
            }
        }
    }

    /// Only the process that started this one may use the socket.
    private func isFromBroker() -> Bool {
        guard let descriptor = frames.sourceDescriptor else { return false }
        switch PeerIdentity(descriptor: descriptor) {
        case .local(let identity, _):
            if identity.pid == brokerPid { return true }
            logger.warning(
                "somebody who isn't the Broker wanted to use Storage's socket",
                metadata: ["event": "refused", "peer": "\(identity.pid)"]
            )
            return false
        case .remote, .gone: return false
        }
    }

    private func receiveResults(atMost most: Int) throws {
        let now = Now.current
        for _ in 0..<most {
            guard try results.receive(into: &frames) else { return }
            guard frames.count == 1, !frames.overflowed else {
                state.countMalformed("results", WireError.invalid(field: "frames"))
                continue
            }
            frames.withBytes(at: 0) { state.results($0, now: now, log: log) }
        }
    }

    private func followConfig() throws {
        for change in try config.turn(now: MonotonicClock.nowNanoseconds()) {
            RoleLogging.follow(change, initial: initialLogLevel)
        }
    }

    // MARK: The log

    /// Hands this turn's records to the log, all at once.
    private func submit() {
        let wantsSync = state.takeSyncWish(now: MonotonicClock.nowNanoseconds())
        guard log.hasUnsubmitted || wantsSync else { return }
        log.submit(sync: wantsSync)
        guard log.lastSequence > submitted else { return }
        submitted = log.lastSequence
        lastCommit = MonotonicClock.nowNanoseconds()
        // one shot: it isn't moved by each commit, but looks again when its time has come
        if idleAt == nil { idleAt = lastCommit + Self.idlePause }
    }

    /// The log's threads have got further, or can't.
    private func logProgressed() {
        doorbell.clear()
        if let failure = log.failure { state.fail("\(failure)") }
        if log.hasRoom {
            if spaceAt != nil {
                spaceAt = nil
                logger.notice("the disk has room again", metadata: ["event": "space back"])
            }
            if state.awaitsSpace { state.spaceMayBeBack(now: .current, log: log) }
        } else if spaceAt == nil {
            spaceAt = MonotonicClock.nowNanoseconds() + Self.spacePause
            logger.error(
                "the disk is full: new tasks are refused until there is room",
                metadata: ["event": "short of space", "path": "\(home.storePath)"]
            )
        }
    }

    private var earliestDeadline: UInt64? {
        [
            idleAt, spaceAt, retentionAt, state.syncDeadline, globalConfig.restartAt,
            config.nextDeadline,
        ].compactMap { $0 }.min()
    }

    private func timer() throws {
        let now = MonotonicClock.nowNanoseconds()
        if let idleAt, idleAt <= now { noteIdle(now) }
        if let spaceAt, spaceAt <= now {
            self.spaceAt = now + Self.spacePause
            log.retrySpace()
            if state.awaitsSpace { state.spaceMayBeBack(now: .current, log: log) }
        }
        if let restartAt = globalConfig.restartAt, restartAt <= now {
            try globalConfig.start(watching: poll, now: now)
            var message = WireWriter(.globalConfigStarted)
            message.integer(globalConfig.pid)
            try send(message.bytes)
        }
    }

    private func noteIdle(_ now: UInt64) {
        let due = lastCommit + Self.idlePause
        guard due <= now else {
            idleAt = due
            return
        }
        idleAt = nil
        // what nobody needs to be durable becomes so now
        log.submit(sync: true)
        log.noteIdle()
        guard holdsOpeningMemory else { return }
        holdsOpeningMemory = false
        clinux_return_memory()
    }

    // MARK: Processes

    private func descriptorReady(_ token: UInt64) throws {
        switch token {
        case Self.doorbellToken: logProgressed()
        case GlobalConfigChild.token: try globalConfigEnded()
        default: preconditionFailure("nothing else is watched")
        }
    }

    private func globalConfigEnded() throws {
        guard let report = globalConfig.reap(watching: poll) else { return }
        logger.warning(
            "GlobalConfig has ended",
            metadata: ["event": "globalconfig ended", "cause": "\(report)"]
        )
        let now = MonotonicClock.nowNanoseconds()
        guard let code = globalConfig.planRestart(after: report, now: now) else { return }
        try log.close()
        exitCode = code
    }

    // MARK: Telling

    private func carryOut(_ outbox: StorageOutbox) throws {
        // first, so that the lines of all processes stand in the order of the messages
        if !outbox.notices.isEmpty || !outbox.arrows.isEmpty { write(outbox) }
        for message in outbox.toBroker { try send(message) }
        if state.failure != nil {
            exitCode = StorageRole.codeOfDiskFailure
        } else if outbox.shallStop, exitCode == nil {
            try stop()
        }
    }

    /// To the Broker, if it is there: one that comes back is told everything anew.
    private func send(_ message: [UInt8]) throws {
        guard let session else { return }
        guard try broker.send(message, to: session) != .sent else { return }
        self.session = nil
        state.brokerGone()
    }

    private func write(_ outbox: StorageOutbox) {
        for notice in outbox.notices {
            logger.log(
                level: notice.isWarning ? .warning : .info,
                "\(notice.message)",
                metadata: ["event": "\(notice.event)"]
            )
        }
        for arrow in outbox.arrows {
            logger.debug(
                "\(arrow.event)",
                metadata: [
                    "component": "storage", "event": "\(arrow.event)", "task": "\(arrow.task)",
                    "peer": "\(arrow.peer)",
                ]
            )
        }
    }

    /// The orderly end: GlobalConfig, then every commit, then the log.
    private func stop() throws {
        try globalConfig.stop(in: context, watching: poll)
        try receiveResults(atMost: Self.messagesBeforeRelease)
        do {
            try log.flush()
            state.watermarks(log.watermarks(), log: log)
            for message in state.flush().toBroker { try send(message) }
            keeper.writeLastCheckpoint(state, log)
            try log.close()
        } catch let error as AppendLogError {
            state.fail("\(error)")
            return try carryOut(state.flush())
        }
        try send(WireWriter(.storageStopped).bytes)
        exitCode = 0
        logger.info("Storage has stopped", metadata: ["event": "stopped"])
    }
}
