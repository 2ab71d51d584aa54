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
        /// How many were shown.
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
    }

    private let log: MappedLog
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
        let segments: [MappedLog.Segment]
        (meta, segments) = try Self.snapshot(directory, files)
        log = MappedLog(directory: directory, files: files, segments: segments)
        let proven = segments.reversed().lazy.compactMap {
            SegmentBytes.durableUpTo($0.mapping.bytes, $0.link)
        }.first
        durableAtLeast = max(meta.durableAtLeast, proven ?? 0)
    }

    /// The log's segments, oldest first.
    public var segmentInfos: [SegmentInfo] {
        var infos: [SegmentInfo] = []
        for segment in log.segments { infos.append(next: SegmentInfo(segment.link.header)) }
        return infos
    }

    /// What a segment's file takes up by now, in bytes; 0 where its writer has removed it.
    public func fileBytes(of segment: UInt32) throws(AppendLogError) -> Int {
        let path = "\(log.directory)/\(LogFormat.segmentName(segment))"
        guard let file = try? log.files.open(path, .read) else { return 0 }
        defer { log.files.close(file) }
        return try log.files.size(file)
    }

    /// What the meta pages take up, in bytes.
    public static let metaBytes = MetaPage.fileBytes

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
        let order = ReplayOrder(
            durable: durableAtLeast,
            mark: meta.mark,
            from: sequence.map { $0 + 1 } ?? meta.firstSequence
        )
        var pass = LogPass(
            log.segments,
            order,
            from: start ?? RecordPosition(segment: 0, offset: 0)
        )
        while let found = pass.next() {
            let view = RecordView(found.header, at: found.position, payload: found.payload)
            switch pass.judge(found, isSound: found.isSound) {
            case .counts: try body(view)
            case .isLost: damaged?(view)
            case .isNothing: break
            }
        }
        return Report(
            records: pass.records,
            lastSequence: pass.lastSequence,
            lost: pass.lost,
            damaged: pass.damaged,
            end: pass.end
        )
    }

    /// Shows the payload at `position`, without copying it.
    ///
    /// - Throws: ``AppendLogError/corrupt(path:offset:)`` where no whole record of this snapshot
    ///   begins there.
    public func withPayload<Result>(
        at position: RecordPosition,
        _ body: (UnsafeRawBufferPointer) -> Result
    ) throws(AppendLogError) -> Result {
        try log.withPayload(at: position, body)
    }

    /// Meta page and segments that belong together.
    ///
    /// A writer may remove a segment between our listing and opening it. It says so in the meta
    /// page first: where that hasn't moved meanwhile, what we hold is one state of the store.
    private static func snapshot(
        _ directory: String,
        _ files: any LogFiles
    ) throws(AppendLogError) -> (MetaPage, [MappedLog.Segment]) {
        var attemptsLeft = 100
        while true {
            attemptsLeft -= 1
            let before = try files.readMeta(in: directory)
            do throws(AppendLogError) {
                let segments = try map(directory, files, before)
                if try files.readMeta(in: directory) == before || attemptsLeft == 0 {
                    return (before, segments)
                }
            } catch {
                guard case .system("open", _, ENOENT) = error, attemptsLeft > 0 else { throw error }
            }
        }
    }

    private static func map(
        _ directory: String,
        _ files: any LogFiles,
        _ meta: MetaPage
    ) throws(AppendLogError) -> [MappedLog.Segment] {
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
            mappings[link.header.index].map {
                MappedLog.Segment(link: link, mapping: $0, knownEnd: link.knownEnd(meta.mark))
            }
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
        try log.restore(checkpoint, body)
    }

    private func checkpointFiles() throws(AppendLogError) -> [CheckpointFile] {
        let links = log.segments.map(\.link)
        return try log.files.checkpoints(in: log.directory).filter { file in
            file.checkpoint.end <= meta.mark && file.checkpoint.endSequence <= durableAtLeast
                && file.checkpoint.startSequence + 1 >= meta.firstSequence
                && SegmentChain.contains(file.checkpoint.start, in: links)
                && SegmentChain.contains(file.checkpoint.end, in: links)
        }
    }
}
