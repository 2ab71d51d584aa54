// Part of QTasks. License: see LICENSE.
//
// How a checkpoint lies on disk. FileFormat.md tells it again: change both, and count the format up.

/// What a checkpoint's file says of itself.
///
/// ```
///  header                                   block
///  offset  bytes  field                     offset  bytes  field
///       0      8  "APPLOGCP"                     0      2  "QB"
///       8      4  format version                 2      2  zero
///      12      4  number, as in its name         4      4  content length in bytes
///      16      4  salt, random                   8      4  CRC-32C of the content
///      20      4  incarnation                   12      4  CRC-32C of bytes 0 to 11
///      24      8  start sequence                16      n  content, then zeros to 8
///      32      8  start: segment, offset
///      40     20  zero                      trailer, behind the last block
///      60      4  CRC-32C of bytes 0-59     offset  bytes  field
///                                                0      2  "QE"
///                                                2      2  zero
///                                                4      4  number of blocks
///                                                8      8  end sequence
///                                               16      8  end: segment, offset
///                                               24      8  stamp, the owner's
///                                               32      4  zero
///                                               36      4  CRC-32C of bytes 0 to 35
/// ```
///
/// The checksums of blocks and trailer begin with the salt XOR their offset in the file.
///
/// It is fuzzy: it was taken while the log went on. Every change up to the start sequence is in it;
/// of those up to the end sequence some are, and the owner's entries tell which. So reading goes on
/// from the start, and what an entry has already is passed over.
struct Checkpoint: Hashable, Sendable {
    static let magic: UInt64 = 0x5043_474F_4C50_5041
    static let blockMagic: UInt16 = 0x4251
    static let trailerMagic: UInt16 = 0x4551
    static let headerBytes = 64
    static let blockHeaderBytes = 16
    static let trailerBytes = 40
    /// The longest block, header and padding included.
    static let blockBytesMax = 1 << 20

    var number: UInt32
    var salt: UInt32
    var incarnation: UInt32
    /// Every change up to here is in it.
    var startSequence: UInt64
    /// Where the first record behind that begins, or would.
    var start: RecordPosition
    /// No later change is in it, and it refers to no later place.
    var endSequence: UInt64 = 0
    var end = RecordPosition(segment: 0, offset: 0)
    /// What the owner said at its end, such as a time.
    var stamp: UInt64 = 0
    /// Of the file.
    var bytes = 0

    func encodeHeader(to target: UnsafeMutableRawPointer) {
        target.initializeMemory(as: UInt8.self, repeating: 0, count: Self.headerBytes)
        target.store(Self.magic, at: 0)
        target.store(LogFormat.version, at: 8)
        target.store(number, at: 12)
        target.store(salt, at: 16)
        target.store(incarnation, at: 20)
        target.store(startSequence, at: 24)
        target.store(start.segment, at: 32)
        target.store(start.offset, at: 36)
        target.store(UnsafeRawPointer(target).crc32c(60), at: 60)
    }

    /// Writes a block's header before `content`, for the place `offset` of the file.
    func encodeBlockHeader(
        to target: UnsafeMutableRawPointer,
        content: UnsafeRawBufferPointer,
        at offset: Int
    ) {
        let seed = seed(at: offset)
        target.store(Self.blockMagic, at: 0)
        target.store(UInt16(0), at: 2)
        target.store(UInt32(content.count), at: 4)
        target.store(content.baseAddress?.crc32c(content.count, seed: seed) ?? seed, at: 8)
        target.store(UnsafeRawPointer(target).crc32c(12, seed: seed), at: 12)
    }

    func encodeTrailer(to target: UnsafeMutableRawPointer, blocks: Int, at offset: Int) {
        target.initializeMemory(as: UInt8.self, repeating: 0, count: Self.trailerBytes)
        target.store(Self.trailerMagic, at: 0)
        target.store(UInt32(blocks), at: 4)
        target.store(endSequence, at: 8)
        target.store(end.segment, at: 16)
        target.store(end.offset, at: 20)
        target.store(stamp, at: 24)
        target.store(UnsafeRawPointer(target).crc32c(36, seed: seed(at: offset)), at: 36)
    }

    func seed(at offset: Int) -> UInt32 {
        salt ^ UInt32(truncatingIfNeeded: offset)
    }

    /// What a block with this content takes up in the file.
    static func bytesOfBlock(content: Int) -> Int {
        blockHeaderBytes + (content + 7) / 8 * 8
    }
}

extension Checkpoint {
    /// Reads a header; `nil` where none stands there.
    ///
    /// - Throws: ``AppendLogError/newerFormat(path:version:supported:)``.
    init?(header source: UnsafeRawBufferPointer, path: String) throws(AppendLogError) {
        guard source.count >= Self.headerBytes, let base = source.baseAddress,
            base.number(0) == Self.magic, base.number(60) == base.crc32c(60)
        else { return nil }
        try LogFormat.check(base.number(8), path: path)
        number = base.number(12)
        salt = base.number(16)
        incarnation = base.number(20)
        startSequence = base.number(24)
        start = RecordPosition(segment: base.number(32), offset: base.number(36))
        guard startSequence <= LogFormat.sequenceMax, number <= LogFormat.numberMax else {
            return nil
        }
    }

    /// Adds what the trailer says; `nil` where none stands there.
    mutating func readTrailer(_ source: UnsafeRawBufferPointer, at offset: Int) -> Int? {
        guard source.count >= Self.trailerBytes, let base = source.baseAddress,
            base.number(0) == Self.trailerMagic,
            base.number(36) == base.crc32c(36, seed: seed(at: offset))
        else { return nil }
        endSequence = base.number(8)
        end = RecordPosition(segment: base.number(16), offset: base.number(20))
        stamp = base.number(24)
        guard start.isPossible, end.isPossible, start <= end, startSequence <= endSequence else {
            return nil
        }
        return Int(base.number(4, as: UInt32.self))
    }

    /// The content of the block that `source` begins with; `nil` where none stands there whole.
    func block(_ source: UnsafeRawBufferPointer, at offset: Int) -> UnsafeRawBufferPointer? {
        let seed = seed(at: offset)
        guard source.count >= Self.blockHeaderBytes, let base = source.baseAddress,
            base.number(0, as: UInt16.self) == Self.blockMagic,
            base.number(12) == base.crc32c(12, seed: seed)
        else { return nil }
        let count = Int(base.number(4, as: UInt32.self))
        guard Self.bytesOfBlock(content: count) <= source.count,
            (base + Self.blockHeaderBytes).crc32c(count, seed: seed) == base.number(8)
        else { return nil }
        return UnsafeRawBufferPointer(start: base + Self.blockHeaderBytes, count: count)
    }
}
