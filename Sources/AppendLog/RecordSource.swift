// Part of QTasks. License: see LICENSE.

/// Reads single records: from segment files with `pread`, or from a group's memory.
struct RecordSource {
    private struct Segment {
        var handle: LogFileHandle
        var salt: UInt32
    }

    /// More open files than this are closed and opened anew as they are needed.
    private static let openFilesMax = 64

    /// What one read asks for: most records are whole then.
    private static let firstReadBytes = 4096

    private let files: any LogFiles
    private let directory: String
    private var segments: [UInt32: Segment] = [:]
    private var buffer = GroupBuffer(capacity: firstReadBytes)

    init(files: any LogFiles, directory: String) {
        self.files = files
        self.directory = directory
    }

    /// Shows the record that begins at `position` in its file.
    mutating func read<Result>(
        _ position: RecordPosition,
        _ body: (borrowing RecordView) -> Result
    ) throws(AppendLogError) -> Result {
        let (header, segment) = try begin(position, bytes: Self.firstReadBytes)
        if header.bytesOnDisk > buffer.count {
            try load(header.bytesOnDisk - buffer.count, segment.handle, position)
        }
        return try show(buffer.bytes, segment.salt ^ position.offset, position, body)
    }

    /// Shows the sequence, the payload's length and its first bytes, unchecked, of the record that
    /// begins at `position` in its file.
    mutating func readStart<Result>(
        _ position: RecordPosition,
        bytes count: Int,
        _ body: (UInt64, Int, UnsafeRawBufferPointer) -> Result
    ) throws(AppendLogError) -> Result {
        let (header, _) = try begin(position, bytes: RecordHeader.carriedBytes + count)
        let end = min(header.headerBytes + min(count, header.payloadBytes), buffer.count)
        let start = buffer.bytes[min(header.headerBytes, end)..<end]
        return body(header.sequence, header.payloadBytes, UnsafeRawBufferPointer(rebasing: start))
    }

    /// Shows the record at `position` in a group that isn't written yet.
    func show<Result>(
        _ piece: GroupPiece,
        _ position: RecordPosition,
        _ body: (borrowing RecordView) -> Result
    ) throws(AppendLogError) -> Result {
        let bytes = piece.buffer.bytes[(Int(position.offset) - piece.offset)...]
        return try show(
            UnsafeRawBufferPointer(rebasing: bytes),
            piece.salt ^ position.offset,
            position,
            body
        )
    }

    /// Lets go of segments that are about to be removed, so that their blocks come back.
    mutating func close(before first: UInt32) {
        for (index, segment) in segments where index < first {
            files.close(segment.handle)
            segments[index] = nil
        }
    }

    mutating func close() {
        for segment in segments.values { files.close(segment.handle) }
        segments = [:]
    }

    private func show<Result>(
        _ bytes: UnsafeRawBufferPointer,
        _ seed: UInt32,
        _ position: RecordPosition,
        _ body: (borrowing RecordView) -> Result
    ) throws(AppendLogError) -> Result {
        guard let base = bytes.baseAddress,
            let header = RecordHeader(ofWhole: base, available: bytes.count, seed: seed)
        else { throw .corrupt(path: path(position), offset: Int(position.offset)) }
        let payload = bytes[header.headerBytes..<header.headerBytes + header.payloadBytes]
        return body(
            RecordView(header, at: position, payload: UnsafeRawBufferPointer(rebasing: payload))
        )
    }

    /// Reads the first `count` bytes of what begins at `position` into the buffer, and the header there.
    private mutating func begin(
        _ position: RecordPosition,
        bytes count: Int
    ) throws(AppendLogError) -> (RecordHeader, Segment) {
        let path = path(position)
        let segment = try open(position.segment, path)
        if !buffer.recycle() { buffer = GroupBuffer(capacity: Self.firstReadBytes) }
        try load(count, segment.handle, position)
        let header = RecordHeader(
            UnsafeRawPointer(buffer.base),
            available: buffer.count,
            seed: segment.salt ^ position.offset
        )
        guard let header else { throw .corrupt(path: path, offset: Int(position.offset)) }
        return (header, segment)
    }

    /// Reads the next `count` bytes behind those in the buffer, or as many as the file has.
    private func load(
        _ count: Int,
        _ handle: LogFileHandle,
        _ position: RecordPosition
    ) throws(AppendLogError) {
        let offset = Int(position.offset) + buffer.count
        let target = UnsafeMutableRawBufferPointer(start: buffer.extend(by: count), count: count)
        let got = try files.read(handle, at: offset, into: target)
        buffer.shorten(by: count - got)
    }

    private mutating func open(
        _ index: UInt32,
        _ path: String
    ) throws(AppendLogError) -> Segment {
        if let segment = segments[index] { return segment }
        if segments.count >= Self.openFilesMax { close() }
        let handle = try files.open(path, .read)
        do throws(AppendLogError) {
            guard let header = try files.readSegmentHeader(handle, path: path) else {
                throw AppendLogError.corrupt(path: path, offset: 0)
            }
            let segment = Segment(handle: handle, salt: header.salt)
            segments[index] = segment
            return segment
        } catch {
            files.close(handle)
            throw error
        }
    }

    private func path(_ position: RecordPosition) -> String {
        "\(directory)/\(LogFormat.segmentName(position.segment))"
    }
}
