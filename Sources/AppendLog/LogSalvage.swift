// Part of QTasks. License: see LICENSE.

import Glibc

/// A record that was mended: one of its bits was flipped.
public struct HealedRecord: Hashable, Sendable {
    /// Its number in the log.
    public var sequence: UInt64
    /// Where it begins.
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
        /// How many could be read, those that were mended included.
        public var records: UInt64 = 0
        /// The last record there is, or was.
        public var lastSequence: UInt64 = 0
        /// Those that were mended.
        public var healed: [HealedRecord] = []
        /// Durable records that are corrupt or gone.
        public var lost: [LostRecords] = []
        /// Durable bytes that are no record any more.
        public var damaged: [DamagedBytes] = []
        /// The longest payload, in bytes.
        public var payloadBytesMax = 0

        /// That of a pass that hasn't begun.
        public init() {}
    }

    /// Whether a meta page could be read; without one, what is durable is told by the groups alone.
    public let hasMeta: Bool

    /// The most openings that anything speaks of.
    public let incarnation: UInt32

    /// Segments whose headers are gone, and whose salt was found again.
    public let segmentsWithoutHeader: [UInt32]

    /// Files of which nothing could be read.
    public let segmentsLost: [UInt32]

    /// Whole-looking checkpoints of this log, newest first.
    public let checkpoints: [CheckpointInfo]

    private let log: MappedLog
    private let meta: MetaPage?
    private let durable: UInt64
    /// The payloads of what was mended, by place.
    private var healed: [RecordPosition: [UInt8]] = [:]

    /// Maps what is there.
    ///
    /// - Throws: `ENOENT` where there is no such directory; ``AppendLogError/notAStore(path:)`` where it
    ///   has no segment; ``AppendLogError/newerFormat(path:version:supported:)``.
    public init(_ directory: String, files: any LogFiles = PosixFiles()) throws(AppendLogError) {
        let meta = try Self.meta(directory, files)
        self.meta = meta
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
            mappings[link.header.index].map { Self.segment(link, $0, meta?.mark) }
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
        log = MappedLog(directory: directory, files: files, segments: segments)
        segmentsWithoutHeader = withoutHeader.sorted()
        let first = meta?.firstSegment ?? 1
        segmentsLost = unreadable.filter { $0 >= first }.sorted()
    }

    private static func meta(
        _ directory: String,
        _ files: any LogFiles
    ) throws(AppendLogError) -> MetaPage? {
        do throws(AppendLogError) {
            return try files.readMeta(in: directory)
        } catch {
            switch error {
            case .metaUnreadable, .notAStore, .system("open", _, ENOENT): return nil
            default: throw error
            }
        }
    }

    /// Stands for the end of a segment whose successor's header is gone.
    private static let unknownEnd = UInt32.max

    private static func segment(
        _ link: SegmentChain.Link,
        _ mapping: LogMapping,
        _ mark: RecordPosition?
    ) -> MappedLog.Segment {
        var link = link
        if link.missing?.offset == unknownEnd { link.missing = nil }
        let knownEnd =
            link.limit == Int(unknownEnd)
            ? 0 : link.knownEnd(mark ?? RecordPosition(segment: 0, offset: 0))
        return MappedLog.Segment(link: link, mapping: mapping, knownEnd: knownEnd)
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
        meta?.firstSequence ?? log.segments.first?.link.header.firstSequence ?? 1
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
        let order = ReplayOrder(
            durable: durable,
            mark: meta?.mark ?? RecordPosition(segment: 0, offset: 0),
            from: firstSequence
        )
        var pass = LogPass(log.segments, order)
        while let found = pass.next() {
            let (header, position) = (found.header, found.position)
            report.payloadBytesMax = max(report.payloadBytesMax, found.payload.count)
            let mended =
                found.isSound ? nil : Self.mend(header, found.payload, seed: found.seed)
            switch pass.judge(found, isSound: found.isSound || mended != nil) {
            case .counts:
                guard let mended else {
                    try body(RecordView(header, at: position, payload: found.payload))
                    continue
                }
                healed[position] = mended
                report.healed.append(HealedRecord(sequence: header.sequence, position: position))
                try mended.withBytes { (payload) throws(Failure) in
                    try body(RecordView(header, at: position, payload: payload))
                }
            case .isLost: damaged(RecordView(header, at: position, payload: found.payload))
            case .isNothing: break
            }
        }
        report.records = pass.records
        report.lastSequence = pass.lastSequence
        report.lost = pass.lost
        report.damaged = pass.damaged
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
        return try log.withPayload(at: position, body)
    }

    /// Shows the blocks of a checkpoint.
    ///
    /// - Returns: Whether it was whole and `body` took all of it.
    public func restore(
        _ checkpoint: CheckpointInfo,
        _ body: (CheckpointPart) -> Bool
    ) throws(AppendLogError) -> Bool {
        try log.restore(checkpoint, body)
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
