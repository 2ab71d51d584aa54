// Part of QTasks. License: see LICENSE.
//
// How a group's header lies on disk. FileFormat.md tells it again: change both, and count the
// format up.

/// What stands before the records that were handed to the disk together.
///
/// ```
///  offset  bytes  field
///       0      2  "QG"
///       2      2  zero
///       4      4  bytes of the group's records in this segment
///       8      8  durableUpTo: the last sequence known to be durable when this was written
///      16      4  zero
///      20      4  CRC-32C of bytes 0 to 19, begun with the salt XOR the offset
/// ```
///
/// `durableUpTo` tells rot from a tear: a bad record that a later group calls durable was whole
/// once.
struct GroupHeader: Hashable {
    static let magic: UInt16 = 0x4751
    static let bytes = 24

    var recordBytes: Int
    var durableUpTo: UInt64

    func encode(to target: UnsafeMutableRawPointer, seed: UInt32) {
        target.store(Self.magic, at: 0)
        target.store(UInt16(0), at: 2)
        target.store(UInt32(recordBytes), at: 4)
        target.store(durableUpTo, at: 8)
        target.store(UInt32(0), at: 16)
        target.store(UnsafeRawPointer(target).crc32c(20, seed: seed), at: 20)
    }
}

extension GroupHeader {
    /// Reads the header at `source`; `nil` where none stands there.
    ///
    /// At least 24 bytes are readable.
    init?(_ source: UnsafeRawPointer, seed: UInt32) {
        guard source.number(0, as: UInt16.self) == Self.magic,
            source.number(20) == source.crc32c(20, seed: seed)
        else { return nil }
        recordBytes = Int(source.number(4, as: UInt32.self))
        durableUpTo = source.number(8)
        guard durableUpTo <= LogFormat.sequenceMax else { return nil }
    }
}
