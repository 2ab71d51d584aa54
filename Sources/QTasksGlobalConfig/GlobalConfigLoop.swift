// Part of QTasks. License: see LICENSE.

import AppendLog
package import Logging
import QTasksModel
import QTasksProcess
import QTasksWire
import ZeroMQ

/// GlobalConfig's loop: its sockets, its log and one timer around a ``ConfigState``.
///
/// Belongs to the thread that made it. Idle it sleeps, without a timer.
package struct GlobalConfigLoop: ~Copyable {
    /// Where it lives, and whom it obeys.
    package struct Settings: Sendable {
        package var endpoints: ConfigEndpoints
        /// The folder of its log.
        package var directory: String
        /// The process that may stop it.
        package var parent: Int32
        /// What is logged at least while `log.level` isn't set.
        package var logLevel: String

        package init(
            endpoints: ConfigEndpoints,
            directory: String,
            parent: Int32,
            logLevel: String = QueueConfig().logLevel
        ) {
            self.endpoints = endpoints
            self.directory = directory
            self.parent = parent
            self.logLevel = logLevel
        }
    }

    /// A message that is larger is no mistake about a value's size, which gets an answer: its
    /// connection is cut.
    private static let messageBytesMax: Int64 = 1 << 20

    private static let messagesPerTurn = 64
    private static let bellToken: UInt64 = 1
    private static let logOptions = LogOptions(
        segmentBytes: 1 << 20,
        recordBytesMax: ConfigKey.valueBytesMax + 1024,
        zeroFillAheadBytes: 64 << 10,
        zeroFillChunkBytes: 64 << 10
    )

    private let settings: Settings
    private let logger: Logger
    private let requests: Socket
    private let updates: Socket
    private let log: Log
    private let doorbell: Doorbell
    private var poll: PollLoop
    private var state: ConfigState
    private var frames: Frames
    /// The log's numbers of records that aren't durable yet, with our own.
    private var inFlight: [(log: UInt64, config: UInt64)] = []
    private var nextMalformedNote: UInt64 = 1

    /// Opens the log, then binds: nothing is answered before everything is known.
    ///
    /// The folder's lock, and with it the right to bind, must be held.
    ///
    /// - Throws: ``GlobalConfigError``; nothing is bound or open then.
    package init(_ settings: Settings, logger: Logger) throws(GlobalConfigError) {
        var state = ConfigState()
        do {
            let doorbell = try Doorbell()
            let log = try Self.open(settings.directory, doorbell, restoring: &state)
            let context = try Context()
            var options = SocketOptions.xpub
            options.maxMessageBytes = Self.messageBytesMax
            let requests = try Socket(
                .router,
                in: context,
                options: .router(maxMessageBytes: Self.messageBytesMax)
            )
            let updates = try Socket(.xpub, in: context, options: options)
            let poll = try PollLoop()
            try poll.watch(descriptor: doorbell.descriptor, token: Self.bellToken)
            try updates.bind(to: settings.endpoints.updates)
            try requests.bind(to: settings.endpoints.requests)
            self.settings = settings
            self.logger = logger
            self.requests = requests
            self.updates = updates
            self.log = log
            self.doorbell = doorbell
            self.poll = poll
            self.state = state
            frames = Frames(capacity: 2)
        } catch {
            throw GlobalConfigError(error)
        }
        tellOpened()
    }

    /// Serves until the parent says stop; the log is then closed in order.
    ///
    /// - Throws: ``GlobalConfigError`` where the log can't be written any more; who waits is told.
    package consuming func run() throws(GlobalConfigError) {
        do {
            while try turn() {}
            try log.close()
        } catch {
            throw GlobalConfigError(error)
        }
        logger.info("GlobalConfig has stopped", metadata: ["event": "stopped"])
    }

    private static func open(
        _ directory: String,
        _ doorbell: Doorbell,
        restoring state: inout ConfigState
    ) throws(GlobalConfigError) -> Log {
        var unreadable: WireError?
        var restored = state
        do {
            let log = try Log.open(
                at: directory,
                options: logOptions,
                onProgress: { doorbell.ring() },
                replay: { record in
                    do throws(WireError) {
                        guard record.kind == ConfigRecord.kind else {
                            throw .invalid(field: "kind")
                        }
                        restored.restore(try ConfigRecord(from: record.payload))
                    } catch {
                        unreadable = unreadable ?? error
                    }
                }
            )
            if let unreadable { throw GlobalConfigError.unreadable(directory, unreadable) }
            state = restored
            return log
        } catch {
            throw GlobalConfigError(error)
        }
    }
}

// MARK: - A turn

extension GlobalConfigLoop {
    /// - Returns: Whether there will be another.
    private mutating func turn() throws -> Bool {
        try poll.setTimer(at: state.nextDeadline)
        let ready = try poll.wait([requests.pollItem, updates.pollItem])
        let now = MonotonicClock.nowNanoseconds()
        if !ready.tokens.isEmpty { doorbell.clear() }
        state.isReadOnly = !log.hasRoom
        try receiveRequests()
        try receiveSubscriptions()
        if ready.timerFired {
            state.timer(now: now)
            log.noteIdle()
        }
        noteDurable(now: now)
        let isStopping = try carryOut(state.flush())
        if let failure = log.failure {
            try giveUp(failure)
        }
        return !isStopping
    }

    private mutating func receiveRequests() throws(ZeroMQError) {
        for _ in 0..<Self.messagesPerTurn {
            guard try requests.receive(into: &frames) else { break }
            let peer = frames.routingID(at: 0)
            // A message of any other form is none of ours: its first frame is refused as garbage.
            let isPlain = frames.count == 2 && !frames.overflowed
            let source = frames.sourceDescriptor
            let parent = settings.parent
            frames.withBytes(at: isPlain ? 1 : 0) { bytes in
                state.request(bytes, from: peer) { Self.isProcess(parent, behind: source) }
            }
            if logger.logLevel <= .debug {
                logger.debug("request", metadata: ["event": "request", "peer": "\(peer)"])
            }
        }
        frames.clear()
    }

    private mutating func receiveSubscriptions() throws(ZeroMQError) {
        for _ in 0..<Self.messagesPerTurn {
            guard try updates.receive(into: &frames) else { break }
            frames.withBytes(at: 0) { state.subscription($0) }
        }
        frames.clear()
    }

    private mutating func noteDurable(now: UInt64) {
        guard !inFlight.isEmpty else { return }
        let durable = log.watermarks().durable
        guard let last = inFlight.last(where: { $0.log <= durable }) else { return }
        inFlight.removeAll { $0.log <= durable }
        state.durable(upTo: last.config, now: now)
    }

    /// - Returns: Whether the end has come.
    private mutating func carryOut(_ outbox: ConfigOutbox) throws -> Bool {
        for record in outbox.records {
            let place = try log.append(kind: ConfigRecord.kind, payload: record.encoded())
            inFlight.append((log: place.sequence, config: record.sequence))
        }
        if !outbox.records.isEmpty { log.submit() }
        if outbox.wantsSpace { log.retrySpace() }
        for message in outbox.publications { try updates.send(message) }
        // Who is gone needs no answer, and asks again when it comes back.
        for reply in outbox.replies { try requests.send(reply.message, to: reply.peer) }
        for change in outbox.changes { follow(change) }
        noteMalformed()
        return outbox.isStopping
    }

    /// Tells those who wait, then ends: what the disk has is sorted out by the next opening.
    private mutating func giveUp(_ failure: AppendLogError) throws {
        state.logFailed("the settings can't be written: \(failure)")
        _ = try carryOut(state.flush())
        throw failure
    }

    private static func isProcess(_ pid: Int32, behind descriptor: Int32?) -> Bool {
        guard let descriptor else { return false }
        // An enum that owns a descriptor: asked once, for the one command that needs it.
        guard case .local(let process, _) = PeerIdentity(descriptor: descriptor) else {
            return false
        }
        return process.pid == pid
    }
}

// MARK: - The role's own log

extension GlobalConfigLoop {
    private func tellOpened() {
        if let level = state.values[ConfigKey.logLevel] {
            let entry = ConfigEntry(key: ConfigKey.logLevel, value: level)
            RoleLogging.follow(entry, initial: settings.logLevel)
        }
        logger.info(
            "GlobalConfig is open",
            metadata: [
                "event": "opened", "keys": "\(state.values.count)", "sequence": "\(state.sequence)",
            ]
        )
        for lost in log.recovery.lost {
            logger.error(
                "settings were lost: the disk doesn't give back what was written",
                metadata: ["event": "lost", "records": "\(lost.sequences)"]
            )
        }
    }

    private func follow(_ change: ConfigEntry) {
        RoleLogging.follow(change, initial: settings.logLevel)
        // Not the value: it may be a secret.
        logger.info("a setting changed", metadata: ["event": "changed", "key": "\(change.key)"])
    }

    /// At the first, and whenever their number has doubled: a peer can't fill the log.
    private mutating func noteMalformed() {
        guard state.malformed >= nextMalformedNote else { return }
        nextMalformedNote = state.malformed * 2
        logger.warning(
            "messages that can't be read",
            metadata: ["event": "malformed", "count": "\(state.malformed)"]
        )
    }
}
