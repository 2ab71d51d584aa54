// Part of QTasks. License: see LICENSE.

import Glibc

/// Reads a store without writing or locking anything, from any process, also while it is being
/// written.
///
/// It shows the store as it was when the reader was made, up to the last whole record; of what is
/// appended later it may show some, and never a part of a record. For more, make another reader.
/// Segments are mapped: a disk that can't read a page ends the process with SIGBUS, see mmap(2).
public final class LogReader {
    /// What one pass over the store found.
    public struct Report: Hashable, Sendable {
        public var records: UInt64 = 0
        /// The last record there is.
        public var lastSequence: UInt64 = 0
        /// Durable records that are corrupt or gone.
        public var lost: [LostRecords] = []
    }

    private struct Segment {
        var link: SegmentChain.Link
        var mapping: LogMapping
    }

    private let directory: String
    private let segments: [Segment]
    private let meta: MetaPage

    /// Every record up to here is known to be on disk.
    public let durableAtLeast: UInt64

    /// The number of openings for writing so far.
    public var incarnation: UInt32 {
        meta.incarnation
    }

    /// Whether the last writer closed the store; `false` while one has it open.
    public var isClean: Bool {
        meta.isClean
    }

    /// Maps the store as it is now.
    ///
    /// - Throws: `ENOENT` where there is none;
    ///   ``AppendLogError/newerFormat(path:version:supported:)``,
    ///   ``AppendLogError/notAStore(path:)`` or ``AppendLogError/metaUnreadable(path:)``.
    public init(_ directory: String, files: any LogFiles = PosixFiles()) throws(AppendLogError) {
        self.directory = directory
        (meta, segments) = try Self.snapshot(directory, files)
        let proven = segments.reversed().lazy.compactMap {
            SegmentBytes.durableUpTo($0.mapping.bytes, $0.link)
        }.first
        durableAtLeast = max(meta.durableAtLeast, proven ?? 0)
    }

    /// Shows every record in sequence order.
    ///
    /// - Throws: What `body` throws; the pass ends there.
    @discardableResult
    public func forEach<Failure: Error>(
        _ body: (borrowing RecordView) throws(Failure) -> Void
    ) throws(Failure) -> Report {
        var report = Report()
        var order = ReplayOrder(durable: durableAtLeast)
        var position = RecordPosition(segment: 0, offset: 0)
        reading: for segment in segments {
            var scan = SegmentScan(
                segment.mapping.bytes,
                salt: segment.link.header.salt,
                limit: segment.link.limit
            )
            while let item = scan.next() {
                guard case .record(let header, let offset, let isSound) = item else { continue }
                position = RecordPosition(
                    segment: segment.link.header.index,
                    offset: UInt32(offset)
                )
                var lost: ClosedRange<UInt64>?
                var shows = false
                var isLast = false
                switch order.record(header.sequence, isSound: isSound) {
                case .deliver: shows = true
                case .deliverAfterLoss(let missing): (lost, shows) = (missing, true)
                case .lost(let missing): lost = missing
                case .stop(let missing): (lost, isLast) = (missing, true)
                case .ignore: break
                }
                if let lost { report.lost.append(LostRecords(sequences: lost, position: position)) }
                if shows {
                    report.records += 1
                    try body(
                        RecordView(
                            sequence: header.sequence,
                            kind: header.kind,
                            flags: header.flags,
                            position: position,
                            payload: scan.payload(header, at: offset)
                        )
                    )
                }
                if isLast { break reading }
            }
        }
        if let lost = order.finish() {
            report.lost.append(LostRecords(sequences: lost, position: position))
        }
        report.lastSequence = order.next - 1
        return report
    }

    /// Shows the payload at `position`, without copying it.
    ///
    /// - Throws: ``AppendLogError/corrupt(path:offset:)`` where no whole record of this snapshot
    ///   begins there.
    public func withPayload<Result>(
        at position: RecordPosition,
        _ body: (UnsafeRawBufferPointer) -> Result
    ) throws(AppendLogError) -> Result {
        let start = Int(position.offset)
        let path = "\(directory)/\(LogFormat.segmentName(position.segment))"
        guard let segment = segments.first(where: { $0.link.header.index == position.segment }),
            start + RecordHeader.bytes <= min(segment.mapping.bytes.count, segment.link.limit),
            let base = segment.mapping.bytes.baseAddress
        else { throw .corrupt(path: path, offset: start) }
        let seed = segment.link.header.salt ^ position.offset
        guard let header = RecordHeader(base + start, seed: seed),
            start + header.bytesOnDisk <= segment.mapping.bytes.count,
            (base + start + RecordHeader.bytes).crc32c(header.payloadBytes, seed: seed)
                == header.payloadChecksum
        else { throw .corrupt(path: path, offset: start) }
        return body(
            UnsafeRawBufferPointer(
                start: base + start + RecordHeader.bytes,
                count: header.payloadBytes
            )
        )
    }

    /// Meta page and segments that belong together.
    ///
    /// A writer may remove a segment between our listing and opening it. It says so in the meta
    /// page first: where that hasn't moved meanwhile, what we hold is one state of the store.
    private static func snapshot(
        _ directory: String,
        _ files: any LogFiles
    ) throws(AppendLogError) -> (MetaPage, [Segment]) {
        var attemptsLeft = 100
        while true {
            attemptsLeft -= 1
            let before = try meta(directory, files)
            do throws(AppendLogError) {
                let segments = try map(directory, files, before)
                if try meta(directory, files) == before || attemptsLeft == 0 {
                    return (before, segments)
                }
            } catch {
                guard case .system("open", _, ENOENT) = error, attemptsLeft > 0 else { throw error }
            }
        }
    }

    private static func meta(
        _ directory: String,
        _ files: any LogFiles
    ) throws(AppendLogError) -> MetaPage {
        let path = "\(directory)/\(LogFormat.metaName)"
        let file = try files.open(path, .read)
        defer { files.close(file) }
        return try files.readMeta(file, path: path)
    }

    private static func map(
        _ directory: String,
        _ files: any LogFiles,
        _ meta: MetaPage
    ) throws(AppendLogError) -> [Segment] {
        var headers: [SegmentHeader] = []
        var mappings: [UInt32: LogMapping] = [:]
        for name in try files.list(directory) {
            guard let index = LogFormat.segmentIndex(name) else { continue }
            let path = "\(directory)/\(name)"
            let mapping = try files.map(path)
            guard let header = try SegmentHeader.decode(mapping.bytes, path: path),
                header.index == index
            else { continue }
            headers.append(header)
            mappings[index] = mapping
        }
        return SegmentChain(headers, incarnation: meta.incarnation).links.compactMap { link in
            mappings[link.header.index].map { Segment(link: link, mapping: $0) }
        }
    }
}
