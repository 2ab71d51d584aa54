// Part of QTasks. License: see LICENSE.

import AppendLog
import QTasksModel
import QTasksStorage

extension Ledger.Record {
    init(_ record: borrowing RecordView) {
        self.init(
            sequence: record.sequence,
            kind: record.kind,
            bytes: Array(record.payload)
        )
    }
}

/// The production log, with everything that is appended shown to the checker.
final class AuditedLog: OverheardLog {
    let log: Log
    private unowned let storage: SimulatedStorage

    /// See ``PlantedFault/forgottenCarriedForward``.
    var carriedForgotten: Set<TaskID> = []

    init(_ log: Log, by storage: SimulatedStorage) {
        self.log = log
        self.storage = storage
    }

    var kept: Log { log }

    func watermarks() -> Watermarks { log.watermarks() }

    func carry(
        _ view: borrowing RecordView,
        kind: UInt8,
        flags: UInt8,
        payloadBytes: Int,
        fill: (UnsafeMutableRawBufferPointer) -> Void
    ) throws(AppendLogError) -> RecordPosition {
        guard let plant = storage.world.plant else {
            return try log.carry(
                view,
                kind: kind,
                flags: flags,
                payloadBytes: payloadBytes,
                fill: fill
            )
        }
        storage.world.carried.append(view.sequence)
        var record = CarriedRecord(kind: kind, payload: Array(repeating: 0, count: payloadBytes))
        record.payload.withUnsafeMutableBytes { fill($0) }
        let ledger = storage.world.checker.ledger
        var position = RecordPosition.none
        for record in plant.tamper(record, sequence: view.sequence, by: self, ledger) {
            position = try log.carry(
                view,
                kind: record.kind,
                flags: flags,
                payloadBytes: record.payload.count
            ) { $0.copyBytes(from: record.payload) }
        }
        return position
    }

    func append(
        kind: StoredKind,
        head: [UInt8],
        body: UnsafeRawBufferPointer
    ) throws(AppendLogError) -> StoredPlace {
        var head = head
        if storage.world.plant == .dueByWallClockAfterAStep { forgetBoot(kind, &head) }
        if storage.world.plant == .requeueWithoutEpoch { keepEpoch(kind, &head) }
        let place = try log.append(kind: kind, head: head, body: body)
        let record = Ledger.Record(
            sequence: place.sequence,
            kind: kind.rawValue,
            bytes: head + Array(body)
        )
        storage.world.checker.appended(record, by: storage)
        return place
    }

    /// See ``PlantedFault/requeueWithoutEpoch``; `StoredRequeue` has the layout.
    private func keepEpoch(_ kind: StoredKind, _ head: inout [UInt8]) {
        guard kind == .requeue, head.count == 26 else { return }
        let epoch = UInt16(head[24]) | UInt16(head[25]) << 8
        head.replaceSubrange(24..<26, with: [UInt8(epoch &- 1 & 255), UInt8((epoch &- 1) >> 8)])
    }

    /// See ``PlantedFault/dueByWallClockAfterAStep``; `StoredAdd` has the layout.
    private func forgetBoot(_ kind: StoredKind, _ head: inout [UInt8]) {
        guard kind == .add, head.count >= 41, head[8] & 1 != 0 else { return }
        head.replaceSubrange(17..<25, with: repeatElement(0, count: 8))
    }
}
