// Part of QTasks. License: see LICENSE.
//
// The records of Storage's log. Their bytes are part of the store's format: a layout never changes,
// a number is never used again. Numbers are little endian, IDs as their bytes stand; moments are
// nanoseconds since 1970.

package import QTasksModel
package import QTasksWire

/// What a record of the log tells.
package enum StoredKind: UInt8, CaseIterable, Sendable {
    /// A task was added.
    case add = 1
    /// It was given to a worker.
    case lease = 2
    /// An attempt ended by its worker's word.
    case finish = 3
    /// A lease ended without it.
    case release = 4
    /// A result came under a lease that no longer held; nothing changed by it.
    case stale = 5
    /// Who a worker is.
    case worker = 6
    /// An operator ended a task, or its time was over: as `FINISH` has it, with an end that no worker
    /// told. What its worker says afterwards is refused.
    case cancel = 7
    /// An operator had a task that was final queued again, see ``StoredRequeue``.
    case requeue = 8
    /// How the process of a worker ended that died with a task in hand, see ``StoredEvidence``.
    case evidence = 9
    /// A task with all that had happened to it: it stands for its add and for every other record of it
    /// that lies before, but for its result.
    case carried = 11
    /// A task that had ended is forgotten: the time that it is kept for is over.
    case expire = 12
    /// What holds a queue's tasks back from now on, see ``StoredQueue``.
    case queue = 13

    /// Kinds from here on may be passed over by a version that doesn't know them: they change no task.
    ///
    /// Below, one that is unknown keeps the store from being opened for writing: an older version that passed
    /// over it would have tasks as they no longer are.
    package static let firstIgnorable: UInt8 = 128

    /// It has a ``StoredFinish``.
    var hasResult: Bool { self == .finish || self == .cancel }
}

/// When a task may be leased, told so that neither a step of the wall clock nor a restart of the
/// host moves it more than it must (32 bytes).
///
/// ```
///  offset  bytes  field
///       0      8  on the wall clock
///       8      8  on CLOCK_BOOTTIME, in nanoseconds; 0: the wall clock alone counts
///      16     16  the boot that the second is of
/// ```
package struct StoredDue: Sendable, Equatable {
    package var wall: Timestamp
    package var boot: UInt64
    package var bootID: TaskID

    package init(wall: Timestamp, boot: UInt64, bootID: TaskID) {
        self.wall = wall
        self.boot = boot
        self.bootID = bootID
    }

    func write(to writer: inout WireWriter) {
        writer.integer(wall.nanoseconds)
        writer.integer(boot)
        writer.id(bootID)
    }

    init(from reader: inout WireReader) throws(WireError) {
        wall = Timestamp(nanoseconds: try reader.integer("due"))
        boot = try reader.integer("due since boot")
        bootID = try reader.id("boot ID")
    }
}

/// `ADD`: a task came.
///
/// ```
///  offset  bytes  field
///       0      8  added
///       8      1  flags: bit 0 delayed, bit 1 `written` is durable enough to be told, bit 2 synced
///                 within an interval
///       9     32  due, where delayed
///       +      4  the interval in milliseconds, where there is one
///       +         envelope, as it came
/// ```
package struct StoredAdd {
    package var addedAt: Timestamp
    package var durability: Durability
    package var due: StoredDue?
    package var envelope: UnsafeRawBufferPointer

    func writeHead(to writer: inout WireWriter) {
        writer.integer(addedAt.nanoseconds)
        let interval = durability.intervalMilliseconds
        writer.u8(
            (due == nil ? 0 : 1) | (durability.isToldOnceWritten ? 2 : 0)
                | (interval == nil ? 0 : 4)
        )
        due?.write(to: &writer)
        if let interval { writer.integer(interval) }
    }

    package init(from reader: inout WireReader) throws(WireError) {
        let head = try StoredAddHead(from: &reader)
        addedAt = head.addedAt
        durability = head.durability
        due = head.due
        envelope = try Envelope(from: &reader).bytes
    }

    init(
        addedAt: Timestamp,
        durability: Durability,
        due: StoredDue?,
        envelope: UnsafeRawBufferPointer
    ) {
        self.addedAt = addedAt
        self.durability = durability
        self.due = due
        self.envelope = envelope
    }
}

/// What stands before the envelope in a ``StoredAdd``.
struct StoredAddHead {
    var addedAt: Timestamp
    var durability: Durability
    var due: StoredDue?

    init(from reader: inout WireReader) throws(WireError) {
        addedAt = Timestamp(nanoseconds: try reader.integer("added"))
        let flags = try reader.u8("flags")
        due = flags & 1 != 0 ? try StoredDue(from: &reader) : nil
        if flags & 4 != 0 {
            durability = .interval(milliseconds: try reader.integer("interval"))
        } else {
            durability = flags & 2 != 0 ? .written : .synced
        }
    }
}

/// `LEASE`: at (8), task ID (16), lease (8), worker ID (16).
package struct StoredLease {
    package var at: Timestamp
    package var id: TaskID
    package var lease: Lease
    package var worker: WorkerID

    func writeHead(to writer: inout WireWriter) {
        writer.integer(at.nanoseconds)
        writer.id(id)
        writer.integer(lease.rawValue)
        writer.worker(worker)
    }

    init(at: Timestamp, id: TaskID, lease: Lease, worker: WorkerID) {
        self.at = at
        self.id = id
        self.lease = lease
        self.worker = worker
    }

    package init(from reader: inout WireReader) throws(WireError) {
        at = Timestamp(nanoseconds: try reader.integer("at"))
        id = try reader.id("task ID")
        lease = try reader.lease("lease")
        worker = try reader.worker("worker")
    }
}

/// `FINISH`: an attempt ended.
///
/// ```
///  offset  bytes  field
///       0      8  at
///       8      1  resulting status; `scheduled` for a retry
///       9     16  worker ID
///      25     32  due, where scheduled
///       +         the worker's result entry, as it came: it has task and lease
/// ```
package struct StoredFinish {
    /// The beginning of an attempt that nobody knows of, or that there was none of.
    package static let never = Timestamp(nanoseconds: .min)

    package var at: Timestamp
    package var status: TaskStatus
    package var worker: WorkerID
    package var due: StoredDue?
    package var result: ResultView

    func writeHead(to writer: inout WireWriter) {
        writer.integer(at.nanoseconds)
        writer.u8(status.code)
        writer.worker(worker)
        due?.write(to: &writer)
    }

    init(
        at: Timestamp,
        status: TaskStatus,
        worker: WorkerID,
        due: StoredDue?,
        result: ResultView
    ) {
        self.at = at
        self.status = status
        self.worker = worker
        self.due = due
        self.result = result
    }

    package init(from reader: inout WireReader) throws(WireError) {
        let head = try StoredFinishHead(from: &reader)
        at = head.at
        status = head.status
        worker = head.worker
        due = head.due
        result = try ResultView(from: &reader)
        guard reader.isAtEnd else { throw .invalid(field: "result byte count") }
    }
}

/// What stands before the worker's entry in a ``StoredFinish``.
struct StoredFinishHead {
    var at: Timestamp
    var status: TaskStatus
    var worker: WorkerID
    var due: StoredDue?

    init(from reader: inout WireReader) throws(WireError) {
        at = Timestamp(nanoseconds: try reader.integer("at"))
        status = try reader.storedStatus()
        worker = try reader.worker("worker")
        due = status == .scheduled ? try StoredDue(from: &reader) : nil
    }
}

/// `RELEASE`: at (8), task ID (16), lease (8), cause (1), resulting status (1), flags (1: bit 0 suspect,
/// bit 1 counted as a death).
package struct StoredRelease {
    package var at: Timestamp
    package var holding: Holding
    package var cause: ReleaseCause
    package var status: TaskStatus
    package var isSuspect: Bool
    package var isCounted: Bool

    func writeHead(to writer: inout WireWriter) {
        writer.integer(at.nanoseconds)
        holding.write(to: &writer)
        writer.u8(cause.rawValue)
        writer.u8(status.code)
        writer.u8((isSuspect ? 1 : 0) | (isCounted ? 2 : 0))
    }

    init(
        at: Timestamp,
        holding: Holding,
        cause: ReleaseCause,
        status: TaskStatus,
        isSuspect: Bool,
        isCounted: Bool
    ) {
        self.at = at
        self.holding = holding
        self.cause = cause
        self.status = status
        self.isSuspect = isSuspect
        self.isCounted = isCounted
    }

    package init(from reader: inout WireReader) throws(WireError) {
        at = Timestamp(nanoseconds: try reader.integer("at"))
        holding = try Holding(from: &reader)
        guard let cause = ReleaseCause(rawValue: try reader.u8("cause")) else {
            throw .invalid(field: "cause")
        }
        self.cause = cause
        status = try reader.storedStatus()
        let flags = try reader.u8("flags")
        isSuspect = flags & 1 != 0
        isCounted = flags & 2 != 0
    }
}

/// `STALE`: at (8), worker ID (16), task ID (16), lease (8), began (8), ended (8), kind of outcome (1).
///
/// The result itself is not kept: nobody may act on it, and it may be large.
package struct StoredStale {
    package var at: Timestamp
    package var worker: WorkerID
    package var holding: Holding
    package var startedAt: Timestamp
    package var finishedAt: Timestamp
    package var outcomeKind: UInt8

    func writeHead(to writer: inout WireWriter) {
        writer.integer(at.nanoseconds)
        writer.worker(worker)
        holding.write(to: &writer)
        writer.integer(startedAt.nanoseconds)
        writer.integer(finishedAt.nanoseconds)
        writer.u8(outcomeKind)
    }

    init(at: Timestamp, worker: WorkerID, result: ResultView) {
        self.at = at
        self.worker = worker
        holding = Holding(id: result.id, lease: result.lease)
        startedAt = result.startedAt
        finishedAt = result.finishedAt
        outcomeKind = result.outcome.first ?? 0
    }

    package init(from reader: inout WireReader) throws(WireError) {
        at = Timestamp(nanoseconds: try reader.integer("at"))
        worker = try reader.worker("worker")
        holding = try Holding(from: &reader)
        startedAt = Timestamp(nanoseconds: try reader.integer("start"))
        finishedAt = Timestamp(nanoseconds: try reader.integer("end"))
        outcomeKind = try reader.u8("outcome")
    }
}

/// `WORKER`: at (8), worker ID (16), process (28).
package struct StoredWorker {
    /// Time (8), worker (16), pid (4; 0: it can't be watched), start time (8), boot (16).
    static let byteCount = 52

    package var at: Timestamp
    package var id: WorkerID
    package var process: WorkerProcess

    func writeHead(to writer: inout WireWriter) {
        writer.integer(at.nanoseconds)
        writer.worker(id)
        process.write(to: &writer)
    }

    init(at: Timestamp, id: WorkerID, process: WorkerProcess) {
        self.at = at
        self.id = id
        self.process = process
    }

    package init(from reader: inout WireReader) throws(WireError) {
        at = Timestamp(nanoseconds: try reader.integer("at"))
        id = try reader.worker("worker")
        process = try WorkerProcess(from: &reader)
    }
}

extension WireReader {
    /// A status that a record has.
    mutating func storedStatus() throws(WireError) -> TaskStatus {
        guard let status = try status() else { throw .invalid(field: "status") }
        return status
    }
}
