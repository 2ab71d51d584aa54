// Part of QTasks. License: see LICENSE.

import AppendLog
import QTasksModel
import QTasksWire

/// Puts together what the index and the log know of a task, in the form of `TaskRecord.write(to:)`,
/// which a test holds it against.
///
/// The bytes of envelope and outcome go over as they are: decoding them would cost ten allocations
/// for each task that is waited for. Large ones don't go over at all, see `PlacedRecord`.
struct RecordAssembly {
    private static let noMoment = Int64.min

    /// The record; empty where the log could not be read.
    private(set) var record = WireWriter()

    // The log can show one record at a time: what the add has goes here while the result is read.
    private var envelope = Part()
    private var outcome = Part()
    private var head = WireWriter()
    private var addedAt = Timestamp(nanoseconds: 0)
    private var due: StoredDue?

    /// A part of the record: bytes, or where they lie.
    private struct Part {
        var bytes = WireWriter()
        var place: PayloadReference?

        mutating func removeAll() {
            bytes.removeAll()
            place = nil
        }
    }

    /// When the last attempt ran.
    private struct Attempt {
        var startedAt: Timestamp
        var finishedAt: Timestamp
        var due: StoredDue?
    }

    /// Fills ``record``.
    ///
    /// - Parameters:
    ///   - entry: The task.
    ///   - worker: Who had it last.
    ///   - least: From which size on parts of it are told by their place.
    ///   - recent: Where the newest records are.
    ///   - log: Where all are.
    /// - Throws: Where a record of the task can't be read; ``record`` is then empty.
    mutating func assemble(
        _ entry: TaskEntry,
        _ worker: WorkerID,
        placingFrom least: Int,
        from recent: RecentRecords,
        _ log: some TaskLog
    ) throws {
        record.removeAll()
        envelope.removeAll()
        outcome.removeAll()
        if entry.addedBytes >= least,
            let placed = try log.withStart(of: entry.added, { placeAdd(entry, $0) })
        {
            try placed.get()
        } else {
            try recent.withRecord(at: entry.added, or: log) { readAdd($0) }.get()
        }
        var attempt: Attempt?
        if entry.finished == .none {
            // it never came to an end
        } else if entry.finishedBytes >= least,
            let placed = try log.withStart(of: entry.finished, { placeFinish(entry, $0) })
        {
            attempt = try placed.get()
        } else {
            attempt = try recent.withRecord(at: entry.finished, or: log) { readFinish($0) }.get()
        }
        head.removeAll()
        writeHead(entry, worker, attempt)
        joinParts()
    }

    private mutating func joinParts() {
        guard envelope.place != nil || outcome.place != nil else {
            record.raw(head.bytes)
            record.raw(outcome.bytes.bytes)
            return record.raw(envelope.bytes.bytes)
        }
        record.beginPlaced()
        record.piece(head.bytes)
        for part in [outcome, envelope] {
            if let place = part.place {
                record.piece(place)
            } else {
                record.piece(part.bytes.bytes)
            }
        }
    }

    private mutating func readAdd(_ bytes: UnsafeRawBufferPointer) -> Result<Void, WireError> {
        Result { () throws(WireError) in
            var reader = WireReader(bytes)
            let add = try StoredAdd(from: &reader)
            addedAt = add.addedAt
            due = add.due
            envelope.bytes.raw(add.envelope)
        }
    }

    private mutating func placeAdd(
        _ entry: TaskEntry,
        _ start: RecordStart
    ) -> Result<Void, WireError> {
        Result { () throws(WireError) in
            var reader = WireReader(start.bytes)
            let add = try StoredAddHead(from: &reader)
            addedAt = add.addedAt
            due = add.due
            let place = reader.position
            let count = try reader.integer("envelope byte count", as: UInt32.self)
            guard try reader.id("task ID") == entry.id, place + Int(count) <= start.recordBytes
            else { throw .invalid(field: "envelope") }
            envelope.place = PayloadReference(entry.added, start.sequence, place, count)
        }
    }

    private mutating func readFinish(
        _ bytes: UnsafeRawBufferPointer
    ) -> Result<Attempt, WireError> {
        Result { () throws(WireError) in
            var reader = WireReader(bytes)
            let finish = try StoredFinish(from: &reader)
            outcome.bytes.raw(finish.result.outcome)
            return Attempt(
                startedAt: finish.result.startedAt,
                finishedAt: finish.result.finishedAt,
                due: finish.due
            )
        }
    }

    private mutating func placeFinish(
        _ entry: TaskEntry,
        _ start: RecordStart
    ) -> Result<Attempt, WireError> {
        Result { () throws(WireError) in
            var reader = WireReader(start.bytes)
            let finish = try StoredFinishHead(from: &reader)
            let place = reader.position
            let count = Int(try reader.integer("result byte count", as: UInt32.self))
            let id = try reader.id("task ID")
            _ = try reader.lease("lease")
            let startedAt = Timestamp(nanoseconds: try reader.integer("start"))
            let finishedAt = Timestamp(nanoseconds: try reader.integer("end"))
            let outcomeBytes = place + count - reader.position
            guard id == entry.id, outcomeBytes >= 0, place + count == start.recordBytes else {
                throw .invalid(field: "result")
            }
            outcome.place = PayloadReference(
                entry.finished,
                start.sequence,
                reader.position,
                UInt32(outcomeBytes)
            )
            return Attempt(startedAt: startedAt, finishedAt: finishedAt, due: finish.due)
        }
    }

    private mutating func writeHead(_ entry: TaskEntry, _ worker: WorkerID, _ attempt: Attempt?) {
        // a task is scheduled by its add, or by the retry that ended its last attempt
        let notBefore = entry.status == .scheduled ? (attempt?.due ?? due)?.wall : nil
        head.u8(entry.status.code)
        head.u8(attempt == nil ? 0 : 2)
        head.integer(entry.epoch)
        head.integer(entry.attempt)
        head.integer(entry.failures)
        head.integer(entry.deaths)
        head.integer(entry.sequence)
        head.integer(entry.lease.rawValue)
        head.worker(worker)
        head.integer(addedAt.nanoseconds)
        head.integer(notBefore?.nanoseconds ?? Self.noMoment)
        head.integer(attempt?.startedAt.nanoseconds ?? Self.noMoment)
        head.integer(attempt?.finishedAt.nanoseconds ?? Self.noMoment)
    }
}

extension PayloadReference {
    init(_ position: RecordPosition, _ sequence: UInt64, _ start: Int, _ count: UInt32) {
        self.init(
            segment: position.segment,
            offset: position.offset,
            sequence: sequence,
            start: UInt32(start),
            count: count
        )
    }
}
