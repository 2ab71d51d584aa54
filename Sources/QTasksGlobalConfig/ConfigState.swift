// Part of QTasks. License: see LICENSE.

import QTasksWire
package import ZeroMQ

/// What a turn of GlobalConfig's core wants done outside.
package struct ConfigOutbox {
    /// For the log, in this order; ``ConfigState/durable(upTo:now:)`` tells when they are on disk.
    package var records: [ConfigRecord] = []
    /// Messages to single peers.
    package var replies: [(peer: RoutingID, message: [UInt8])] = []
    /// Messages to all subscribers.
    package var publications: [[UInt8]] = []
    /// What became durable, for the role's own use.
    package var changes: [ConfigEntry] = []
    /// A change was refused because the disk is full: a good time to ask it again.
    package var wantsSpace = false
    /// The parent asked for the end, and everything it may wait for is on disk.
    package var isStopping = false
}

/// What GlobalConfig decides: values, the numbers of their changes, and who hears what when.
///
/// A change shows, to anybody, only once it is on disk: ``values`` and ``sequence`` are what is
/// durable, so a restart takes back nothing that was told. No sockets, clocks, files.
package struct ConfigState {
    /// After the last change the sequence is told once more, in nanoseconds: whoever missed that
    /// change has no later one to find the gap by (recovery.md, H8).
    package static let headDelay: UInt64 = 1_000_000_000

    /// Changes that may wait for the disk at once.
    private static let pendingMax = 1024

    /// What every key is, on disk.
    package private(set) var values: [String: [UInt8]] = [:]

    /// How many changes there were, on disk.
    package private(set) var sequence: UInt64 = 0

    /// Messages that could not be read.
    package private(set) var malformed: UInt64 = 0

    /// No change can be taken: the disk is full.
    ///
    /// Set by whoever owns the log.
    package var isReadOnly = false

    /// When ``timer(now:)`` is to be called; `nil`: nothing is awaited.
    package private(set) var nextDeadline: UInt64?

    private var outbox = ConfigOutbox()
    private var isStopWanted = false

    // What will be once everything pending is on disk.
    private var proposed: [String: [UInt8]] = [:]
    private var proposedBytes = 0
    private var proposedSequence: UInt64 = 0
    private var pending: [ConfigRecord] = []
    private var waiters: [Waiter] = []

    /// Who is told `CONFIG_DONE` once `sequence` is on disk.
    private struct Waiter {
        var peer: RoutingID
        var number: UInt64
        var sequence: UInt64
    }

    package init() {}

    /// One record of the log, at opening, in the log's order.
    package mutating func restore(_ record: ConfigRecord) {
        propose(record.entry)
        values[record.entry.key] = record.entry.value
        sequence = record.sequence
        proposedSequence = record.sequence
    }

    /// One message to the ROUTER.
    ///
    /// `isParent` tells whether the peer is the process that started this one; it is asked only
    /// where it matters.
    package mutating func request(
        _ bytes: UnsafeRawBufferPointer,
        from peer: RoutingID,
        isParent: () -> Bool
    ) {
        guard !bytes.isEmpty else {
            // A probe: a connection has begun, and what was asked on an older one may be lost.
            outbox.replies.append((peer, ConfigPublication.head(sequence)))
            return
        }
        var reader = WireReader(bytes)
        let header: MessageHeader
        do {
            header = try MessageHeader.read(from: &reader)
        } catch {
            refuse(header: error, to: peer)
            return
        }
        do {
            try serve(header, &reader, from: peer, isParent: isParent)
        } catch {
            malformed += 1
            refuse(Refusal(.malformed, "\(error)"), to: peer, number: header.number)
        }
    }

    /// One message that the XPUB received: 1 or 0, then the prefix (un)subscribed.
    package mutating func subscription(_ frame: UnsafeRawBufferPointer) {
        guard frame.first == 1 else { return }
        publishHead()
    }

    /// All records up to the one of this sequence are on disk.
    package mutating func durable(upTo sequence: UInt64, now: UInt64) {
        var done = 0
        while done < pending.count, pending[done].sequence <= sequence {
            let record = pending[done]
            values[record.entry.key] = record.entry.value
            self.sequence = record.sequence
            outbox.publications.append(
                ConfigPublication.update(record.entry, sequence: record.sequence)
            )
            outbox.changes.append(record.entry)
            nextDeadline = now + Self.headDelay
            done += 1
        }
        pending.removeFirst(done)
        answerWaiters()
        stopIfIdle()
    }

    /// The log can't be written any more: whoever waits is told, and what is pending is forgotten.
    package mutating func logFailed(_ reason: String) {
        for waiter in waiters {
            refuse(Refusal(.storageUnavailable, reason), to: waiter.peer, number: waiter.number)
        }
        waiters = []
        pending = []
        isReadOnly = true
    }

    /// To be called at ``nextDeadline``.
    package mutating func timer(now: UInt64) {
        guard let deadline = nextDeadline, deadline <= now else { return }
        nextDeadline = nil
        publishHead()
    }

    /// Hands over what is to be done, and begins anew.
    package mutating func flush() -> ConfigOutbox {
        let taken = outbox
        outbox = ConfigOutbox()
        return taken
    }
}

extension ConfigState {
    private mutating func serve(
        _ header: MessageHeader,
        _ reader: inout WireReader,
        from peer: RoutingID,
        isParent: () -> Bool
    ) throws(WireError) {
        switch header.command {
        case .configSet:
            let entry = try ConfigEntry(from: &reader)
            guard reader.isAtEnd else { throw .invalid(field: "end") }
            change(entry, from: peer, number: header.number)
        case .configGet:
            let pattern = try reader.text("pattern")
            if let refusal = ConfigKey.refusal(of: pattern) {
                refuse(refusal, to: peer, number: header.number)
            } else {
                answer(peer, header.number) { ConfigKey.matches(pattern, $0) }
            }
        case .configSnapshot:
            answer(peer, header.number) { _ in true }
        case .configStop:
            stop(from: peer, number: header.number, isParent: isParent())
        default:
            let text = "GlobalConfig doesn't know the command \(header.command)"
            refuse(Refusal(.unknownCommand, text), to: peer, number: header.number)
        }
    }

    private mutating func change(_ entry: ConfigEntry, from peer: RoutingID, number: UInt64) {
        if let refusal = refusal(of: entry) {
            if refusal.code == .storageUnavailable { outbox.wantsSpace = true }
            refuse(refusal, to: peer, number: number)
            return
        }
        // A repeat changes nothing and costs no disk; it still waits for what it repeats.
        if proposed[entry.key] != entry.value {
            propose(entry)
            proposedSequence += 1
            let record = ConfigRecord(sequence: proposedSequence, entry: entry)
            pending.append(record)
            outbox.records.append(record)
        }
        waiters.append(Waiter(peer: peer, number: number, sequence: proposedSequence))
        answerWaiters()
    }

    private func refusal(of entry: ConfigEntry) -> Refusal? {
        let wrong =
            entry.value.map { ConfigKey.refusal(of: $0, for: entry.key) }
            ?? ConfigKey.refusal(of: entry.key)
        if let wrong { return wrong }
        if isStopWanted { return Refusal(.stopping, "the system is being stopped") }
        if isReadOnly {
            return Refusal(.storageUnavailable, "'\(entry.key)' can't be kept: no room on the disk")
        }
        if waiters.count >= Self.pendingMax {
            return Refusal(.overloaded, "\(waiters.count) changes wait for the disk")
        }
        if proposedBytes + Self.size(entry) > ConfigKey.totalBytesMax, entry.value != nil {
            let most = ConfigKey.totalBytesMax
            return Refusal(.payloadTooLarge, "all keys and values have at most \(most) bytes")
        }
        return nil
    }

    private mutating func propose(_ entry: ConfigEntry) {
        if let old = proposed[entry.key] {
            proposedBytes -= Self.size(ConfigEntry(key: entry.key, value: old))
        }
        proposed[entry.key] = entry.value
        if entry.value != nil { proposedBytes += Self.size(entry) }
    }

    private static func size(_ entry: ConfigEntry) -> Int {
        entry.key.utf8.count + (entry.value?.count ?? 0)
    }

    private mutating func answerWaiters() {
        var done = 0
        while done < waiters.count, waiters[done].sequence <= sequence {
            var writer = WireWriter(.configDone, number: waiters[done].number)
            writer.integer(waiters[done].sequence)
            outbox.replies.append((waiters[done].peer, writer.bytes))
            done += 1
        }
        waiters.removeFirst(done)
    }

    private mutating func answer(
        _ peer: RoutingID,
        _ number: UInt64,
        where isWanted: (String) -> Bool
    ) {
        let wanted = values.filter { isWanted($0.key) }
        let message = ConfigValuesMessage(sequence: sequence, values: wanted)
        outbox.replies.append((peer, message.encoded(number: number)))
    }

    private mutating func stop(from peer: RoutingID, number: UInt64, isParent: Bool) {
        guard isParent else {
            let text = "only the process that started GlobalConfig may stop it"
            refuse(Refusal(.badOption, text), to: peer, number: number)
            return
        }
        isStopWanted = true
        stopIfIdle()
    }

    private mutating func stopIfIdle() {
        if isStopWanted && pending.isEmpty { outbox.isStopping = true }
    }

    private mutating func publishHead() {
        // Of several subscriptions in one turn one HEAD tells all.
        let head = ConfigPublication.head(sequence)
        if outbox.publications.last != head { outbox.publications.append(head) }
    }

    private mutating func refuse(_ refusal: Refusal, to peer: RoutingID, number: UInt64) {
        outbox.replies.append((peer, ErrorMessage.encoded(refusal, number: number)))
    }

    private mutating func refuse(header: MessageHeader.Refusal, to peer: RoutingID) {
        switch header {
        case .malformed:
            malformed += 1
            refuse(Refusal(.malformed, "that is no message of QTasks"), to: peer, number: 0)
        case .unsupportedVersion(let version, let number):
            let text = "version \(version) of the protocol; this is \(MessageHeader.version)"
            refuse(Refusal(.unsupportedVersion, text), to: peer, number: number)
        case .unknownCommand(let code, let number):
            let text = "GlobalConfig doesn't know the command \(code)"
            refuse(Refusal(.unknownCommand, text), to: peer, number: number)
        }
    }
}
