// Part of QTasks. License: see LICENSE.

import HeapModule
package import QTasksModel
import QTasksWire
import ZeroMQ

/// What the Broker decides: the order of tasks, who gets them, and what clients hear.
///
/// Events are methods; what is to be done is left in ``BrokerOutbox``, taken by ``flush()`` once a
/// turn. Its picture of the tasks is a fold over what Storage says: Storage alone decides, and a
/// Storage that comes back tells everything anew (recovery.md, chapter 4). No sockets, clocks, files.
package struct BrokerState {
    /// How the system is set up, and who is who.
    package struct Settings: Sendable {
        package var config: QueueConfig
        package var pid: Int32
        package var parentPid: Int32
        package var home: String

        /// How often a worker says that it lives whose process can't be watched.
        package var heartbeatNanoseconds: UInt64 = 2_000_000_000

        /// After how long a silence such a worker's tasks go to others; several heartbeats, since a busy
        /// host delays them.
        package var silenceNanoseconds: UInt64 = 10_000_000_000

        /// Tasks that one session may have unanswered.
        package var windowTasks: UInt32 = 10_000

        /// From this size on, in bytes, an add is a frame of its own on its way to Storage.
        package var lentBytesMin = KeptEnvelope.lentBytesMin

        package init(config: QueueConfig, pid: Int32, parentPid: Int32, home: String) {
            self.config = config
            self.pid = pid
            self.parentPid = parentPid
            self.home = home
        }

        /// See ``QueueConfig/killAfter``.
        var killAfterNanoseconds: UInt64 {
            let (seconds, attoseconds) = config.killAfter.components
            return UInt64(clamping: seconds) * 1_000_000_000
                + UInt64(clamping: attoseconds / 1_000_000_000)
        }
    }

    let settings: Settings
    var outbox = BrokerOutbox()

    /// Whether ``BrokerOutbox/arrows`` are wanted: only while somebody logs at debug.
    package var isTracing = false

    // Storage.
    var storage = StorageView()
    var proposals = Self.emptyProposals(session: 0)

    // Tasks.
    var lanes = Lanes()
    var leases: [Lease: LeaseEntry] = [:]
    var leaseCounter: UInt32 = 0
    /// Proposed leases on queued tasks, by proposal.
    var storageLeases: [UInt64: Lease] = [:]
    /// Those that wait for a time since boot.
    var scheduled = Heap<ScheduledTask>()
    /// Those that wait for a time of the wall clock, by handle: it may be set back, so what is in its
    /// line already isn't told by the clock.
    var scheduledByWall = IndexedHeap<ScheduledTask>()
    /// What was due by then is in its line, of ``scheduled``; `CLOCK_BOOTTIME`.
    var timedUpTo: UInt64 = 0
    /// By sequence, the times of cancelled tasks that are still in ``scheduled``: of one that was queued again and
    /// cancelled again several.
    var withdrawnTimes: [UInt64: [UInt64]] = [:]

    // Workers.
    var roster = Roster()
    var waitingClients: [Session] = []
    var waitingWorkers: [Session] = []
    /// Counts the WELCOMEs to workers.
    var greetings: UInt64 = 0
    var parcels: [Roster.Number: WorkParcel] = [:]
    /// Leases that workers hold and shall let go of, of this turn.
    var revoked: [Roster.Number: [Lease]] = [:]
    var limits = HardLimits()
    /// When to look for silent workers, never later than the first moment; `nil` while none is remote (P8).
    var silenceAt: UInt64?
    var suspectHolder: Roster.Number?
    var starter: Session?
    var starterView = StarterView()
    var deaths: UInt64 = 0

    // Clients.
    var clients = ClientTable()
    var nextNumber: UInt64 = 1

    // Stopping.
    var stopping = Stopping.no

    /// The latest time a core heard of.
    var now = Now(wall: Timestamp(nanoseconds: 0), monotonic: 0) {
        didSet { lanes.now = now.monotonic }
    }

    package init(settings: Settings) {
        self.settings = settings
    }

    /// Hands out what this turn wants done, packed.
    package mutating func flush() -> BrokerOutbox {
        dispatchWaiting()
        endIfIdle()
        for (number, parcel) in parcels {
            guard let session = roster.entries[number]?.session else { continue }
            outbox.toWorkers.append((session, parcel.encoded()))
        }
        parcels.removeAll(keepingCapacity: true)
        sendRevoked()
        clients.flush(into: &outbox)
        if proposals.count > MessageHeader.byteCount { sendProposals(with: nil) }
        defer { outbox = BrokerOutbox() }
        return outbox
    }

    /// When ``timer(now:)`` wants to be called, in nanoseconds of `CLOCK_BOOTTIME`; `nil` while nothing
    /// is awaited (P8).
    package var nextDeadline: UInt64? {
        [
            scheduled.min?.due.rawValue, clients.nextDeadline, stopping.deadline, limits.next,
            lanes.nextAlarm, storage.isUp ? silenceAt : nil,
        ]
        .compactMap { $0 }.min()
    }

    /// When ``timer(now:)`` wants to be called as well, by the wall clock, wherever that is set; `nil` while
    /// no task waits for it (P8).
    package var nextWallDeadline: Timestamp? { scheduledByWall.firstRank?.due.wall }

    /// Time has come to something: delayed tasks, waits, the end of a drain.
    package mutating func timer(now: Now) {
        self.now = now
        queueDue()
        lanes.ring()
        endOverdue()
        endSilences()
        for wait in clients.takeOverdueWaits(now: now.monotonic) { answerOverdue(wait) }
        drainTimer()
        dispatchWaiting()
    }

    /// The time of what comes next.
    package mutating func advance(to now: Now) {
        self.now = now
    }

    static func emptyProposals(session: UInt64) -> WireWriter {
        WireWriter(.propose, number: session, reserving: 1024)
    }

    mutating func propose(_ proposal: Proposal) {
        // while Storage is away nothing is kept here: the reset proposes all that is unanswered again
        guard storage.isUp else { return }
        proposal.write(to: &proposals)
    }

    /// Closes the message of this turn's proposals.
    mutating func sendProposals(with attachment: KeptEnvelope?) {
        outbox.toStorage.append(
            StorageMessage(bytes: proposals.bytes, attachment: attachment)
        )
        proposals = Self.emptyProposals(session: storage.session)
    }

    mutating func takeNumber() -> UInt64 {
        defer { nextNumber += 1 }
        return nextNumber
    }

    mutating func trace(_ event: StaticString, _ task: TaskID, _ peer: @autoclosure () -> String) {
        if isTracing { outbox.arrows.append(.init(event: event, task: task, peer: peer())) }
    }

    mutating func notice(
        _ event: StaticString,
        _ message: String,
        _ details: [(key: String, value: String)] = [],
        isWarning: Bool = false
    ) {
        outbox.notices.append(
            .init(isWarning: isWarning, event: event, message: message, details: details)
        )
    }
}

/// What is known of Storage.
struct StorageView {
    /// It is open and its snapshot has been read to the end.
    var isUp = false
    /// It has said OPENED; the snapshot is on its way.
    var isOpening = false
    /// It has ended without opening the store: adds are refused until it does.
    var isDown = false
    var incarnation: UInt32 = 0
    /// Its number of our session, which goes with every proposal.
    var session: UInt64 = 0
    var written: UInt64 = 0
    var durable: UInt64 = 0
    var pid: Int32 = 0
    var globalConfigPid: Int32 = 0
    /// Running leases of the snapshot by worker, until its end.
    var processes: [WorkerID: WorkerProcess] = [:]
    /// Leases that ran before Storage came back and that the snapshot hasn't named yet.
    var former: [Lease: LeaseEntry] = [:]
    /// Those that it didn't name: they have ended, once what it knew at its end is durable.
    var ended: [Lease: LeaseEntry] = [:]
    /// The newest record that the snapshot spoke of.
    var endedUpTo: UInt64 = 0
}

/// A lease, from its proposal to its end.
struct LeaseEntry {
    var task: QueuedTask
    /// `nil` until Storage has granted a lease on a queued task: before that nobody speaks of it.
    var id: TaskID?
    var isSuspect: Bool
    var lane: Lanes.Number
    var worker: WorkerID
    /// The worker's session it was proposed for.
    var sessionNumber: UInt32
    /// In its place where that is over with the worker, as far as can be told.
    static let noSession = UInt32.max
    /// It was sent, or the worker said that it holds it.
    var isHeld = false
    /// A release is proposed and not answered yet.
    var release: ReleaseState?
}

/// A release that Storage hasn't answered.
struct ReleaseState {
    var cause: ReleaseCause
    var isShared: Bool
    var counts: Bool
    /// Its time was over, and so it ends as that.
    var overdue: OverdueAttempt?
}

/// How far a stop has come.
enum Stopping: Equatable {
    case no
    /// Running tasks may go on until `deadline`.
    case grace(deadline: UInt64)
    /// They were asked to end; at `deadline` their workers are killed.
    case cancelled(deadline: UInt64)
    /// Their workers were killed; the releases are awaited.
    case killed
    /// No worker holds a lease.
    case drained
    /// Storage is being stopped.
    case stopped

    var deadline: UInt64? {
        switch self {
        case .grace(let deadline), .cancelled(let deadline): deadline
        case .no, .killed, .drained, .stopped: nil
        }
    }

    /// Adds and waits are turned away, nothing is leased.
    var isUnderWay: Bool { self != .no }
}

extension BrokerState {
    /// Storage was asked to stop: its end is no accident.
    package var isStopped: Bool { stopping == .stopped }
}
