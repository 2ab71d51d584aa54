// Part of QTasks. License: see LICENSE.
//
// How a segment begins. FileFormat.md tells it again: change both, and count the format up.

/// The first bytes of a segment file.
///
/// ```
///  offset  bytes  field
///       0      8  "APPLOGSG"
///       8      4  format version
///      12      4  the segment's number, as in its name
///      16      4  salt, random: every checksum in this segment begins with it
///      20      4  incarnation that began it
///      24      8  sequence of its first record
///      32      4  number of the segment before it, 0 for none
///      36      4  where that one ends: what lies behind is not part of the log
///      40      8  stamp, the owner's: not less than that of the segment before
///      48     12  zero
///      60      4  CRC-32C of bytes 0 to 59
/// ```
///
/// Without its salt a whole segment could not be checked, so the same 64 bytes stand again at 512,
/// in another sector. The first group begins at 1024.
struct SegmentHeader: Hashable {
    static let magic: UInt64 = 0x4753_474F_4C50_5041
    static let bytes = 64
    static let copyOffset = 512
    /// The bytes before the first group.
    static let areaBytes = 1024

    var index: UInt32
    var salt: UInt32
    var incarnation: UInt32
    var firstSequence: UInt64
    /// Where the log before this segment ends; segment 0 means that there is none.
    var predecessor: RecordPosition
    /// What the owner said last before the segment was begun, such as a time.
    var stamp: UInt64 = 0

    /// Writes the whole area of 1024 bytes.
    func encode(to target: UnsafeMutableRawPointer) {
        target.initializeMemory(as: UInt8.self, repeating: 0, count: Self.areaBytes)
        for copy in [target, target + Self.copyOffset] {
            copy.store(Self.magic, at: 0)
            copy.store(LogFormat.version, at: 8)
            copy.store(index, at: 12)
            copy.store(salt, at: 16)
            copy.store(incarnation, at: 20)
            copy.store(firstSequence, at: 24)
            copy.store(predecessor.segment, at: 32)
            copy.store(predecessor.offset, at: 36)
            copy.store(stamp, at: 40)
            copy.store(UnsafeRawPointer(copy).crc32c(60), at: 60)
        }
    }
}

extension SegmentHeader {
    /// Reads the first whole copy; `nil` where there is none.
    ///
    /// - Throws: ``AppendLogError/newerFormat(path:version:supported:)``.
    static func decode(
        _ area: UnsafeRawBufferPointer,
        path: String
    ) throws(AppendLogError) -> Self? {
        guard let base = area.baseAddress else { return nil }
        for offset in [0, copyOffset] where area.count >= offset + bytes {
            let copy = base + offset
            guard copy.number(0) == magic, copy.number(60) == copy.crc32c(60) else { continue }
            try LogFormat.check(copy.number(8), path: path)
            let header = Self(
                index: copy.number(12),
                salt: copy.number(16),
                incarnation: copy.number(20),
                firstSequence: copy.number(24),
                predecessor: RecordPosition(segment: copy.number(32), offset: copy.number(36)),
                stamp: copy.number(40)
            )
            if header.isPossible { return header }
        }
        return nil
    }

    private var isPossible: Bool {
        max(index, incarnation) <= LogFormat.numberMax && incarnation > 0
            && firstSequence <= LogFormat.sequenceMax
            && predecessor.segment < index && predecessor.isPossible
    }
}

extension RecordPosition {
    /// Whether a record may begin or end there, or it says that there is none.
    var isPossible: Bool {
        segment == 0
            || Int(offset) >= SegmentHeader.areaBytes
                && Int(offset).isMultiple(of: RecordHeader.alignment)
    }
}

/// What the files of a store have in common.
enum LogFormat {
    /// Counted up with any change to a byte on disk.
    static let version: UInt32 = 2

    /// No store gets as far as that: what says more is not one of ours, whatever its checksum.
    ///
    /// It leaves room to count on.
    static let sequenceMax: UInt64 = 1 << 62
    /// The same for segments, checkpoints and incarnations.
    static let numberMax: UInt32 = 1 << 31
    /// The same for a place in a segment.
    static let offsetMax = Int(UInt32.max) - 7

    static let metaName = "meta"
    static let lockName = "lock"

    static func segmentName(_ index: UInt32) -> String {
        "segment-" + digits(index)
    }

    /// The number in a segment's name; `nil` where the name is another file's.
    static func segmentIndex(_ name: String) -> UInt32? {
        number(in: name, after: "segment-")
    }

    static func checkpointName(_ number: UInt32) -> String {
        "checkpoint-" + digits(number)
    }

    /// The number in a checkpoint's name; `nil` where the name is another file's.
    static func checkpointNumber(_ name: String) -> UInt32? {
        number(in: name, after: "checkpoint-")
    }

    /// Behind the name of a file that isn't complete yet.
    static let unfinished = ".new"

    private static func digits(_ number: UInt32) -> String {
        let digits = String(number)
        return String(repeating: "0", count: 10 - digits.count) + digits
    }

    private static func number(in name: String, after prefix: String) -> UInt32? {
        guard name.utf8.count == prefix.utf8.count + 10, name.hasPrefix(prefix),
            let number = UInt32(name.dropFirst(prefix.count)), number <= numberMax
        else { return nil }
        return number
    }

    static func check(_ version: UInt32, path: String) throws(AppendLogError) {
        guard version <= Self.version else {
            throw .newerFormat(path: path, version: version, supported: Self.version)
        }
    }
}
