// Part of QTasks. License: see LICENSE.
//
// How a record lies on disk. FileFormat.md tells it again: change both, and count the format up.

/// What stands before a record's payload.
///
/// ```
///  offset  bytes  field
///       0      2  "QR"
///       2      1  kind, the owner's
///       3      1  flags, the owner's
///       4      4  payload length in bytes
///       8      8  sequence
///      16      4  CRC-32C of the payload
///      20      4  CRC-32C of bytes 0 to 19
///      24      n  payload, then zeros up to the next multiple of 8
/// ```
///
/// Both checksums begin with the segment's salt XOR the record's offset in it, so that neither
/// bytes of another segment nor bytes that were copied to another place pass for a record. The
/// header's own checksum keeps the framing where only a payload is damaged.
struct RecordHeader: Hashable {
    static let magic: UInt16 = 0x5251
    static let bytes = 24
    static let alignment = 8

    var kind: UInt8
    var flags: UInt8
    var payloadBytes: Int
    var sequence: UInt64
    var payloadChecksum: UInt32

    /// The bytes a record takes up on disk, header and padding included.
    static func bytesOnDisk(payloadBytes: Int) -> Int {
        (bytes + payloadBytes + alignment - 1) / alignment * alignment
    }

    var bytesOnDisk: Int {
        Self.bytesOnDisk(payloadBytes: payloadBytes)
    }

    /// Writes the header.
    func encode(to target: UnsafeMutableRawPointer, seed: UInt32) {
        target.store(Self.magic, at: 0)
        target.store(kind, at: 2)
        target.store(flags, at: 3)
        target.store(UInt32(payloadBytes), at: 4)
        target.store(sequence, at: 8)
        target.store(payloadChecksum, at: 16)
        target.store(UnsafeRawPointer(target).crc32c(20, seed: seed), at: 20)
    }
}

extension RecordHeader {
    /// Reads the header at `source`; `nil` where none stands there.
    ///
    /// At least 24 bytes are readable.
    init?(_ source: UnsafeRawPointer, seed: UInt32) {
        guard source.number(0, as: UInt16.self) == Self.magic,
            source.number(20) == source.crc32c(20, seed: seed)
        else { return nil }
        kind = source.number(2)
        flags = source.number(3)
        payloadBytes = Int(source.number(4, as: UInt32.self))
        sequence = source.number(8)
        payloadChecksum = source.number(16)
    }
}
