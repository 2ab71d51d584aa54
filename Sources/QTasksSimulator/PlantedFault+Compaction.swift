// Part of QTasks. License: see LICENSE.
//
// Mistakes of compaction: what is carried forward is changed on its way into the log.

import AppendLog
import QTasksModel
import QTasksStorage
import QTasksWire

/// A record that compaction writes.
struct CarriedRecord {
    var kind: UInt8
    var payload: [UInt8]
}

extension PlantedFault {
    /// What a `CARRIED` has behind the add (StoredCarried.swift has its layout).
    private static let stateBytes = 108

    /// What goes into the log for a record that stands for an older one, in this order; the last is that
    /// record.
    func tamper(
        _ record: CarriedRecord,
        sequence: UInt64,
        by log: AuditedLog,
        _ ledger: Ledger
    ) -> [CarriedRecord] {
        switch self {
        case .carriedAsAdded: [asAdded(record, sequence)]
        case .replayByPosition:
            // nothing that lies before the copy is newer
            isFinal(sequence, ledger)
                ? [asAdded(record, UInt64(ledger.records.count))] : [record]
        case .finalRecordDroppedBeforeItsAdd:
            isFinal(sequence, ledger) ? [asAdded(record, sequence)] : [record]
        case .forgottenCarriedForward: forgotten(by: log, ledger) + [record]
        default: [record]
        }
    }

    private func isFinal(_ sequence: UInt64, _ ledger: Ledger) -> Bool {
        ledger.adds[sequence].flatMap { ledger.tasks[$0] }?.status.isFinal ?? false
    }

    /// A task without anything that happened to it since its add.
    private func asAdded(_ record: CarriedRecord, _ lastSequence: UInt64) -> CarriedRecord {
        let isDelayed = record.payload.count > 8 && record.payload[8] & 1 != 0
        guard record.kind == StoredKind.carried.rawValue, !isDelayed else { return record }
        return CarriedRecord(
            kind: record.kind,
            payload: record.payload.dropLast(Self.stateBytes)
                + state(.new, lastSequence: lastSequence)
        )
    }

    /// A task that is forgotten, once: the record that says so lies before this from now on, and goes with
    /// its segment.
    private func forgotten(by log: AuditedLog, _ ledger: Ledger) -> [CarriedRecord] {
        let tasks = ledger.forgotten.values.filter { task in
            ledger.tasks[task.id] == nil && !log.carriedForgotten.contains(task.id)
        }
        guard let task = tasks.min(by: { $0.id < $1.id }) else { return [] }
        log.carriedForgotten.insert(task.id)
        let add = ledger.records[Int(task.placement.sequence) - 1].bytes
        let state = state(task.status, lastSequence: task.lastSequence)
        return [CarriedRecord(kind: StoredKind.carried.rawValue, payload: add + state)]
    }

    private func state(_ status: TaskStatus, lastSequence: UInt64) -> [UInt8] {
        var writer = WireWriter()
        writer.u8(status.code)
        writer.raw(Array(repeating: UInt8(0), count: 39))
        writer.integer(lastSequence)
        writer.raw(Array(repeating: UInt8(0), count: Self.stateBytes - 48))
        return writer.bytes
    }
}
