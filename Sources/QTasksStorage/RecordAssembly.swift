// Part of QTasks. License: see LICENSE.

import AppendLog
import QTasksModel
import QTasksWire

/// Puts together what the index and the log know of a task, in the form of `TaskRecord.write(to:)`,
/// which a test holds it against.
///
/// The bytes of envelope and outcome go over as they are: decoding them would cost ten allocations
/// for each task that is waited for.
struct RecordAssembly {
    private static let noMoment = Int64.min

    /// The record; empty where the log could not be read.
    private(set) var record = WireWriter()

    // The log can show one record at a time: what the add has goes here while the result is read.
    private var envelope = WireWriter()
    private var addedAt = Timestamp(nanoseconds: 0)
    private var due: StoredDue?

    /// Fills ``record``.
    ///
    /// - Throws: Where a record of the task can't be read; ``record`` is then empty.
    mutating func assemble(
        _ entry: TaskEntry,
        _ worker: WorkerID,
        from recent: RecentRecords,
        _ log: some TaskLog
    ) throws {
        record.removeAll()
        do {
            try recent.withRecord(at: entry.added, or: log) { readAdd($0) }.get()
            if entry.finished == .none {
                write(entry, worker, finish: nil)
            } else {
                try recent.withRecord(at: entry.finished, or: log) { bytes in
                    Result { () throws(WireError) in
                        var reader = WireReader(bytes)
                        write(entry, worker, finish: try StoredFinish(from: &reader))
                    }
                }.get()
            }
            record.raw(envelope.bytes)
        } catch {
            record.removeAll()
            throw error
        }
    }

    private mutating func readAdd(_ bytes: UnsafeRawBufferPointer) -> Result<Void, WireError> {
        Result { () throws(WireError) in
            var reader = WireReader(bytes)
            let add = try StoredAdd(from: &reader)
            addedAt = add.addedAt
            due = add.due
            envelope.removeAll()
            envelope.raw(add.envelope)
        }
    }

    private mutating func write(_ entry: TaskEntry, _ worker: WorkerID, finish: StoredFinish?) {
        // a task is scheduled by its add, or by the retry that ended its last attempt
        let notBefore = entry.status == .scheduled ? (finish?.due ?? due)?.wall : nil
        record.u8(entry.status.code)
        record.u8(finish == nil ? 0 : 2)
        record.integer(entry.epoch)
        record.integer(entry.attempt)
        record.integer(entry.failures)
        record.integer(entry.deaths)
        record.integer(entry.sequence)
        record.integer(entry.lease.rawValue)
        record.worker(worker)
        record.integer(addedAt.nanoseconds)
        record.integer(notBefore?.nanoseconds ?? Self.noMoment)
        record.integer(finish?.result.startedAt.nanoseconds ?? Self.noMoment)
        record.integer(finish?.result.finishedAt.nanoseconds ?? Self.noMoment)
        if let finish { record.raw(finish.result.outcome) }
    }
}
