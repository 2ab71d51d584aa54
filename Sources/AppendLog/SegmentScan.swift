// Part of QTasks. License: see LICENSE.

/// Walks a segment's bytes and tells what stands there, one thing after the other.
///
/// It judges bytes only. Whether damage is a tear or rot, and whether a record counts, is
/// ``ReplayOrder``'s to say.
struct SegmentScan {
    enum Item {
        /// A record; `isSound` says whether both its header and its payload are as they were written.
        /// A header with one flipped bit is read all the same: then it is known who is damaged.
        case record(RecordHeader, at: Int, isSound: Bool)
        case group(GroupHeader)
        /// Bytes that are neither, up to the next whole header or the end.
        case damage(Range<Int>)
    }

    private let bytes: UnsafeRawBufferPointer
    private let salt: UInt32
    private let checksPayloads: Bool
    /// The byte of the segment that `bytes` begins with.
    private let base: Int
    private let end: Int
    private let knownEnd: Int

    /// The byte of the segment at which the next thing begins.
    private(set) var offset: Int

    /// - Parameters:
    ///   - bytes: The segment's file from its first byte on, or from `base` on.
    ///   - salt: What its header says.
    ///   - limit: Where the segment ends; what lies behind isn't looked at.
    ///   - knownEnd: Up to here there was something: zeros, or an end of the file, before it are damage.
    ///   - base: Where in the segment `bytes` begin, a multiple of 8.
    ///   - start: Where a group or record begins; the first one unless told otherwise.
    ///   - checksPayloads: `false` where only headers matter; every payload then passes for sound.
    init(
        _ bytes: UnsafeRawBufferPointer,
        salt: UInt32,
        limit: Int,
        knownEnd: Int = 0,
        base: Int = 0,
        from start: Int = SegmentHeader.areaBytes,
        checksPayloads: Bool = true
    ) {
        self.bytes = bytes
        self.salt = salt
        self.checksPayloads = checksPayloads
        self.base = base
        self.knownEnd = knownEnd
        end = min(limit, base + bytes.count, LogFormat.offsetMax)
        offset = max(start, base)
    }

    /// The payload of a record that ``next()`` gave.
    func payload(_ header: RecordHeader, at offset: Int) -> UnsafeRawBufferPointer {
        let start = offset - base + header.headerBytes
        return UnsafeRawBufferPointer(rebasing: bytes[start..<start + header.payloadBytes])
    }

    /// The next thing, or `nil` where nothing but zeros follows.
    mutating func next() -> Item? {
        guard offset < end else { return missing(from: offset) }
        if let item = item(at: offset) { return item }
        if !isZeroWord(at: offset), let item = mendedItem(at: offset) { return item }
        let start = offset
        var isZero = true
        while offset < end {
            if offset != start, mayBegin(at: offset), item(at: offset, isTrial: true) != nil {
                break
            }
            isZero = isZero && isZeroWord(at: offset)
            offset += RecordHeader.alignment
        }
        offset = min(offset, end)
        if isZero && offset == end { return missing(from: start) }
        return .damage(start..<offset)
    }

    /// A thing, and the bytes of the segment that it takes up.
    typealias Found = (item: Item, place: Range<Int>)

    /// The next things, which replace those in `found`; `false` where there are none.
    mutating func next(atMost count: Int, _ found: inout [Found]) -> Bool {
        found.removeAll(keepingCapacity: true)
        var start = offset
        while found.count < count, let item = next() {
            found.append((item, start..<offset))
            start = offset
        }
        return !found.isEmpty
    }

    private mutating func missing(from start: Int) -> Item? {
        guard start < knownEnd else { return nil }
        offset = max(offset, knownEnd)
        return .damage(start..<knownEnd)
    }

    private mutating func item(at start: Int, isTrial: Bool = false) -> Item? {
        guard let place = pointer(at: start), start + GroupHeader.bytes <= end else { return nil }
        let seed = salt ^ UInt32(start)
        if let group = GroupHeader(place, seed: seed) {
            if !isTrial { offset = start + GroupHeader.bytes }
            return .group(group)
        }
        guard let header = RecordHeader(place, available: end - start, seed: seed),
            start + header.bytesOnDisk <= end
        else { return nil }
        if isTrial { return .record(header, at: start, isSound: true) }
        offset = start + header.bytesOnDisk
        let isSound =
            !checksPayloads
            || (place + header.headerBytes).crc32c(header.payloadBytes, seed: seed)
                == header.payloadChecksum
        return .record(header, at: start, isSound: isSound)
    }

    /// A record whose header has one flipped bit, and which something whole follows.
    private mutating func mendedItem(at start: Int) -> Item? {
        guard let place = pointer(at: start),
            let header = RecordHeader(
                mending: place,
                available: end - start,
                seed: salt ^ UInt32(start)
            ),
            start + header.bytesOnDisk <= end
        else { return nil }
        offset = start + header.bytesOnDisk
        return .record(header, at: start, isSound: false)
    }

    private func pointer(at start: Int) -> UnsafeRawPointer? {
        bytes.baseAddress.map { $0 + (start - base) }
    }

    private func mayBegin(at start: Int) -> Bool {
        guard start + 2 <= end, let place = pointer(at: start) else { return false }
        let magic: UInt16 = place.number(0)
        return magic == RecordHeader.magic || magic == RecordHeader.carriedMagic
            || magic == GroupHeader.magic
    }

    private func isZeroWord(at start: Int) -> Bool {
        guard let place = pointer(at: start) else { return true }
        guard start + 8 <= end else {
            return UnsafeRawBufferPointer(start: place, count: end - start).allSatisfy { $0 == 0 }
        }
        return place.number(0, as: UInt64.self) == 0
    }
}
