// Part of QTasks. License: see LICENSE.

import Glibc

/// A record that was mended: one of its bits was flipped.
public struct HealedRecord: Hashable, Sendable {
    public var sequence: UInt64
    public var position: RecordPosition
}

/// Reads what is left of a store that is damaged, and writes nothing.
///
/// It needs no meta page: the segments' headers tell most of what stands there, and where a segment
/// has lost its own, the checksums of what is in it tell its salt. A record of which a single bit is
/// flipped is mended, see ``healedBytesMax``. The caller holds the store's lock (``WriterLock``).
public final class LogSalvage {
    /// The longest payload in which a flipped bit is looked for, in bytes.
    ///
    /// Each bit is tried. CRC-32C keeps any two payloads of this length at least four bits apart
    /// (Koopman 2002), so what fits one flip away is what was written.
    public static let healedBytesMax = 4096

    /// What one pass found.
    public struct Report: Hashable, Sendable {
        public var records: UInt64 = 0
        public var lastSequence: UInt64 = 0
        public var healed: [HealedRecord] = []
        public var lost: [LostRecords] = []
        public var damaged: [DamagedBytes] = []
        /// The longest payload, in bytes.
        public var payloadBytesMax = 0

        public init() {}

        fileprivate mutating func note(
            _ bytes: Int,
            _ position: RecordPosition,
            _ order: inout ReplayOrder
        ) {
            guard order.damage(bytes: bytes, at: position) == .damage else { return }
            damaged.append(DamagedBytes(position: position, bytes: bytes))
        }

        /// Nothing can be read of the segment that ends, or has something up to, there.
        fileprivate mutating func note(missing end: RecordPosition, _ order: inout ReplayOrder) {
            let first = SegmentHeader.areaBytes
            guard end.offset > first, end.offset != LogSalvage.unknownEnd else { return }
            let position = RecordPosition(segment: end.segment, offset: UInt32(first))
            note(Int(end.offset) - first, position, &order)
        }
    }

    private struct Segment {
        var link: SegmentChain.Link
        var mapping: LogMapping
    }

    /// Whether a meta page could be read; without one, what is durable is told by the groups alone.
    public let hasMeta: Bool

    /// The most openings that anything speaks of.
    public let incarnation: UInt32

    /// Segments whose headers are gone, and whose salt was found again.
    public private(set) var segmentsWithoutHeader: [UInt32] = []

    /// Files of which nothing could be read.
    public private(set) var segmentsLost: [UInt32] = []

    /// Whole-looking checkpoints of this log, newest first.
    public let checkpoints: [CheckpointInfo]

    private let directory: String
    private let files: any LogFiles
    private var segments: [Segment] = []
    private let meta: MetaPage?
    private let durable: UInt64
    /// The payloads of what was mended, by place.
    private var healed: [RecordPosition: [UInt8]] = [:]

    /// Maps what is there.
    ///
    /// - Throws: `ENOENT` where there is no such directory; ``AppendLogError/notAStore(path:)`` where it
    ///   has no segment; ``AppendLogError/newerFormat(path:version:supported:)``.
    public init(_ directory: String, files: any LogFiles = PosixFiles()) throws(AppendLogError) {
        self.directory = directory
        self.files = files
        meta = try Self.meta(directory, files)
        hasMeta = meta != nil
        let found = try files.checkpoints(in: directory).map(\.checkpoint)
        var mappings: [UInt32: LogMapping] = [:]
        var headers: [SegmentHeader] = []
        var (withoutHeader, unreadable): ([UInt32], [UInt32]) = ([], [])
        for name in try files.list(directory) {
            guard let index = LogFormat.segmentIndex(name) else { continue }
            let mapping = try files.map("\(directory)/\(name)")
            if let header = try SegmentHeader.decode(mapping.bytes, path: "\(directory)/\(name)") {
                headers.append(header)
            } else if let header = Self.header(index, mapping.bytes) {
                headers.append(header)
                withoutHeader.append(index)
            } else {
                if !mapping.bytes.allSatisfy({ $0 == 0 }) { unreadable.append(index) }
                continue
            }
            mappings[index] = mapping
        }
        if headers.isEmpty, unreadable.isEmpty, meta == nil { throw .notAStore(path: directory) }
        let chain = SegmentChain(
            headers,
            incarnation: meta?.incarnation ?? .max,
            firstSegment: meta?.firstSegment ?? 1
        )
        let segments = chain.links.compactMap { link in
            mappings[link.header.index].map { Segment(link: link, mapping: $0) }
        }
        let proven = segments.compactMap { SegmentBytes.durableUpTo($0.mapping.bytes, $0.link) }
        durable = max(meta?.durableAtLeast ?? 0, proven.max() ?? 0)
        let incarnations = headers.map(\.incarnation) + found.map(\.incarnation)
        incarnation = max(meta?.incarnation ?? 0, incarnations.max() ?? 0)
        // what an unclean end left behind says nothing
        func isPart(_ place: RecordPosition) -> Bool {
            SegmentChain.contains(place, in: chain.links) || unreadable.contains(place.segment)
        }
        checkpoints = found.filter { isPart($0.start) && isPart($0.end) }.map { CheckpointInfo($0) }
        self.segments = segments
        segmentsWithoutHeader = withoutHeader.sorted()
        let first = meta?.firstSegment ?? 1
        segmentsLost = unreadable.filter { $0 >= first }.sorted()
    }

    private static func meta(
        _ directory: String,
        _ files: any LogFiles
    ) throws(AppendLogError) -> MetaPage? {
        let path = "\(directory)/\(LogFormat.metaName)"
        do throws(AppendLogError) {
            let file = try files.open(path, .read)
            defer { files.close(file) }
            return try files.readMeta(file, path: path)
        } catch {
            switch error {
            case .metaUnreadable, .notAStore, .system("open", _, ENOENT): return nil
            default: throw error
            }
        }
    }

    /// Stands for the end of a segment whose successor's header is gone.
    fileprivate static let unknownEnd = UInt32.max

    private func knownEnd(of link: SegmentChain.Link) -> Int {
        link.limit == Int(Self.unknownEnd)
            ? 0 : link.knownEnd(meta?.mark ?? RecordPosition(segment: 0, offset: 0))
    }

    /// What can be said of a segment without a header.
    private static func header(_ index: UInt32, _ bytes: UnsafeRawBufferPointer) -> SegmentHeader? {
        guard let salt = SegmentSalt.find(in: bytes) else { return nil }
        var scan = SegmentScan(bytes, salt: salt, limit: .max, checksPayloads: false)
        var first: UInt64 = 1
        while let item = scan.next() {
            guard case .record(let header, _, true) = item, header.source == nil else { continue }
            first = header.sequence
            break
        }
        return SegmentHeader(
            index: index,
            salt: salt,
            incarnation: 0,
            firstSequence: first,
            predecessor: RecordPosition(segment: index - 1, offset: unknownEnd)
        )
    }

    /// The first sequence that the log still has as it was appended, as far as that is known.
    public var firstSequence: UInt64 {
        meta?.firstSequence ?? segments.first?.link.header.firstSequence ?? 1
    }

    /// Shows every record that can be read, in the order in which they lie, mended where that helps.
    ///
    /// - Parameters:
    ///   - damaged: Shown each record that can't: its header can be trusted, its payload can't.
    ///   - body: Shown each record.
    /// - Returns: What the pass found.
    /// - Throws: What `body` throws.
    public func forEach<Failure: Error>(
        damaged: (borrowing RecordView) -> Void,
        _ body: (borrowing RecordView) throws(Failure) -> Void
    ) throws(Failure) -> Report {
        var report = Report()
        var order = ReplayOrder(
            durable: durable,
            mark: meta?.mark ?? RecordPosition(segment: 0, offset: 0),
            from: firstSequence
        )
        var position = RecordPosition(segment: 0, offset: 0)
        reading: for segment in segments {
            let salt = segment.link.header.salt
            if let missing = segment.link.missing { report.note(missing: missing, &order) }
            var scan = SegmentScan(
                segment.mapping.bytes,
                salt: salt,
                limit: segment.link.limit,
                knownEnd: knownEnd(of: segment.link)
            )
            while true {
                position = RecordPosition(
                    segment: segment.link.header.index,
                    offset: UInt32(scan.offset)
                )
                guard let item = scan.next() else { break }
                if case .damage(let range) = item { report.note(range.count, position, &order) }
                guard case .record(let header, let offset, var isSound) = item else { continue }
                let payload = scan.payload(header, at: offset)
                report.payloadBytesMax = max(report.payloadBytesMax, payload.count)
                var mended: [UInt8]?
                if !isSound {
                    mended = Self.mend(header, payload, seed: salt ^ UInt32(offset))
                    isSound = mended != nil
                }
                let verdict = order.record(header, at: position, isSound: isSound)
                if let lost = verdict.lost {
                    report.lost.append(LostRecords(sequences: lost, position: position))
                }
                switch verdict {
                case .deliver, .deliverAfterLoss:
                    report.records += 1
                    guard let mended else {
                        try body(RecordView(header, at: position, payload: payload))
                        continue
                    }
                    healed[position] = mended
                    report.healed.append(
                        HealedRecord(sequence: header.sequence, position: position)
                    )
                    try mended.withBytes { (payload) throws(Failure) in
                        try body(RecordView(header, at: position, payload: payload))
                    }
                case .lost: damaged(RecordView(header, at: position, payload: payload))
                case .stop: break reading
                case .ignore, .damage: break
                }
            }
        }
        if let meta, meta.mark.segment > segments.last?.link.header.index ?? 0 {
            report.note(missing: meta.mark, &order)
        }
        if let lost = order.finish() {
            report.lost.append(LostRecords(sequences: lost, position: position))
        }
        report.lastSequence = order.next - 1
        return report
    }

    /// Shows the payload at `position`, as ``forEach(damaged:_:)`` has shown or mended it.
    ///
    /// - Throws: ``AppendLogError/corrupt(path:offset:)`` where no record that can be read begins there.
    public func withPayload<Result>(
        at position: RecordPosition,
        _ body: (UnsafeRawBufferPointer) -> Result
    ) throws(AppendLogError) -> Result {
        if let payload = healed[position] { return payload.withUnsafeBytes { body($0) } }
        let start = Int(position.offset)
        let path = "\(directory)/\(LogFormat.segmentName(position.segment))"
        guard let segment = segments.first(where: { $0.link.header.index == position.segment }),
            let base = segment.mapping.bytes.baseAddress
        else { throw .corrupt(path: path, offset: start) }
        let seed = segment.link.header.salt ^ position.offset
        let available = min(segment.mapping.bytes.count, segment.link.limit) - start
        guard let header = RecordHeader(base + start, available: available, seed: seed),
            header.bytesOnDisk <= available,
            (base + start + header.headerBytes).crc32c(header.payloadBytes, seed: seed)
                == header.payloadChecksum
        else { throw .corrupt(path: path, offset: start) }
        let payload = base + start + header.headerBytes
        return body(UnsafeRawBufferPointer(start: payload, count: header.payloadBytes))
    }

    /// Shows the blocks of a checkpoint.
    ///
    /// - Returns: Whether it was whole and `body` took all of it.
    public func restore(
        _ checkpoint: CheckpointInfo,
        _ body: (CheckpointPart) -> Bool
    ) throws(AppendLogError) -> Bool {
        let path = "\(directory)/\(LogFormat.checkpointName(checkpoint.number))"
        guard let file = try CheckpointFile(path, number: checkpoint.number, files),
            try file.isWhole(), body(.begin)
        else { return false }
        return try file.forEachBlock { body(.block($0)) } && body(.end)
    }

    /// The payload as it was written, where at most one bit of it is flipped.
    ///
    /// Where only the header was damaged, and mended, that is the payload as it stands.
    private static func mend(
        _ header: RecordHeader,
        _ payload: UnsafeRawBufferPointer,
        seed: UInt32
    ) -> [UInt8]? {
        var copy = [UInt8](payload)
        return copy.withMutableBytes { bytes -> [UInt8]? in
            guard let base = bytes.baseAddress.map({ UnsafeRawPointer($0) }) else {
                return header.payloadChecksum == seed ? [] : nil
            }
            func isRight() -> Bool {
                base.crc32c(bytes.count, seed: seed) == header.payloadChecksum
            }
            if isRight() { return [UInt8](bytes) }
            guard bytes.count <= healedBytesMax else { return nil }
            for bit in 0..<bytes.count * 8 {
                bytes[bit / 8] ^= 1 << UInt8(bit % 8)
                if isRight() { return [UInt8](bytes) }
                bytes[bit / 8] ^= 1 << UInt8(bit % 8)
            }
            return nil
        }
    }
}
