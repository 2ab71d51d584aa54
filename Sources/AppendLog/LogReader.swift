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
        /// Durable bytes that are no record any more.
        public var damaged: [DamagedBytes] = []
        /// Where the last record ends.
        public var end = RecordPosition(segment: 0, offset: 0)

        /// Whether something that was durable can't be read.
        public var isDamaged: Bool {
            !lost.isEmpty || !damaged.isEmpty
        }

        mutating func note(_ bytes: Int, _ position: RecordPosition, _ order: inout ReplayOrder) {
            guard order.damage(bytes: bytes, at: position) == .damage else { return }
            damaged.append(DamagedBytes(position: position, bytes: bytes))
        }

        /// Nothing can be read of the segment that ends, or has something up to, there.
        mutating func note(missing end: RecordPosition, _ order: inout ReplayOrder) {
            let first = SegmentHeader.areaBytes
            guard end.offset > first else { return }
            let position = RecordPosition(segment: end.segment, offset: UInt32(first))
            note(Int(end.offset) - first, position, &order)
        }
    }

    private struct Segment {
        var link: SegmentChain.Link
        var mapping: LogMapping
    }

    private let directory: String
    private let files: any LogFiles
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
        self.files = files
        (meta, segments) = try Self.snapshot(directory, files)
        let proven = segments.reversed().lazy.compactMap {
            SegmentBytes.durableUpTo($0.mapping.bytes, $0.link)
        }.first
        durableAtLeast = max(meta.durableAtLeast, proven ?? 0)
    }

    /// The log's segments, oldest first.
    public var segmentInfos: [SegmentInfo] {
        var infos: [SegmentInfo] = []
        for segment in segments { infos.append(next: SegmentInfo(segment.link.header)) }
        return infos
    }

    /// Where the newest meta page says that everything before it is on disk.
    public var mark: RecordPosition {
        meta.mark
    }

    /// The first sequence that the log still has as it was appended.
    public var firstSequence: UInt64 {
        meta.firstSequence
    }

    /// Shows every record in the order in which they lie.
    ///
    /// What was appended comes in the order of its sequence; a record with a ``RecordView/source``
    /// stands, from then on, for the one that was there.
    ///
    /// - Parameters:
    ///   - start: Where a record begins, such as ``CheckpointInfo/start``; the oldest one unless told
    ///     otherwise.
    ///   - sequence: The last sequence before `start`.
    ///   - damaged: Shown each record that was durable and is damaged: its header can be trusted, its
    ///     payload can't.
    ///   - body: Shown each record.
    /// - Returns: What the pass found.
    /// - Throws: What `body` throws; the pass ends there.
    @discardableResult
    public func forEach<Failure: Error>(
        from start: RecordPosition? = nil,
        after sequence: UInt64? = nil,
        damaged: ((borrowing RecordView) -> Void)? = nil,
        _ body: (borrowing RecordView) throws(Failure) -> Void
    ) throws(Failure) -> Report {
        var report = Report()
        var order = ReplayOrder(
            durable: durableAtLeast,
            mark: meta.mark,
            from: sequence.map { $0 + 1 } ?? meta.firstSequence
        )
        var position = start ?? RecordPosition(segment: 0, offset: 0)
        let first = position
        reading: for segment in segments where segment.link.header.index >= first.segment {
            if let missing = segment.link.missing, missing > first {
                report.note(missing: missing, &order)
            }
            let isFirst = segment.link.header.index == first.segment
            var scan = SegmentScan(
                segment.mapping.bytes,
                salt: segment.link.header.salt,
                limit: segment.link.limit,
                knownEnd: segment.link.knownEnd(meta.mark),
                from: max(SegmentHeader.areaBytes, isFirst ? Int(first.offset) : 0)
            )
            while true {
                position = RecordPosition(
                    segment: segment.link.header.index,
                    offset: UInt32(scan.offset)
                )
                guard let item = scan.next() else { break }
                if case .damage(let range) = item { report.note(range.count, position, &order) }
                guard case .record(let header, let offset, let isSound) = item else { continue }
                let view = RecordView(
                    header,
                    at: position,
                    payload: scan.payload(header, at: offset)
                )
                let verdict = order.record(header, at: position, isSound: isSound)
                if let lost = verdict.lost {
                    report.lost.append(LostRecords(sequences: lost, position: position))
                }
                switch verdict {
                case .deliver, .deliverAfterLoss:
                    report.records += 1
                    report.end = RecordPosition(
                        segment: position.segment,
                        offset: UInt32(scan.offset)
                    )
                    try body(view)
                case .lost: damaged?(view)
                case .stop: break reading
                case .ignore, .damage: break
                }
            }
        }
        if meta.mark.segment > segments.last?.link.header.index ?? 0 {
            report.note(missing: meta.mark, &order)
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
            let base = segment.mapping.bytes.baseAddress
        else { throw .corrupt(path: path, offset: start) }
        let seed = segment.link.header.salt ^ position.offset
        let available = min(segment.mapping.bytes.count, segment.link.limit) - start
        guard let header = RecordHeader(base + start, available: available, seed: seed),
            header.bytesOnDisk <= available,
            (base + start + header.headerBytes).crc32c(header.payloadBytes, seed: seed)
                == header.payloadChecksum
        else { throw .corrupt(path: path, offset: start) }
        return body(
            UnsafeRawBufferPointer(
                start: base + start + header.headerBytes,
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
        let chain = SegmentChain(
            headers,
            incarnation: meta.incarnation,
            firstSegment: meta.firstSegment
        )
        return chain.links.compactMap { link in
            mappings[link.header.index].map { Segment(link: link, mapping: $0) }
        }
    }
}

// MARK: - Checkpoints

extension LogReader {
    /// Whole-looking checkpoints that fit this log, newest first; whether each block is as it was
    /// written shows in ``restore(_:_:)``.
    public func checkpoints() throws(AppendLogError) -> [CheckpointInfo] {
        try checkpointFiles().map { CheckpointInfo($0.checkpoint) }
    }

    /// Shows the blocks of a checkpoint.
    ///
    /// - Returns: Whether it was whole and `body` took all of it.
    /// - Throws: Where it can't be read, such as `ENOENT` once a writer has removed it.
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

    private func checkpointFiles() throws(AppendLogError) -> [CheckpointFile] {
        let links = segments.map(\.link)
        return try files.checkpoints(in: directory).filter { file in
            file.checkpoint.end <= meta.mark && file.checkpoint.endSequence <= durableAtLeast
                && file.checkpoint.startSequence + 1 >= meta.firstSequence
                && SegmentChain.contains(file.checkpoint.start, in: links)
                && SegmentChain.contains(file.checkpoint.end, in: links)
        }
    }
}
