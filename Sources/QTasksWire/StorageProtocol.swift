// Part of QTasks. License: see LICENSE.
//
// What the Broker proposes to Storage and what Storage answers. Inside the system: both ends are
// always of one build, so this may change with any release.

package import QTasksModel

/// Why a lease is given back without a result.
package enum ReleaseCause: UInt8, Sendable {
    /// The worker's process ended.
    case death = 1
    /// The worker lives and does not hold the lease: it never arrived.
    case notHeld = 2
    /// The worker doesn't know the task's name, or is on its way out.
    case handedBack = 3
    /// The system is stopping.
    case drain = 4
    /// The worker is gone since before this Broker began, or the host was restarted.
    case goneBefore = 5
    /// The worker can't read the arguments where it was told that they are: the next one is sent
    /// them. In the log it is ``handedBack``.
    case unreadable = 6
    /// The worker was ended because another task in it, or one that was cancelled, went on for too long.
    case neighbour = 7
    /// The worker's process can't be watched, and nothing has been heard of it: a guess. It may still
    /// run the task; its result will be refused.
    case silence = 8
}

/// One item of `PROPOSE`: a kind (1 byte), then the case's fields.
///
/// A large envelope isn't copied into the message: where the last item is an add and lacks its
/// envelope, a second frame has it.
package enum Proposal {
    /// Storage answers `added`, `exists` or `refused`.
    case add(
        number: UInt64,
        isWatched: Bool,
        lease: Lease,
        worker: WorkerID,
        envelope: UnsafeRawBufferPointer
    )
    /// Storage answers `leased`, `stale` or `early`, see ``QueuedPlace``; `synced`: only once the lease is
    /// durable.
    case lease(number: UInt64, place: QueuedPlace, lease: Lease, worker: WorkerID, synced: Bool)
    /// Storage answers `released`. `isShared`: more than one task was in that process.
    case release(
        number: UInt64,
        holding: Holding,
        cause: ReleaseCause,
        isShared: Bool,
        counts: Bool
    )
    /// Storage answers `final` once the task has ended, or at once if there is none.
    case watch(id: TaskID)
    /// Storage answers `record`; `isWhole`: with all of its bytes, see ``PlacedRecord``.
    case read(number: UInt64, id: TaskID, isWhole: Bool)
    /// Who a worker is; told before its first lease.
    case worker(id: WorkerID, process: WorkerProcess)
    /// Storage answers `counts`.
    case count(number: UInt64)
    /// Storage answers `compacted` or `notCompacted`, once it is over.
    case compact(number: UInt64)
    /// Whether this worker may be told of large arguments by their place in the store; no, unless
    /// that was said in this session.
    case reader(id: WorkerID, Bool)
    /// Storage answers `changed`.
    case change(number: UInt64, TaskChange, id: TaskID, reason: String)
    /// Storage answers `finished`, or `released` where the lease no longer holds.
    case overdue(number: UInt64, holding: Holding, OverdueAttempt)
    /// Storage answers `queue`.
    case queue(number: UInt64, QueueMessage)
    /// How a worker's process ended; after the releases of what it held. Storage answers `evidence` once
    /// that is written with all of them.
    case evidence(number: UInt64, ExitMessage)

    package func write(to writer: inout WireWriter) {
        switch self {
        case .add(let number, let isWatched, let lease, let worker, let envelope):
            writer.u8(1)
            writer.integer(number)
            writer.u8(isWatched ? 1 : 0)
            writer.integer(lease.rawValue)
            writer.worker(worker)
            writer.raw(envelope)
        case .lease(let number, let place, let lease, let worker, let synced):
            writer.u8(2)
            writer.integer(number)
            place.write(to: &writer)
            writer.integer(lease.rawValue)
            writer.worker(worker)
            writer.u8(synced ? 1 : 0)
        case .release(let number, let holding, let cause, let isShared, let counts):
            writer.u8(3)
            writer.integer(number)
            holding.write(to: &writer)
            writer.u8(cause.rawValue)
            writer.u8((isShared ? 1 : 0) | (counts ? 2 : 0))
        case .watch(let id):
            writer.u8(4)
            writer.id(id)
        case .read(let number, let id, let isWhole):
            writer.u8(5)
            writer.integer(number)
            writer.id(id)
            writer.u8(isWhole ? 1 : 0)
        case .worker(let id, let process):
            writer.u8(6)
            writer.worker(id)
            process.write(to: &writer)
        case .count(let number):
            writer.u8(7)
            writer.integer(number)
        case .compact(let number):
            writer.u8(8)
            writer.integer(number)
        case .reader(let id, let isReader):
            writer.u8(9)
            writer.worker(id)
            writer.u8(isReader ? 1 : 0)
        case .change(let number, let change, let id, let reason):
            writer.u8(10)
            writer.integer(number)
            writer.u8(change.rawValue)
            writer.id(id)
            writer.text(reason)
        case .overdue(let number, let holding, let overdue):
            writer.u8(11)
            writer.integer(number)
            holding.write(to: &writer)
            overdue.write(to: &writer)
        case .queue(let number, let message):
            writer.u8(15)
            writer.integer(number)
            writer.u8(UInt8(message.queue.utf8.count))
            message.write(to: &writer)
        case .evidence(let number, let exit):
            writer.u8(12)
            writer.integer(number)
            exit.write(to: &writer)
        }
    }

    /// Reads the next proposal.
    ///
    /// - Parameters:
    ///   - reader: The message.
    ///   - attachment: The message's second frame, if there is one: the envelope of the add that ends
    ///     the first.
    /// - Throws: ``WireError`` where none stands there.
    package init(
        from reader: inout WireReader,
        attachment: UnsafeRawBufferPointer? = nil
    ) throws(WireError) {
        switch try reader.u8("proposal") {
        case 1:
            let number = try reader.integer("number", as: UInt64.self)
            let flags = try reader.u8("flags")
            let lease = try reader.lease("lease")
            let worker = try reader.worker("worker")
            var following = reader
            if reader.isAtEnd, let attachment { following = WireReader(attachment) }
            let envelope = try Envelope(from: &following)
            if !reader.isAtEnd { reader = following }
            self = .add(
                number: number,
                isWatched: flags & 1 != 0,
                lease: lease,
                worker: worker,
                envelope: envelope.bytes
            )
        case 2:
            self = .lease(
                number: try reader.integer("number"),
                place: try QueuedPlace(from: &reader),
                lease: try reader.lease("lease"),
                worker: try reader.worker("worker"),
                synced: try reader.u8("flags") & 1 != 0
            )
        case 3:
            let number = try reader.integer("number", as: UInt64.self)
            let holding = try Holding(from: &reader)
            guard let cause = ReleaseCause(rawValue: try reader.u8("cause")) else {
                throw WireError.invalid(field: "cause")
            }
            let flags = try reader.u8("flags")
            self = .release(
                number: number,
                holding: holding,
                cause: cause,
                isShared: flags & 1 != 0,
                counts: flags & 2 != 0
            )
        case 4: self = .watch(id: try reader.id("id"))
        case 5:
            self = .read(
                number: try reader.integer("number"),
                id: try reader.id("id"),
                isWhole: try reader.u8("flags") & 1 != 0
            )
        case 6:
            self = .worker(
                id: try reader.worker("worker"),
                process: try WorkerProcess(from: &reader)
            )
        case 7: self = .count(number: try reader.integer("number"))
        case 8: self = .compact(number: try reader.integer("number"))
        case 9: self = .reader(id: try reader.worker("worker"), try reader.u8("flags") & 1 != 0)
        case 10:
            let number = try reader.integer("number", as: UInt64.self)
            guard let change = TaskChange(rawValue: try reader.u8("change")) else {
                throw WireError.invalid(field: "change")
            }
            self = .change(
                number: number,
                change,
                id: try reader.id("id"),
                reason: try reader.text("reason")
            )
        case 11:
            self = .overdue(
                number: try reader.integer("number"),
                holding: try Holding(from: &reader),
                try OverdueAttempt(from: &reader)
            )
        case 15:
            let number = try reader.integer("number", as: UInt64.self)
            let count = Int(try reader.u8("queue byte count"))
            self = .queue(number: number, try QueueMessage(from: &reader, queueBytes: count))
        case 12:
            self = .evidence(
                number: try reader.integer("number"),
                try ExitMessage(from: &reader)
            )
        default: throw .invalid(field: "proposal")
        }
    }
}

/// `OPENED`: Storage is there: incarnation (4), its pid (4), GlobalConfig's pid (4; 0: not yet), the newest
/// record that the snapshot which follows speaks of (8).
///
/// Its number is that of the session. Each `PROPOSE` repeats it: what the Broker proposed before it
/// read the newest `OPENED` follows from a picture that is void by then, and is passed over.
package struct Opened: Sendable, Equatable {
    package var incarnation: UInt32
    package var pid: Int32
    package var globalConfigPid: Int32
    /// It may not be written yet.
    package var lastSequence: UInt64

    package init(
        incarnation: UInt32,
        pid: Int32,
        globalConfigPid: Int32,
        lastSequence: UInt64 = 0
    ) {
        self.incarnation = incarnation
        self.pid = pid
        self.globalConfigPid = globalConfigPid
        self.lastSequence = lastSequence
    }

    package func encoded(session: UInt64 = 0) -> [UInt8] {
        var writer = WireWriter(.opened, number: session)
        writer.integer(incarnation)
        writer.integer(pid)
        writer.integer(globalConfigPid)
        writer.integer(lastSequence)
        return writer.bytes
    }

    package init(from reader: inout WireReader) throws(WireError) {
        incarnation = try reader.integer("incarnation")
        pid = try reader.integer("pid")
        globalConfigPid = try reader.integer("GlobalConfig pid")
        lastSequence = try reader.integer("newest record")
    }
}

/// How Storage answers a worker's result.
package enum ResultVerdict: UInt8, Sendable {
    /// It is in the log, as durable as its task asked; or was already.
    case committed = 0
    /// The lease is no longer the task's.
    case stale = 1
    /// There is no such task.
    case gone = 2
}

/// One item of `VERDICTS` (which begins with the watermarks: written and durable, 8 each).
package enum Verdict {
    /// `due`: ``DueTime/none`` unless it is delayed. `leased`: with the lease that was proposed;
    /// `arguments`: where its worker can read them.
    case added(
        number: UInt64,
        place: QueuedPlace,
        leased: Bool,
        due: DueTime,
        addedAt: Timestamp,
        arguments: PayloadReference? = nil
    )
    case exists(number: UInt64, sequence: UInt64, status: TaskStatus)
    case refused(number: UInt64, Refusal)
    /// Another task holds the add's unique key, by a record of this sequence; `isSynced`: that has to be
    /// durable before anybody hears of it.
    case same(number: UInt64, id: TaskID, sequence: UInt64, isSynced: Bool)
    /// `envelope`: its head, where the arguments are in the store.
    case leased(number: UInt64, LeasedTask, envelope: UnsafeRawBufferPointer)
    case stale(number: UInt64, status: TaskStatus?)
    /// Answers `lease`: the wall clock was set back, and the task waits for its time again.
    case early(number: UInt64, due: DueTime)
    /// What holds now: `new`, `dead`, or whatever it was already.
    case released(number: UInt64, holding: Holding, status: TaskStatus?, isSuspect: Bool)
    /// An attempt's end, for the worker that sent it. `record` is empty unless it is watched and final.
    case finished(
        holding: Holding,
        worker: WorkerID,
        verdict: ResultVerdict,
        status: TaskStatus?,
        due: DueTime,
        record: UnsafeRawBufferPointer
    )
    /// `record` is empty: there is no such task. Here and below it may be a ``PlacedRecord``.
    case record(number: UInt64, record: UnsafeRawBufferPointer)
    /// The end of a watched task; `record` is empty: there is no such task.
    case final(id: TaskID, record: UnsafeRawBufferPointer)
    /// Tasks by name and status, see ``TaskCounts``.
    case counts(number: UInt64, bytes: UnsafeRawBufferPointer)
    /// The compaction that was asked for is over.
    case compacted(number: UInt64, Compacted)
    case notCompacted(number: UInt64, Refusal)
    /// As durable as the task asked.
    case changed(number: UInt64, ChangeVerdict)
    /// A queue's rules, once they are on disk.
    case queue(number: UInt64, String, QueueVerdict)
    /// What there was to record of a death is written.
    case evidence(number: UInt64)

    package func write(to writer: inout WireWriter) {
        switch self {
        case .added(let number, let place, let leased, let due, let addedAt, let arguments):
            writer.u8(1)
            writer.integer(number)
            place.write(to: &writer)
            writer.u8((leased ? 1 : 0) | (arguments != nil ? 2 : 0))
            writer.integer(due.rawValue)
            writer.integer(addedAt.nanoseconds)
            arguments?.write(to: &writer)
        case .exists(let number, let sequence, let status):
            writer.u8(2)
            writer.integer(number)
            writer.integer(sequence)
            writer.u8(status.code)
        case .refused(let number, let refusal):
            writer.u8(3)
            writer.integer(number)
            writer.u8(refusal.code.rawValue)
            writer.text(refusal.message)
        case .same(let number, let id, let sequence, let isSynced):
            writer.u8(14)
            writer.integer(number)
            writer.id(id)
            writer.integer(sequence)
            writer.u8(isSynced ? 1 : 0)
        case .leased(let number, let task, let envelope):
            writer.u8(4)
            writer.integer(number)
            task.write(envelope: envelope, to: &writer)
        case .stale(let number, let status):
            writer.u8(5)
            writer.integer(number)
            writer.u8(status?.code ?? 0)
        case .early(let number, let due):
            writer.u8(18)
            writer.integer(number)
            writer.integer(due.rawValue)
        case .released(let number, let holding, let status, let isSuspect):
            writer.u8(6)
            writer.integer(number)
            holding.write(to: &writer)
            writer.u8(status?.code ?? 0)
            writer.u8(isSuspect ? 1 : 0)
        case .finished(let holding, let worker, let verdict, let status, let due, let record):
            writer.u8(7)
            holding.write(to: &writer)
            writer.worker(worker)
            writer.u8(verdict.rawValue)
            writer.u8(status?.code ?? 0)
            writer.integer(due.rawValue)
            writer.counted(record)
        case .record(let number, let record):
            writer.u8(8)
            writer.integer(number)
            writer.counted(record)
        case .final(let id, let record):
            writer.u8(9)
            writer.id(id)
            writer.counted(record)
        case .counts(let number, let bytes):
            writer.u8(10)
            writer.integer(number)
            writer.counted(bytes)
        case .compacted(let number, let compacted):
            writer.u8(11)
            writer.integer(number)
            compacted.write(to: &writer)
        case .notCompacted(let number, let refusal):
            writer.u8(12)
            writer.integer(number)
            writer.u8(refusal.code.rawValue)
            writer.text(refusal.message)
        case .changed(let number, let verdict):
            writer.u8(13)
            writer.integer(number)
            verdict.write(to: &writer)
        case .queue(let number, let queue, let verdict):
            writer.u8(20)
            writer.integer(number)
            writer.text(queue)
            verdict.write(to: &writer)
        case .evidence(let number):
            writer.u8(16)
            writer.integer(number)
        }
    }

    package init(from reader: inout WireReader) throws(WireError) {
        switch try reader.u8("verdict") {
        case 1:
            let number = try reader.integer("number", as: UInt64.self)
            let place = try QueuedPlace(from: &reader)
            let flags = try reader.u8("flags")
            self = .added(
                number: number,
                place: place,
                leased: flags & 1 != 0,
                due: try reader.dueTime(),
                addedAt: Timestamp(nanoseconds: try reader.integer("added")),
                arguments: flags & 2 != 0 ? try PayloadReference(from: &reader) : nil
            )
        case 2:
            let number = try reader.integer("number", as: UInt64.self)
            let sequence = try reader.integer("sequence", as: UInt64.self)
            guard let status = try reader.status() else { throw WireError.invalid(field: "status") }
            self = .exists(number: number, sequence: sequence, status: status)
        case 3:
            let number = try reader.integer("number", as: UInt64.self)
            guard let code = RefusalCode(rawValue: try reader.u8("code")) else {
                throw WireError.invalid(field: "code")
            }
            self = .refused(number: number, Refusal(code, try reader.text("message")))
        case 4:
            let number = try reader.integer("number", as: UInt64.self)
            let task = try LeasedTask(from: &reader)
            self = .leased(number: number, task, envelope: try task.envelope(from: &reader).bytes)
        case 5: self = .stale(number: try reader.integer("number"), status: try reader.status())
        case 6:
            self = .released(
                number: try reader.integer("number"),
                holding: try Holding(from: &reader),
                status: try reader.status(),
                isSuspect: try reader.u8("flags") & 1 != 0
            )
        case 7:
            let holding = try Holding(from: &reader)
            let worker = try reader.worker("worker")
            guard let verdict = ResultVerdict(rawValue: try reader.u8("verdict")) else {
                throw WireError.invalid(field: "verdict")
            }
            self = .finished(
                holding: holding,
                worker: worker,
                verdict: verdict,
                status: try reader.status(),
                due: try reader.dueTime(),
                record: try reader.counted("record")
            )
        case 8:
            self = .record(
                number: try reader.integer("number"),
                record: try reader.counted("record")
            )
        case 9: self = .final(id: try reader.id("id"), record: try reader.counted("record"))
        case 10:
            self = .counts(
                number: try reader.integer("number"),
                bytes: try reader.counted("counts")
            )
        case 11:
            self = .compacted(
                number: try reader.integer("number"),
                try Compacted(from: &reader)
            )
        case 12:
            let number = try reader.integer("number", as: UInt64.self)
            guard let code = RefusalCode(rawValue: try reader.u8("code")) else {
                throw WireError.invalid(field: "code")
            }
            self = .notCompacted(number: number, Refusal(code, try reader.text("message")))
        case 13:
            self = .changed(
                number: try reader.integer("number"),
                try ChangeVerdict(from: &reader)
            )
        case 14:
            self = .same(
                number: try reader.integer("number"),
                id: try reader.id("holder"),
                sequence: try reader.integer("sequence"),
                isSynced: try reader.u8("flags") & 1 != 0
            )
        case 18:
            self = .early(number: try reader.integer("number"), due: try reader.dueTime())
        case 20:
            self = .queue(
                number: try reader.integer("number"),
                try reader.text("queue"),
                try QueueVerdict(from: &reader)
            )
        case 16: self = .evidence(number: try reader.integer("number"))
        default: throw .invalid(field: "verdict")
        }
    }
}

extension WireReader {
    mutating func dueTime() throws(WireError) -> DueTime {
        DueTime(rawValue: try integer("due"))
    }

    /// A status by its number; 0 for none.
    package mutating func status() throws(WireError) -> TaskStatus? {
        let code = try u8("status")
        guard code != 0 else { return nil }
        guard let status = TaskStatus(code: code) else { throw .invalid(field: "status") }
        return status
    }
}

/// How many tasks of one name are in each status.
package struct TaskCounts: Sendable, Equatable {
    package var name: String
    package var queue: String
    /// By ``TaskStatus/code`` - 1.
    package var byStatus: [UInt64]

    package init(name: String, queue: String, byStatus: [UInt64]) {
        self.name = name
        self.queue = queue
        self.byStatus = byStatus
    }

    package func write(to writer: inout WireWriter) {
        writer.text(name)
        writer.text(queue)
        for count in byStatus { writer.integer(count) }
    }

    package init(from reader: inout WireReader) throws(WireError) {
        name = try reader.text("name")
        queue = try reader.text("queue")
        byStatus = []
        for _ in TaskStatus.allCases { byStatus.append(try reader.integer("count")) }
    }
}
