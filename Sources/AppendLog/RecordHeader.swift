// Part of QTasks. License: see LICENSE.
//
// How a record lies on disk. FileFormat.md tells it again: change both, and count the format up.

/// What stands before a record's payload.
///
/// ```
///  as it was appended                      carried forward by compaction
///  offset  bytes  field                    offset  bytes  field
///       0      2  "QR"                          0      2  "QC"
///       2      1  kind, the owner's             2      1  kind
///       3      1  flags, the owner's            3      1  flags
///       4      4  payload length in bytes       4      4  payload length
///       8      8  sequence                      8      8  sequence it always had
///      16      4  CRC-32C of the payload       16      4  CRC-32C of the payload
///      20      4  CRC-32C of bytes 0 to 19     20      8  source: segment, offset
///                                              28      4  CRC-32C of bytes 0 to 27
///      24      n  payload, zeros to 8          32      n  payload, zeros to 8
/// ```
///
/// All checksums begin with the segment's salt XOR the record's offset in it, so that neither
/// bytes of another segment nor bytes that were copied to another place pass for a record. The
/// header's own checksum keeps the framing where only a payload is damaged.
struct RecordHeader: Hashable {
    static let magic: UInt16 = 0x5251
    static let carriedMagic: UInt16 = 0x4351
    static let bytes = 24
    static let carriedBytes = 32
    static let alignment = 8

    var kind: UInt8
    var flags: UInt8
    var payloadBytes: Int
    var sequence: UInt64
    var payloadChecksum: UInt32
    /// Where the record stood that this one stands for; `nil` where it was appended itself.
    var source: RecordPosition?

    /// The bytes a record takes up on disk, header and padding included.
    static func bytesOnDisk(payloadBytes: Int, isCarried: Bool = false) -> Int {
        let header = isCarried ? carriedBytes : bytes
        return (header + payloadBytes + alignment - 1) / alignment * alignment
    }

    var headerBytes: Int {
        source == nil ? Self.bytes : Self.carriedBytes
    }

    var bytesOnDisk: Int {
        Self.bytesOnDisk(payloadBytes: payloadBytes, isCarried: source != nil)
    }

    /// Writes the header.
    func encode(to target: UnsafeMutableRawPointer, seed: UInt32) {
        target.store(source == nil ? Self.magic : Self.carriedMagic, at: 0)
        target.store(kind, at: 2)
        target.store(flags, at: 3)
        target.store(UInt32(payloadBytes), at: 4)
        target.store(sequence, at: 8)
        target.store(payloadChecksum, at: 16)
        if let source {
            target.store(source.segment, at: 20)
            target.store(source.offset, at: 24)
        }
        let checked = headerBytes - 4
        target.store(UnsafeRawPointer(target).crc32c(checked, seed: seed), at: checked)
    }
}

extension RecordHeader {
    /// Reads the header at `source`; `nil` where none stands there.
    ///
    /// - Parameters:
    ///   - source: Where it would begin; `available` bytes are readable there.
    ///   - available: Less than a header needs is none.
    ///   - seed: The segment's salt XOR the offset.
    init?(_ source: UnsafeRawPointer, available: Int, seed: UInt32) {
        guard available >= Self.bytes else { return nil }
        let magic: UInt16 = source.number(0)
        guard magic == Self.magic || magic == Self.carriedMagic else { return nil }
        let isCarried = magic == Self.carriedMagic
        let checked = (isCarried ? Self.carriedBytes : Self.bytes) - 4
        guard available >= checked + 4,
            source.number(checked) == source.crc32c(checked, seed: seed)
        else { return nil }
        kind = source.number(2)
        flags = source.number(3)
        payloadBytes = Int(source.number(4, as: UInt32.self))
        sequence = source.number(8)
        payloadChecksum = source.number(16)
        self.source =
            isCarried
            ? RecordPosition(segment: source.number(20), offset: source.number(24)) : nil
        guard sequence <= LogFormat.sequenceMax else { return nil }
    }

    /// Reads the header of a record of which all is as it was written; `nil` where none stands there.
    init?(ofWhole source: UnsafeRawPointer, available: Int, seed: UInt32) {
        self.init(source, available: available, seed: seed)
        guard bytesOnDisk <= available,
            (source + headerBytes).crc32c(payloadBytes, seed: seed) == payloadChecksum
        else { return nil }
    }

    /// Reads a header in which one bit is flipped; `nil` where that doesn't explain what stands there.
    ///
    /// CRC-32C keeps any two headers at least six bits apart (Koopman, "32-bit cyclic redundancy codes
    /// for internet applications", 2002), so what one flip away passes is what was written.
    init?(mending source: UnsafeRawPointer, available: Int, seed: UInt32) {
        let count = min(available, Self.carriedBytes)
        guard count >= Self.bytes else { return nil }
        var copy = [UInt8](UnsafeRawBufferPointer(start: source, count: count))
        let mended = copy.withUnsafeMutableBytes { bytes -> RecordHeader? in
            guard let base = bytes.baseAddress else { return nil }
            for bit in 0..<count * 8 {
                bytes[bit / 8] ^= 1 << UInt8(bit % 8)
                if let header = RecordHeader(UnsafeRawPointer(base), available: count, seed: seed) {
                    return header
                }
                bytes[bit / 8] ^= 1 << UInt8(bit % 8)
            }
            return nil
        }
        guard let mended else { return nil }
        self = mended
    }
}
