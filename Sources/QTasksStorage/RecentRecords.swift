// Part of QTasks. License: see LICENSE.

import AppendLog

/// The newest records' bytes, since most of them are wanted once more within milliseconds.
///
/// An add is, for its lease; add and result are, for the record of a task that is waited for. Reading
/// them back from the log took more than half of Storage's time.
///
/// A ring of fixed size: what is overwritten is read from the log again.
struct RecentRecords {
    private static let ringBytes = 8 << 20

    /// Larger ones would push too many others out.
    private static let recordBytesMax = 16 << 10

    private static let slotCount = 1 << 15

    private struct Slot {
        var position = RecordPosition.none
        /// Counted from the ring's first byte ever.
        var start: UInt64 = 0
        var count = 0
    }

    // Made with the first record, so that a state that only reads costs nothing.
    private var ring: [UInt8] = []
    private var slots: [Slot] = []
    private var end: UInt64 = 0

    /// Keeps a record, head and body, for a while.
    mutating func keep(
        _ position: RecordPosition,
        _ head: [UInt8],
        _ body: UnsafeRawBufferPointer
    ) {
        let count = head.count + body.count
        guard count <= Self.recordBytesMax else { return }
        if ring.isEmpty {
            ring = [UInt8](repeating: 0, count: Self.ringBytes)
            slots = [Slot](repeating: Slot(), count: Self.slotCount)
        }
        let left = Self.ringBytes - Int(end % UInt64(Self.ringBytes))
        if left < count { end += UInt64(left) }
        let start = Int(end % UInt64(Self.ringBytes))
        ring.withUnsafeMutableBytes { ring in
            head.withUnsafeBytes {
                UnsafeMutableRawBufferPointer(rebasing: ring[start...]).copyMemory(from: $0)
            }
            UnsafeMutableRawBufferPointer(rebasing: ring[(start + head.count)...])
                .copyMemory(from: body)
        }
        slots[Self.slot(of: position)] = Slot(position: position, start: end, count: count)
        end += UInt64(count)
    }

    /// Lends a record's bytes; `nil` where they are not here any more.
    func withRecord<Result>(
        at position: RecordPosition,
        _ body: (UnsafeRawBufferPointer) -> Result
    ) -> Result? {
        guard !ring.isEmpty else { return nil }
        let slot = slots[Self.slot(of: position)]
        guard slot.position == position, end - slot.start <= UInt64(Self.ringBytes) else {
            return nil
        }
        let start = Int(slot.start % UInt64(Self.ringBytes))
        return ring.withUnsafeBytes {
            body(UnsafeRawBufferPointer(rebasing: $0[start..<start + slot.count]))
        }
    }

    /// Records begin at multiples of 8 bytes.
    private static func slot(of position: RecordPosition) -> Int {
        Int((position.offset >> 3 ^ position.segment &* 0x9E37_79B9) % UInt32(slotCount))
    }
}

extension RecentRecords {
    /// Lends a record's bytes, from here or from the log.
    ///
    /// - Throws: Where the log has to be asked and can't read the record.
    func withRecord<Result>(
        at position: RecordPosition,
        or log: some TaskLog,
        _ body: (UnsafeRawBufferPointer) -> Result
    ) throws(AppendLogError) -> Result {
        if let result = withRecord(at: position, body) { return result }
        return try log.withRecord(at: position, body)
    }
}
