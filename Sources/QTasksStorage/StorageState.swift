// Part of QTasks. License: see LICENSE.

package import AppendLog
package import QTasksModel
package import QTasksWire

/// What Storage decides: which change of a task holds, and when anybody may hear of it.
///
/// Events are methods; a change that holds is appended to the log and goes through the same fold as
/// a record that is replayed. What is to be said is left in ``StorageOutbox``, taken by ``flush()``
/// once a turn. No sockets, clocks, threads; the log is lent for each event.
///
/// One rule holds for all answers: nothing is told before what it says is as durable as it has to
/// be. Answers wait in order in two queues, one for each watermark.
package struct StorageState {
    /// What is fixed while Storage runs.
    package struct Settings: Sendable {
        package var config: QueueConfig
        /// The store's directory, for people.
        package var directory: String
        /// This boot of the host.
        package var bootID: TaskID
        package var pid: Int32
        /// See ``TaskIndex/init(seed:)``.
        package var seed: UInt64

        /// From this size on, in bytes, arguments and results are told by their place.
        package var placedBytesMin = 64 << 10

        package init(
            config: QueueConfig,
            directory: String,
            bootID: TaskID,
            pid: Int32,
            seed: UInt64
        ) {
            self.config = config
            self.directory = directory
            self.bootID = bootID
            self.pid = pid
            self.seed = seed
        }
    }

    /// A proposal that found no room in the log and is decided again once there is some.
    enum Deferred {
        case lease(number: UInt64, QueuedPlace, Lease, WorkerID, synced: Bool)
        case release(Release)
        case overdue(Overdue)
        case worker(WorkerID, WorkerProcess)
        case evidence(Evidence)
    }

    /// A lease's end as it was proposed: decided once PULL is read dry.
    enum ProposedEnd {
        case release(Release)
        case overdue(Overdue)
        /// After the releases that it explains.
        case evidence(Evidence)
    }

    /// How a process ended.
    struct Evidence {
        var number: UInt64
        var exit: ExitMessage
    }

    /// An attempt that went on past its limit until its worker was ended.
    struct Overdue {
        var number: UInt64
        var holding: Holding
        var attempt: OverdueAttempt
    }

    /// A release as it was proposed.
    struct Release {
        var number: UInt64
        var holding: Holding
        var cause: ReleaseCause
        var isShared: Bool
        var counts: Bool
    }

    let settings: Settings
    package internal(set) var tasks: TaskFold
    package internal(set) var counters = StorageCounters()

    /// Whether ``StorageOutbox/arrows`` are wanted: only while somebody logs at debug.
    package var isTracing = false

    /// Why the log can't be used any more: nothing is decided from then on.
    package internal(set) var failure: String?

    var outbox = StorageOutbox()
    var verdicts = Self.emptyVerdicts
    /// A Broker has a session: somebody hears the verdicts.
    var isServing = false
    /// Counts the Broker's sessions; `nil` before the first.
    package internal(set) var sessionNumber: UInt64?

    var written: UInt64 = 0
    var durable: UInt64 = 0
    var toldDurable: UInt64 = 0
    /// The newest record's sequence.
    package internal(set) var last: UInt64 = 0
    /// Something waits for the newest records to be durable.
    var needsSync = false
    /// Something has to be durable by this time at the latest (`CLOCK_BOOTTIME`), and may wait for company
    /// until then: what asked for an interval, and adds whose clients wait for the end anyway, so that a
    /// quick task takes one sync instead of two.
    package private(set) var syncDeadline: UInt64?

    var awaitingWritten = PendingVerdicts()
    var awaitingDurable = PendingVerdicts()
    var releases: [ProposedEnd] = []
    var deferred: [Deferred] = []

    /// Workers that read the store themselves, as the Broker says in this session.
    var readers: Set<WorkerID> = []
    /// Running tasks whose workers were told of a place, and the segment that is held for each.
    var references: [TaskIndex.Number: UInt32] = [:]

    /// Until when finished tasks are kept.
    var retention: RetentionState
    /// Finished tasks that could be forgotten, but for the windows of their unique keys.
    var windows = TimedTasks()
    /// Tasks that are about to be forgotten, and the record that says so.
    var expiring = Fifo<(sequence: UInt64, number: TaskIndex.Number)>()

    /// Who asked for the log to be compacted.
    var compactions = Compactions()

    // Used again and again, so that a record costs no allocation.
    var head = WireWriter()
    var assembly = RecordAssembly()
    var recent = RecentRecords()

    /// A store without tasks; `now` is the time of the opening.
    package init(settings: Settings, now: Now) {
        self.settings = settings
        tasks = TaskFold(opened: now, bootID: settings.bootID, seed: settings.seed)
        retention = RetentionState(rules: settings.config.retention)
    }

    // MARK: Opening

    /// One record of the log, at opening.
    ///
    /// - Throws: Where its bytes are not what its kind has; it is then left out.
    package mutating func replay(
        kind: UInt8,
        payload: UnsafeRawBufferPointer,
        at place: StoredPlace,
        isCopy: Bool = false
    ) throws(WireError) {
        if !isCopy { last = max(last, place.sequence) }
        try tasks.replay(kind: kind, payload: payload, at: place, isCopy: isCopy)
    }

    // MARK: Watermarks

    /// The log has got further: what waited for that is told.
    package mutating func watermarks(
        _ marks: Watermarks,
        log: some TaskLog
    ) {
        guard failure == nil else { return }
        written = max(written, marks.written)
        durable = max(durable, marks.durable)
        // nothing is left that the deadline could be for
        if durable >= last { syncDeadline = nil }
        while let verdict = awaitingWritten.next(upTo: written) { tell(verdict, log: log) }
        while let verdict = awaitingDurable.next(upTo: durable) { tell(verdict, log: log) }
    }

    // MARK: The end of a turn

    /// Hands out what this turn wants done, all verdicts in one message where they fit.
    package mutating func flush() -> StorageOutbox {
        if isServing, verdicts.count > Self.verdictsHeadBytes || durable > toldDurable {
            sendVerdicts()
        }
        defer { outbox = StorageOutbox() }
        return outbox
    }

    /// How long an add whose client waits for the end may wait for company, in nanoseconds.
    private static let syncPatience: UInt64 = 2_000_000

    /// Something that asked for that much is in the log.
    ///
    /// - Parameters:
    ///   - durability: What it asked for.
    ///   - isWatched: An add's client hears of it together with its end, if that comes soon.
    ///   - now: When it came.
    mutating func needSync(_ durability: Durability, isWatched: Bool, now: Now) {
        switch durability {
        case .written: break
        case .synced where isWatched: needSync(within: Self.syncPatience, now)
        case .synced: needsSync = true
        case .interval(let milliseconds):
            needSync(within: UInt64(milliseconds) * 1_000_000, now)
        }
    }

    /// Of several deadlines the earliest holds: its sync serves the others too.
    private mutating func needSync(within nanoseconds: UInt64, _ now: Now) {
        syncDeadline = min(syncDeadline ?? .max, now.monotonic + nanoseconds)
    }

    /// Whether what was appended has to become durable as soon as it can; asked once before each
    /// submit.
    ///
    /// - Parameter now: By `CLOCK_BOOTTIME`; without it nothing waits for company.
    /// - Returns: What to pass to the log's `submit(sync:)`.
    package mutating func takeSyncWish(now: UInt64 = .max) -> Bool {
        let isDue = syncDeadline.map { $0 <= now } ?? false
        guard needsSync || isDue else { return false }
        needsSync = false
        syncDeadline = nil
        return true
    }

    /// The Broker's session is over; the next probe begins another.
    package mutating func brokerGone() {
        isServing = false
        verdicts = Self.emptyVerdicts
    }

    /// The log has failed: the Broker is told, and nothing is decided any more.
    package mutating func fail(_ reason: String) {
        guard failure == nil else { return }
        failure = reason
        notice("log failed", reason, isWarning: true)
        verdicts = Self.emptyVerdicts
        guard isServing else { return }
        var message = WireWriter(.storageFailed)
        message.text(reason)
        outbox.toBroker.append(message.bytes)
        isServing = false
    }
}

// MARK: - What the parts share

extension StorageState {
    /// The longest message before another is begun, in bytes.
    private static var verdictBytesMax: Int { 4 << 20 }

    /// What a message without items has: its header and the watermarks.
    private static var verdictsHeadBytes: Int { MessageHeader.byteCount + 16 }

    static var emptyVerdicts: WireWriter {
        var writer = WireWriter(.verdicts, reserving: 4096)
        writer.integer(UInt64(0))
        writer.integer(UInt64(0))
        return writer
    }

    /// Tells the Broker something, with this turn's message.
    mutating func say(_ verdict: Verdict) {
        guard isServing else { return }
        verdict.write(to: &verdicts)
        sendIfLong()
    }

    /// Closes the message where it has grown too long to be kept for the end of the turn.
    mutating func sendIfLong() {
        if verdicts.count > Self.verdictBytesMax { sendVerdicts() }
    }

    private mutating func sendVerdicts() {
        verdicts.patch(written, at: MessageHeader.byteCount)
        verdicts.patch(durable, at: MessageHeader.byteCount + 8)
        toldDurable = durable
        outbox.toBroker.append(verdicts.bytes)
        verdicts = Self.emptyVerdicts
    }

    mutating func notice(_ event: String, _ message: String, isWarning: Bool = false) {
        outbox.notices.append(.init(isWarning: isWarning, event: event, message: message))
    }

    mutating func trace(_ event: String, _ task: TaskID, _ peer: @autoclosure () -> String) {
        if isTracing { outbox.arrows.append(.init(event: event, task: task, peer: peer())) }
    }

    /// Counts what came malformed, and says so now and then: nobody can be answered.
    package mutating func countMalformed(_ what: String, _ error: any Error) {
        counters.malformed += 1
        if counters.malformed.nonzeroBitCount == 1 {
            notice(
                "malformed message",
                "\(what): \(error); dropped (\(counters.malformed) so far)",
                isWarning: true
            )
        }
    }

    /// Takes the answer where what it says is written already, else keeps it until it is.
    mutating func tellOnceWritten(
        _ verdict: PendingVerdict,
        _ sequence: UInt64,
        log: some TaskLog
    ) {
        if sequence <= written {
            tell(verdict, log: log)
        } else {
            awaitingWritten.append(verdict, from: last)
        }
    }

    /// The same for what has to be as durable as a task asked.
    mutating func tell(
        _ verdict: PendingVerdict,
        _ sequence: UInt64,
        once durability: Durability,
        log: some TaskLog
    ) {
        switch durability {
        case .written, .interval: tellOnceWritten(verdict, sequence, log: log)
        case .synced:
            if sequence <= durable {
                tell(verdict, log: log)
            } else {
                awaitingDurable.append(verdict, from: last)
                needsSync = true
            }
        }
    }
}

extension WireWriter {
    fileprivate mutating func patch(_ value: UInt64, at place: Int) {
        patch(UInt32(truncatingIfNeeded: value), at: place)
        patch(UInt32(truncatingIfNeeded: value >> 32), at: place + 4)
    }
}
