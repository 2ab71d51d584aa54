// Part of QTasks. License: see LICENSE.

package import AppendLog
package import QTasksModel
package import QTasksWire

/// What a worker knows and decides: its session with the Broker, its credit, the tasks it holds and
/// the results it keeps until they are committed (recovery.md, chapter 4).
///
/// Events go in, one at a time; at the end of a turn ``endTurn(now:into:)`` says what is to be
/// done. Nothing here sends, runs a task or reads a clock. Times are nanoseconds of
/// `CLOCK_BOOTTIME`.
///
/// ```
///           WORK            a slot is free          the handler returned
///   (none) -----> queued ------------------> running ------------------> in the outbox --> (none)
///                   |                          |  |                           ^   acknowledged
///                   | leaving, stalled,        |  | past its limit            |
///                   | soft cancel              |  '--> over, and its outcome -'
///                   '-------> handed back      |         ^   (the slot stays taken
///                                              '---------'    until the handler returns)
///                                               abandoned
/// ```
package struct WorkerState: Sendable {
    /// What never changes about a worker.
    package struct Identity: Sendable {
        package var worker: WorkerID
        package var process: WorkerProcess
        package var parentPid: Int32

        package init(worker: WorkerID, process: WorkerProcess, parentPid: Int32) {
            self.worker = worker
            self.process = process
            self.parentPid = parentPid
        }
    }

    /// What the core has to know of a handler.
    struct Rules: Sendable {
        var name: String
        var retry: RetryPolicy
        var timeLimitNanoseconds: UInt64?
        var retriesTimeLimit: Bool
    }

    enum Session: Sendable {
        /// No Broker has greeted us, or the one that did is gone: the two can't be told apart.
        case none
        /// WELCOME is there; HELLO goes out at the end of the turn.
        case welcomed
        /// HELLO is out.
        case greeted
        /// RECONCILED is there: credit counts.
        case open
    }

    enum Phase: Sendable {
        /// Waits for a slot.
        case queued
        case running
        /// Running, and asked to stop because the system is.
        case stopping
        /// Its outcome is decided, or no longer wanted; only the slot isn't free yet.
        case over
    }

    struct Held: Sendable {
        let delivery: TaskDelivery
        var phase = Phase.queued
        var startedAt = Now(wall: Timestamp(nanoseconds: 0), monotonic: 0)
        var deadline: UInt64?
    }

    /// When the Broker is to hear of us next.
    struct Heartbeat: Sendable {
        /// In nanoseconds.
        var interval: UInt64
        var dueAt: UInt64
    }

    /// How long the local queue may stand still before its tasks are given to others, in
    /// nanoseconds.
    static let stallNanoseconds: UInt64 = 100_000_000

    let identity: Identity
    let rules: [Rules]
    let names: NameTable

    var slots: Int
    var isLeaving = false

    // Of this session.
    var session = Session.none
    /// The number of the WELCOME that began it.
    var greeting: UInt64 = 0
    var received: UInt64 = 0
    var announced: UInt64 = 0
    var hasSaidGoodbye = false
    var resultBytesMax = Int.max
    /// The store is there to be read, as HELLO says.
    var readsStore = false
    /// The Broker can't watch our process: it is to hear of us that often.
    var heartbeat: Heartbeat?

    // Of the tasks held. `occupied` counts slots, `over` those of them whose task is over.
    var held: [Lease: Held] = [:]
    var queue = Fifo<TaskDelivery>()
    var queued = 0
    var occupied = 0
    var over = 0
    var started: UInt64 = 0
    var ahead = WorkAhead()
    var outbox = Outbox()

    // Timers. `limitAt` is never later than the earliest deadline of `limited` running tasks.
    var limited = 0
    var limitAt: UInt64?
    var stallAt: UInt64?
    var startedBeforeStall: UInt64 = 0

    // What the turn has come to so far.
    var handBacks: [Holding] = []
    var unreadables: [Holding] = []
    var reports: [RunningAttempt] = []
    var packer: ResultPacker
    var cancels: [TaskDelivery] = []
    var resendsAll = false
    var notes: [WorkerNote] = []
    var receivedIDs: [TaskID] = []
    private var random: SplitMix

    /// Whether effects name each task that came and went, for the log.
    package var isTracing: Bool {
        get { packer.isTracing }
        set { packer.isTracing = newValue }
    }

    /// Messages that could not be read, since the start.
    package private(set) var malformedCount = 0

    /// - Parameters:
    ///   - identity: Who it says it is.
    ///   - handlers: What it can run; their order is what ``TaskDelivery/handler`` counts.
    ///   - slots: Tasks to run at once; at least 1.
    ///   - seed: Where the jitter of retries comes from.
    package init(identity: Identity, handlers: [TaskHandler], slots: Int, seed: UInt64) {
        precondition(slots >= 1, "a worker runs one task at a time at least")
        self.identity = identity
        self.slots = slots
        rules = handlers.map { Rules($0) }
        names = NameTable(handlers.map(\.name))
        packer = ResultPacker(worker: identity.worker)
        random = SplitMix(state: seed)
    }

    /// When ``timer(now:)`` is to be called; `nil` while nothing is awaited (promise P8).
    package var nextDeadline: UInt64? {
        var next = UInt64.max
        if let due = outbox.dueAt { next = due }
        if let limitAt { next = min(next, limitAt) }
        if let stallAt { next = min(next, stallAt) }
        if let heartbeat { next = min(next, heartbeat.dueAt) }
        return next == .max ? nil : next
    }

    /// Whether a leaving worker has nothing left to do: nothing runs, every result is acknowledged.
    ///
    /// Handlers whose outcome was decided without them are not waited for.
    package var isFinished: Bool {
        isLeaving && queued == 0 && occupied == over && outbox.isEmpty && packer.isEmpty
            && handBacks.isEmpty && unreadables.isEmpty
    }

    /// Tasks that it runs at once.
    package var slotCount: Int { slots }

    /// Tasks queued here and slots taken.
    package var inHand: Int { queued + occupied }

    // MARK: Events

    /// A message of the Broker.
    ///
    /// - Parameters:
    ///   - message: Its bytes.
    ///   - now: When it came.
    ///   - store: Where large arguments are read, lent for the message; `nil`: nowhere.
    package mutating func receive(
        _ message: UnsafeRawBufferPointer,
        now: Now,
        store: LogRecords? = nil
    ) {
        // A ROUTER probes too; whoever binds has nothing to tell by it.
        guard !message.isEmpty else { return }
        var reader = WireReader(message)
        do {
            let header = try MessageHeader.read(from: &reader)
            try receive(header, &reader, now: now, store)
        } catch {
            countMalformed("\(error)")
        }
    }

    /// The task that it holds under this lease.
    package func task(under lease: Lease) -> TaskID? {
        held[lease]?.delivery.id
    }

    /// A handler returned.
    package mutating func finished(_ end: AttemptEnd, now: Now) {
        guard let index = held.index(forKey: end.lease) else { return }
        let task = held.values[index]
        guard task.phase != .queued else { return }
        held.remove(at: index)
        reportReturn(of: task)
        occupied -= 1
        ahead.add(now.monotonic - min(now.monotonic, task.startedAt.monotonic))
        guard task.phase != .over else {
            over -= 1
            return
        }
        forgetLimit(of: task)
        if task.phase == .stopping && end.outcome.isCancellation {
            handBacks.append(task.delivery.holding)
        } else {
            save(end, of: task.delivery, now: now)
        }
    }

    /// A task that was to run has arguments in the store that can't be used: it is given back, and
    /// comes to its next worker with them.
    package mutating func unreadable(_ lease: Lease) {
        guard let task = held[lease], task.phase != .queued else { return }
        held[lease] = nil
        reportReturn(of: task)
        occupied -= 1
        guard task.phase != .over else {
            over -= 1
            return
        }
        forgetLimit(of: task)
        giveBackUnreadable(task.delivery.holding)
    }

    /// The time of ``nextDeadline`` has come.
    ///
    /// Earlier or later calls do no harm.
    package mutating func timer(now: Now) {
        if let limitAt, limitAt <= now.monotonic { endOverdue(now: now) }
        outbox.overdue(now: now.monotonic, into: &packer)
        if let stallAt, stallAt <= now.monotonic { checkStall(now: now.monotonic) }
    }

    /// More or fewer slots.
    ///
    /// What runs goes on.
    package mutating func setSlots(_ slots: Int) {
        self.slots = max(1, slots)
    }

    /// SIGTERM, or RETIRE: what hasn't started is given back, what runs is finished.
    package mutating func leave() {
        isLeaving = true
        handBackQueue()
    }

    /// Storage can be reached again after a send to it failed: what was lost is not known.
    package mutating func storageIsBack() {
        resendsAll = true
    }

    // MARK: For the other files

    mutating func giveBackUnreadable(_ holding: Holding) {
        unreadables.append(holding)
        note(.unreadable(holding.id))
    }

    mutating func countMalformed(_ why: String) {
        malformedCount += 1
        note(.malformed(why))
    }

    /// Keeps few: what a peer can cause without end must not fill memory or log.
    mutating func note(_ note: WorkerNote) {
        if notes.count < 16 { notes.append(note) }
    }

    mutating func nextRandom() -> Double { random.next() }
}

/// How a handler returned, from the thread it ran on.
package struct AttemptEnd: Sendable {
    package var lease: Lease
    package var outcome: TaskOutcome
    package var startedAt: Timestamp
    package var finishedAt: Timestamp

    package init(
        lease: Lease,
        outcome: TaskOutcome,
        startedAt: Timestamp,
        finishedAt: Timestamp
    ) {
        self.lease = lease
        self.outcome = outcome
        self.startedAt = startedAt
        self.finishedAt = finishedAt
    }
}

extension WorkerState.Rules {
    init(_ handler: TaskHandler) {
        name = handler.name
        retry = handler.retry
        timeLimitNanoseconds = handler.timeLimit.map { limit in
            let (seconds, attoseconds) = limit.components
            let (whole, overflow) = UInt64(seconds).multipliedReportingOverflow(by: 1_000_000_000)
            return overflow ? .max : whole + UInt64(attoseconds / 1_000_000_000)
        }
        retriesTimeLimit = handler.retryIf?(TimeLimitError()) ?? true
    }
}

extension TaskOutcome {
    /// Whether the handler only said that it was cancelled.
    var isCancellation: Bool {
        switch self {
        case .error(let failure), .retry(let failure, _, _): failure.type == "CancellationError"
        case .success, .cancel: false
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood, 2014): the same seed gives the same numbers, as tests need.
private struct SplitMix: Sendable {
    var state: UInt64

    /// The next number in 0..<1.
    mutating func next() -> Double {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
        return Double((mixed ^ mixed >> 31) >> 11) / Double(1 << 53)
    }
}

/// First in, first out.
///
/// Places are reused, so that a steady stream allocates nothing.
struct Fifo<Element: Sendable>: Sendable {
    private var elements: [Element?] = []
    private var head = 0

    mutating func append(_ element: Element) {
        elements.append(element)
    }

    mutating func popFirst() -> Element? {
        guard head < elements.count else { return nil }
        defer { shrink() }
        let first = elements[head]
        elements[head] = nil
        head += 1
        return first
    }

    private mutating func shrink() {
        if head == elements.count {
            elements.removeAll(keepingCapacity: true)
            head = 0
        } else if head >= 1024 && head * 2 >= elements.count {
            elements.removeFirst(head)
            head = 0
        }
    }
}
