// Part of QTasks. License: see LICENSE.
//
// How a meta page lies on disk. FileFormat.md tells it again: change both, and count the format up.

/// One of the two pages of the file `meta`, which are written in turn; the newer whole one counts.
///
/// ```
///  offset  bytes  field
///       0      8  "APPLOGMT"
///       8      4  format version
///      12      4  incarnation
///      16      8  transaction: the higher one is the newer page
///      24      8  durableAtLeast: every record up to here is on disk
///      32      4  mark: segment in which that record ends, 0 for none
///      36      4  mark: where it ends there
///      40      4  first segment
///      44      4  flags; bit 0: closed by its writer, so the mark is the end of the log
///      48      8  checkpoint: its start sequence
///      56      8  checkpoint: its number, as in its name (0: none)
///      64      8  sequence that the first segment begins with (0, before version 2: 1)
///      72   4020  zero
///    4092      4  CRC-32C of bytes 0 to 4091
/// ```
///
/// Magic, version and checksum keep their places in every later version.
struct MetaPage: Hashable {
    static let magic: UInt64 = 0x544D_474F_4C50_5041
    static let bytes = 4096
    /// What both take up.
    static let fileBytes = 2 * bytes

    var incarnation: UInt32 = 0
    var transaction: UInt64 = 0
    var durableAtLeast: UInt64 = 0
    var mark = RecordPosition(segment: 0, offset: 0)
    var firstSegment: UInt32 = 1
    var isClean = false
    var checkpointSequence: UInt64 = 0
    var checkpoint: UInt32 = 0
    /// The log's first sequence: those before it went with their segments.
    var firstSequence: UInt64 = 1

    /// The place in the file of the page with this transaction.
    var offset: Int {
        Int(transaction % 2) * Self.bytes
    }

    func encoded() -> [UInt8] {
        var page = [UInt8](repeating: 0, count: Self.bytes)
        page.withUnsafeMutableBytes {
            guard let target = $0.baseAddress else { preconditionFailure("a page has bytes") }
            target.store(Self.magic, at: 0)
            target.store(LogFormat.version, at: 8)
            target.store(incarnation, at: 12)
            target.store(transaction, at: 16)
            target.store(durableAtLeast, at: 24)
            target.store(mark.segment, at: 32)
            target.store(mark.offset, at: 36)
            target.store(firstSegment, at: 40)
            target.store(UInt32(isClean ? 1 : 0), at: 44)
            target.store(checkpointSequence, at: 48)
            target.store(UInt64(checkpoint), at: 56)
            target.store(firstSequence, at: 64)
            target.store(UnsafeRawPointer(target).crc32c(Self.bytes - 4), at: Self.bytes - 4)
        }
        return page
    }
}

extension MetaPage {
    /// Reads a page; `nil` where it isn't whole.
    ///
    /// - Throws: ``AppendLogError/newerFormat(path:version:supported:)``.
    static func decode(
        _ page: UnsafeRawBufferPointer,
        path: String
    ) throws(AppendLogError) -> Self? {
        guard page.count >= bytes, let source = page.baseAddress, source.number(0) == magic,
            source.number(bytes - 4) == source.crc32c(bytes - 4)
        else { return nil }
        try LogFormat.check(source.number(8), path: path)
        var meta = Self()
        meta.incarnation = source.number(12)
        meta.transaction = source.number(16)
        meta.durableAtLeast = source.number(24)
        meta.mark = RecordPosition(segment: source.number(32), offset: source.number(36))
        meta.firstSegment = source.number(40)
        meta.isClean = source.number(44, as: UInt32.self) & 1 == 1
        meta.checkpointSequence = source.number(48)
        meta.checkpoint = UInt32(truncatingIfNeeded: source.number(56, as: UInt64.self))
        meta.firstSequence = max(1, source.number(64))
        // what went with its segments was durable
        meta.durableAtLeast = max(meta.durableAtLeast, meta.firstSequence - 1)
        return meta.isPossible ? meta : nil
    }

    private var isPossible: Bool {
        max(transaction, durableAtLeast, firstSequence) <= LogFormat.sequenceMax
            && max(incarnation, mark.segment, firstSegment, checkpoint) <= LogFormat.numberMax
            && mark.isPossible
    }

    /// The newer whole page of the file.
    ///
    /// - Throws: ``AppendLogError/notAStore(path:)`` where neither page is ours,
    ///   ``AppendLogError/metaUnreadable(path:)`` where neither is whole.
    static func newest(of file: [UInt8], path: String) throws(AppendLogError) -> Self {
        var best: Self?
        var isOurs = false
        for offset in [0, bytes] {
            let page = try file.withBytes { (all) throws(AppendLogError) -> Self? in
                let rest = UnsafeRawBufferPointer(rebasing: all.dropFirst(offset))
                if rest.count >= 8, let base = rest.baseAddress, base.number(0) == magic {
                    isOurs = true
                }
                return try decode(rest, path: path)
            }
            if let page, page.transaction >= best?.transaction ?? 0 { best = page }
        }
        guard let best else { throw isOurs ? .metaUnreadable(path: path) : .notAStore(path: path) }
        return best
    }
}
