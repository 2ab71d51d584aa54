// Part of QTasks. License: see LICENSE.

/// Where compaction reads on.
struct CompactionRead: Sendable {
    var segment: UInt32
    var salt: UInt32
    /// Where the segment ends.
    var limit: Int
    var offset: Int
}

/// A run of whole records of a segment that is compacted, checked by the thread that read them.
///
/// Unchecked, because: it is filled before it is handed over under the board's lock, and only read
/// afterwards.
final class CompactionBatch: @unchecked Sendable {
    /// What is read at a time, unless a record is longer.
    static let bytes = 256 << 10

    private let buffer: GroupBuffer
    private let start: Int
    private let segment: UInt32
    private(set) var records: [(header: RecordHeader, offset: Int)] = []
    /// Where the next batch begins.
    private(set) var nextOffset: Int
    /// Nothing follows.
    private(set) var isLast = false
    /// Where a record of the segment can't be read: it must not be dropped.
    private(set) var damage: Int?

    /// Reads the next records.
    init(_ read: CompactionRead, path: String, _ files: any LogFiles) {
        segment = read.segment
        start = read.offset
        nextOffset = read.offset
        buffer = GroupBuffer(capacity: Self.bytes)
        do throws(AppendLogError) {
            try load(read, path, files)
        } catch {
            // the records stay where they are, like those that are damaged
            damage = nextOffset
        }
    }

    /// Whether it is what was wanted there: an older one may come late.
    func isAnswer(to read: CompactionRead) -> Bool {
        segment == read.segment && start == read.offset
    }

    private func load(
        _ read: CompactionRead,
        _ path: String,
        _ files: any LogFiles
    ) throws(AppendLogError) {
        let file = try files.open(path, .read)
        defer { files.close(file) }
        var wanted = Self.bytes
        while true {
            let count = min(wanted, read.limit - read.offset)
            _ = buffer.recycle()
            let target = UnsafeMutableRawBufferPointer(
                start: buffer.extend(by: count),
                count: count
            )
            let got = try files.read(file, at: read.offset, into: target)
            buffer.shorten(by: count - got)
            let isWhole = read.offset + got >= read.limit || got < count
            if scan(read, isWhole: isWhole) { return }
            wanted *= 2  // a record longer than what was read
        }
    }

    /// Takes all whole records; `false` where not even one was read to its end.
    private func scan(_ read: CompactionRead, isWhole: Bool) -> Bool {
        var scan = SegmentScan(
            buffer.bytes,
            salt: read.salt,
            limit: read.limit,
            knownEnd: isWhole ? read.limit : 0,
            base: read.offset,
            from: read.offset
        )
        while true {
            let before = scan.offset
            switch scan.next() {
            case .record(let header, let offset, let isSound):
                if isSound {
                    records.append((header, offset))
                } else if isWhole || scan.offset < read.offset + buffer.count {
                    damage = damage ?? offset
                } else {
                    // perhaps only the end of it is missing here
                    nextOffset = before
                    return !records.isEmpty
                }
            case .group:
                break
            case .damage(let range):
                guard isWhole || range.upperBound < read.offset + buffer.count else {
                    nextOffset = before
                    return !records.isEmpty || before > read.offset
                }
                damage = damage ?? range.lowerBound
            case nil:
                nextOffset = isWhole ? read.limit : before
                isLast = isWhole
                return isWhole || before > read.offset
            }
            nextOffset = scan.offset
        }
    }

    func view(_ index: Int) -> RecordView {
        let (header, offset) = records[index]
        let first = offset - start + header.headerBytes
        return RecordView(
            header,
            at: RecordPosition(segment: segment, offset: UInt32(offset)),
            payload: UnsafeRawBufferPointer(
                rebasing: buffer.bytes[first..<first + header.payloadBytes]
            )
        )
    }
}

/// How far a compaction's step came.
public enum CompactionStep: Hashable, Sendable {
    /// A record was shown.
    case record
    /// Nothing is read yet; `onProgress` is called when there is.
    case waiting
    /// That was the last one: what is alive has been carried forward, or the segment stays since a
    /// `carry` threw.
    case finished
    /// The segment has records that can't be read. It stays, and compaction with it.
    case damaged(RecordPosition)
}
