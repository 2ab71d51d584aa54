// Part of QTasks. License: see LICENSE.

/// The files of a log as those have them who read it from outside and write nothing.
///
/// How it is decided which segments belong to it is their own affair: ``LogReader`` believes the meta
/// page, ``LogSalvage`` what is left.
struct MappedLog {
    struct Segment {
        var link: SegmentChain.Link
        var mapping: LogMapping
        /// Up to here there was something for sure.
        var knownEnd: Int
    }

    let directory: String
    let files: any LogFiles
    /// Oldest first.
    let segments: [Segment]

    /// Shows the payload at `position`, without copying it.
    ///
    /// - Throws: ``AppendLogError/corrupt(path:offset:)`` where no whole record begins there.
    func withPayload<Result>(
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
        guard let header = RecordHeader(ofWhole: base + start, available: available, seed: seed)
        else { throw .corrupt(path: path, offset: start) }
        let payload = base + start + header.headerBytes
        return body(UnsafeRawBufferPointer(start: payload, count: header.payloadBytes))
    }

    /// Shows the blocks of a checkpoint.
    ///
    /// - Returns: Whether it was whole and `body` took all of it.
    func restore(
        _ checkpoint: CheckpointInfo,
        _ body: (CheckpointPart) -> Bool
    ) throws(AppendLogError) -> Bool {
        let path = "\(directory)/\(LogFormat.checkpointName(checkpoint.number))"
        guard let file = try CheckpointFile(path, number: checkpoint.number, files),
            try file.isWhole(), body(.begin)
        else { return false }
        return try file.forEachBlock { body(.block($0)) } && body(.end)
    }
}

extension LogFiles {
    /// The newer whole meta page of the store in `directory`.
    func readMeta(in directory: String) throws(AppendLogError) -> MetaPage {
        let path = "\(directory)/\(LogFormat.metaName)"
        let file = try open(path, .read)
        defer { close(file) }
        return try readMeta(file, path: path)
    }
}
