// Part of QTasks. License: see LICENSE.
//
// What workers and the Broker say to each other (recovery.md, chapter 4).

package import QTasksModel

/// A task that is somewhere, and the lease under which.
package struct Holding: Hashable, Sendable {
    package var id: TaskID
    package var lease: Lease

    package init(id: TaskID, lease: Lease) {
        self.id = id
        self.lease = lease
    }

    package func write(to writer: inout WireWriter) {
        writer.id(id)
        writer.integer(lease.rawValue)
    }

    package init(from reader: inout WireReader) throws(WireError) {
        id = try reader.id("task ID")
        lease = try reader.lease("lease")
    }
}

extension WireWriter {
    /// A count (4 bytes) and that many holdings.
    package mutating func holdings(_ holdings: some Collection<Holding>) {
        integer(UInt32(holdings.count))
        for holding in holdings { holding.write(to: &self) }
    }
}

extension WireReader {
    package mutating func holdings(_ field: StaticString) throws(WireError) -> [Holding] {
        let count = Int(try integer(field, as: UInt32.self))
        guard count <= left / 24 else { throw .truncated(field: field) }
        var holdings: [Holding] = []
        holdings.reserveCapacity(count)
        for _ in 0..<count { holdings.append(try Holding(from: &self)) }
        return holdings
    }
}

/// Which process a worker is, so that another life of its pid isn't taken for it.
package struct WorkerProcess: Hashable, Sendable {
    /// 0 in what the Broker and the log say of one that can't be watched, see ``isRemote``.
    package var pid: Int32
    /// In clock ticks since boot (`/proc/PID/stat`, field 22).
    package var startTime: UInt64
    /// The host's boot (`/proc/sys/kernel/random/boot_id`).
    package var bootID: TaskID

    package init(pid: Int32, startTime: UInt64, bootID: TaskID) {
        self.pid = pid
        self.startTime = startTime
        self.bootID = bootID
    }

    /// It is on another host or in another pid namespace: only heartbeats tell that it lives.
    package var isRemote: Bool { pid == 0 }

    /// The same without its pid, which would be another process's here.
    package var asRemote: WorkerProcess {
        WorkerProcess(pid: 0, startTime: startTime, bootID: bootID)
    }

    package func write(to writer: inout WireWriter) {
        writer.integer(pid)
        writer.integer(startTime)
        writer.id(bootID)
    }

    package init(from reader: inout WireReader) throws(WireError) {
        pid = try reader.integer("pid")
        startTime = try reader.integer("start time")
        bootID = try reader.id("boot ID")
    }
}

/// `HELLO`: a worker's whole state, the first thing it says in a session.
///
/// Its number is that of the `WELCOME` it answers, so that one that comes late, on an older
/// connection, is known as such.
///
/// worker ID (16), process (28), parent's pid (4), slots (4), window (8), names (count 2, then each
/// behind its count of bytes, 1), running and done (holdings), then, from those who have something to
/// say there, flags (1: bit 0 it reads the store, bit 1 it sends `RUNNING`, bit 2 it sends `HEARTBEAT`
/// where it is told to).
package struct Hello: Sendable, Equatable {
    package var worker: WorkerID
    package var process: WorkerProcess
    package var parentPid: Int32
    /// Tasks that it runs at once.
    package var slots: UInt32
    /// How many tasks it is ready to have been sent in this session, see ``CreditMessage``.
    package var window: UInt64
    /// The task names that it can run.
    package var names: [String]
    /// Leases that it runs or is about to run.
    package var running: [Holding]
    /// Leases whose result it has not heard to be committed.
    package var done: [Holding]
    /// Large arguments may be told it by their place in the store, which it can open.
    package var readsStore: Bool
    /// It says when limited attempts begin, and when they have returned, see ``RunningAttempt``.
    package var reportsRunning: Bool
    /// It says that it lives as often as it is told to, see ``WatchedMessage``.
    package var sendsHeartbeats: Bool

    package init(
        worker: WorkerID,
        process: WorkerProcess,
        parentPid: Int32,
        slots: UInt32,
        window: UInt64,
        names: [String],
        running: [Holding],
        done: [Holding],
        readsStore: Bool = false,
        reportsRunning: Bool = false,
        sendsHeartbeats: Bool = false
    ) {
        self.worker = worker
        self.process = process
        self.parentPid = parentPid
        self.slots = slots
        self.window = window
        self.names = names
        self.running = running
        self.done = done
        self.readsStore = readsStore
        self.reportsRunning = reportsRunning
        self.sendsHeartbeats = sendsHeartbeats
    }

    package func encoded(number: UInt64 = 0) -> [UInt8] {
        var writer = WireWriter(.hello, number: number)
        writer.worker(worker)
        process.write(to: &writer)
        writer.integer(parentPid)
        writer.integer(slots)
        writer.integer(window)
        writer.integer(UInt16(names.count))
        for name in names {
            writer.u8(UInt8(name.utf8.count))
            writer.raw(name.utf8)
        }
        writer.holdings(running)
        writer.holdings(done)
        let flags: UInt8 =
            (readsStore ? 1 : 0) | (reportsRunning ? 2 : 0) | (sendsHeartbeats ? 4 : 0)
        if flags != 0 { writer.u8(flags) }
        return writer.bytes
    }

    package init(from reader: inout WireReader) throws(WireError) {
        worker = try reader.worker("worker ID")
        process = try WorkerProcess(from: &reader)
        parentPid = try reader.integer("parent")
        slots = try reader.integer("slots")
        window = try reader.integer("window")
        let count = try reader.integer("names", as: UInt16.self)
        names = []
        for _ in 0..<count {
            let bytes = Int(try reader.u8("name byte count"))
            names.append(try reader.text(bytes, "name"))
        }
        running = try reader.holdings("running")
        done = try reader.holdings("done")
        let flags = reader.isAtEnd ? 0 : try reader.u8("flags")
        readsStore = flags & 1 != 0
        reportsRunning = flags & 2 != 0
        sendsHeartbeats = flags & 4 != 0
    }
}

/// `WATCHED`: how the Broker knows that the worker lives: milliseconds between heartbeats (4), and
/// milliseconds of silence after which its tasks are given to others (4).
///
/// It follows `RECONCILED` in a session whose worker can't be watched through the kernel, and holds
/// for that session. A worker that isn't told sends no heartbeats.
package struct WatchedMessage: Sendable, Equatable {
    package var intervalMilliseconds: UInt32
    package var silenceMilliseconds: UInt32

    package init(intervalMilliseconds: UInt32, silenceMilliseconds: UInt32) {
        self.intervalMilliseconds = intervalMilliseconds
        self.silenceMilliseconds = silenceMilliseconds
    }

    package func encoded() -> [UInt8] {
        var writer = WireWriter(.watched)
        writer.integer(intervalMilliseconds)
        writer.integer(silenceMilliseconds)
        return writer.bytes
    }

    package init(from reader: inout WireReader) throws(WireError) {
        intervalMilliseconds = try reader.integer("interval")
        silenceMilliseconds = try reader.integer("silence")
        guard intervalMilliseconds > 0 else { throw .invalid(field: "interval") }
    }
}

/// `HAND_BACK`: tasks that the worker gives back without having begun them (holdings), then, where
/// there is something to say of them, flags (1: bit 0 their arguments can't be read in the store).
package struct HandBack: Sendable, Equatable {
    package var holdings: [Holding]
    /// The next worker is sent the arguments themselves.
    package var isUnreadable: Bool

    package init(holdings: [Holding], isUnreadable: Bool = false) {
        self.holdings = holdings
        self.isUnreadable = isUnreadable
    }

    package func encoded() -> [UInt8] {
        var writer = WireWriter(.handBack, reserving: 24 + 24 * holdings.count)
        writer.holdings(holdings)
        if isUnreadable { writer.u8(1) }
        return writer.bytes
    }

    package init(from reader: inout WireReader) throws(WireError) {
        holdings = try reader.holdings("holdings")
        isUnreadable = reader.isAtEnd ? false : try reader.u8("flags") & 1 != 0
    }
}

/// `CREDIT`: the window (8): how many tasks in all the worker is ready to have been sent since its
/// `HELLO`.
///
/// It only grows, so a repeated or late message changes nothing.
package struct CreditMessage {
    package static func encoded(window: UInt64) -> [UInt8] {
        var writer = WireWriter(.credit)
        writer.integer(window)
        return writer.bytes
    }

    package static func read(from reader: inout WireReader) throws(WireError) -> UInt64 {
        try reader.integer("window")
    }
}

/// `RECONCILED`: for each lease of a `HELLO` what becomes of it: lease (8), verdict (1).
package enum ReconcileVerdict: UInt8, Sendable {
    /// Go on running it.
    case keep = 1
    /// Its result is committed: forget it.
    case acknowledged = 2
    /// Send its result once more.
    case sendAgain = 3
    /// The lease is no longer valid: stop, and forget the result.
    case abandon = 4
}

/// A task on its way to a worker: lease (8), attempt (4), failures (4), epoch (2), flags (1: bit 0
/// suspect, bit 1 arguments in the store), reserved (1), added (8, nanoseconds since 1970), envelope.
///
/// With arguments in the store a reference (24) and the envelope's head stand for the envelope.
package struct LeasedTask: Sendable, Equatable {
    package var lease: Lease
    package var attempt: UInt32
    package var failures: UInt32
    package var epoch: UInt16
    package var isSuspect: Bool
    package var addedAt: Timestamp
    /// Where the arguments lie; `nil`: they follow in the envelope.
    package var arguments: PayloadReference?

    package init(
        lease: Lease,
        attempt: UInt32,
        failures: UInt32,
        epoch: UInt16,
        isSuspect: Bool,
        addedAt: Timestamp,
        arguments: PayloadReference? = nil
    ) {
        self.lease = lease
        self.attempt = attempt
        self.failures = failures
        self.epoch = epoch
        self.isSuspect = isSuspect
        self.addedAt = addedAt
        self.arguments = arguments
    }

    /// Writes it with its envelope, or with the head of that where the arguments are in the store.
    package func write(envelope: UnsafeRawBufferPointer, to writer: inout WireWriter) {
        writer.integer(lease.rawValue)
        writer.integer(attempt)
        writer.integer(failures)
        writer.integer(epoch)
        writer.u8((isSuspect ? 1 : 0) | (arguments != nil ? 2 : 0))
        writer.u8(0)
        writer.integer(addedAt.nanoseconds)
        arguments?.write(to: &writer)
        writer.raw(envelope)
    }

    /// Reads what stands before the envelope.
    package init(from reader: inout WireReader) throws(WireError) {
        lease = try reader.lease("lease")
        attempt = try reader.integer("attempt")
        failures = try reader.integer("failures")
        epoch = try reader.integer("epoch")
        let flags = try reader.u8("flags")
        isSuspect = flags & 1 != 0
        _ = try reader.u8("reserved")
        addedAt = Timestamp(nanoseconds: try reader.integer("added"))
        arguments = flags & 2 != 0 ? try PayloadReference(from: &reader) : nil
    }

    /// Reads what follows it: the envelope, or its head where the arguments are in the store.
    package func envelope(from reader: inout WireReader) throws(WireError) -> Envelope {
        guard let arguments else { return try Envelope(from: &reader) }
        let head = try Envelope(headFrom: &reader)
        guard head.argumentBytes == Int(arguments.count), head.bytes.count <= arguments.start
        else { throw .invalid(field: "arguments") }
        return head
    }
}
