// Part of QTasks. License: see LICENSE.

import AppendLog
import QTasksStorage

/// A log in memory whose watermarks the test moves by hand.
final class MemoryLog: TaskLog {
    struct Record {
        var kind: StoredKind
        var payload: [UInt8]
    }

    let incarnation: UInt32 = 7
    var isShortOfSpace = false
    /// What every append throws while it is set.
    var refusal: AppendLogError?
    private(set) var records: [Record] = []
    private(set) var marks = Watermarks(written: 0, durable: 0)
    /// How often each segment is held.
    private(set) var holds: [UInt32: Int] = [:]

    var last: UInt64 { UInt64(records.count) }

    func count(_ kind: StoredKind) -> Int { records.count { $0.kind == kind } }

    func append(
        kind: StoredKind,
        head: [UInt8],
        body: UnsafeRawBufferPointer
    ) throws(AppendLogError) -> StoredPlace {
        if let refusal { throw refusal }
        records.append(Record(kind: kind, payload: head + body))
        return place(records.count - 1)
    }

    func withRecord<Result>(
        at position: RecordPosition,
        _ body: (UnsafeRawBufferPointer) -> Result
    ) throws(AppendLogError) -> Result {
        guard position.segment == 1, position.offset < records.count else {
            throw .corrupt(path: "memory", offset: Int(position.offset))
        }
        return records[Int(position.offset)].payload.withUnsafeBytes(body)
    }

    func withStart<Result>(
        of position: RecordPosition,
        _ body: (RecordStart) -> Result
    ) throws(AppendLogError) -> Result? {
        guard position.offset < marks.written else { return nil }
        return try withRecord(at: position) { bytes in
            body(
                RecordStart(
                    sequence: UInt64(position.offset) + 1,
                    recordBytes: bytes.count,
                    bytes: UnsafeRawBufferPointer(rebasing: bytes.prefix(RecordStart.byteCount))
                )
            )
        }
    }

    func hold(_ segment: UInt32) { holds[segment, default: 0] += 1 }

    func unhold(_ segment: UInt32) { holds[segment, default: 0] -= 1 }

    func write() {
        marks.written = last
    }

    func sync() {
        marks = Watermarks(written: last, durable: last)
    }

    /// Folds every record, as an opening does.
    func replay(into state: inout StorageState) throws {
        for (index, record) in records.enumerated() {
            try record.payload.withUnsafeBytes {
                try state.replay(kind: record.kind.rawValue, payload: $0, at: place(index))
            }
        }
    }

    /// Spoils a record, as rot would.
    func damage(_ kind: StoredKind) {
        for index in records.indices where records[index].kind == kind {
            records[index].payload = [1, 2, 3]
        }
    }

    private func place(_ index: Int) -> StoredPlace {
        StoredPlace(
            sequence: UInt64(index) + 1,
            position: RecordPosition(segment: 1, offset: UInt32(index)),
            bytes: records[index].payload.count
        )
    }
}
