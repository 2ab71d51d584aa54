// Part of QTasks. License: see LICENSE.

/// Walks a segment's bytes and tells what stands there, one thing after the other.
///
/// It judges bytes only. Whether damage is a tear or rot, and whether a record counts, is
/// ``ReplayOrder``'s to say.
struct SegmentScan {
    enum Item {
        /// A record whose header is whole; `isSound` says whether its payload is too.
        case record(RecordHeader, at: Int, isSound: Bool)
        case group(GroupHeader)
        /// Bytes that are neither, up to the next whole header or the end.
        case damage(Range<Int>)
    }

    private let bytes: UnsafeRawBufferPointer
    private let salt: UInt32
    private let checksPayloads: Bool
    private let end: Int

    /// The byte at which the next thing begins.
    private(set) var offset: Int

    /// - Parameters:
    ///   - bytes: The segment's file from its first byte on.
    ///   - salt: What its header says.
    ///   - limit: Where the segment ends; what lies behind isn't looked at.
    ///   - checksPayloads: `false` where only headers matter; every payload then passes for sound.
    init(
        _ bytes: UnsafeRawBufferPointer,
        salt: UInt32,
        limit: Int,
        checksPayloads: Bool = true
    ) {
        self.bytes = bytes
        self.salt = salt
        self.checksPayloads = checksPayloads
        end = min(limit, bytes.count)
        offset = SegmentHeader.areaBytes
    }

    /// The payload of a record that ``next()`` gave.
    func payload(_ header: RecordHeader, at offset: Int) -> UnsafeRawBufferPointer {
        let start = offset + RecordHeader.bytes
        return UnsafeRawBufferPointer(rebasing: bytes[start..<start + header.payloadBytes])
    }

    /// The next thing, or `nil` where nothing but zeros follows.
    mutating func next() -> Item? {
        guard offset < end else { return nil }
        if let item = item(at: offset) { return item }
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
        if isZero && offset == end { return nil }
        return .damage(start..<offset)
    }

    private mutating func item(at start: Int, isTrial: Bool = false) -> Item? {
        guard start + RecordHeader.bytes <= end, let base = bytes.baseAddress else { return nil }
        let seed = salt ^ UInt32(start)
        if let group = GroupHeader(base + start, seed: seed) {
            if !isTrial { offset = start + GroupHeader.bytes }
            return .group(group)
        }
        guard let header = RecordHeader(base + start, seed: seed),
            start + header.bytesOnDisk <= end
        else { return nil }
        if isTrial { return .record(header, at: start, isSound: true) }
        offset = start + header.bytesOnDisk
        let payload = base + start + RecordHeader.bytes
        let isSound =
            !checksPayloads
            || payload.crc32c(header.payloadBytes, seed: seed) == header.payloadChecksum
        return .record(header, at: start, isSound: isSound)
    }

    private func mayBegin(at start: Int) -> Bool {
        guard start + 2 <= end, let base = bytes.baseAddress else { return false }
        let magic: UInt16 = base.number(start)
        return magic == RecordHeader.magic || magic == GroupHeader.magic
    }

    private func isZeroWord(at start: Int) -> Bool {
        guard let base = bytes.baseAddress else { return true }
        guard start + 8 <= end else { return bytes[start..<end].allSatisfy { $0 == 0 } }
        return base.number(start, as: UInt64.self) == 0
    }
}
