// Part of QTasks. License: see LICENSE.

/// What a checkpoint tells its owner, part by part.
public enum CheckpointPart {
    /// Blocks follow: forget whatever an earlier part or record has told.
    case begin
    /// What the owner gave as one block; the pointer is valid only for the call.
    case block(UnsafeRawBufferPointer)
    /// That was all of it; the records since follow.
    case end
}

/// Reads one checkpoint, in pieces of bounded size.
struct CheckpointFile {
    /// What one read asks for: more than the longest block.
    private static let readBytes = 4 << 20

    let path: String
    let files: any LogFiles
    private(set) var checkpoint: Checkpoint
    private let blocks: Int

    /// Reads header and trailer.
    ///
    /// - Returns: `nil` where the file is no whole checkpoint of this number.
    /// - Throws: Where it can't be read, or is of a newer format.
    init?(_ path: String, number: UInt32, _ files: any LogFiles) throws(AppendLogError) {
        self.path = path
        self.files = files
        let file = try files.openHeld(path)
        defer { files.close(file) }
        let size = try files.size(file)
        guard size >= Checkpoint.headerBytes + Checkpoint.trailerBytes else { return nil }
        let header = try files.bytes(of: file, at: 0, count: Checkpoint.headerBytes)
        let offset = size - Checkpoint.trailerBytes
        let trailer = try files.bytes(of: file, at: offset, count: Checkpoint.trailerBytes)
        let decoded = try header.withBytes { (bytes) throws(AppendLogError) -> Checkpoint? in
            try Checkpoint(header: bytes, path: path)
        }
        guard var checkpoint = decoded, checkpoint.number == number else { return nil }
        let count = trailer.withUnsafeBytes { checkpoint.readTrailer($0, at: offset) }
        guard let count else { return nil }
        checkpoint.bytes = size
        self.checkpoint = checkpoint
        blocks = count
    }

    /// Whether every block is there and as it was written.
    func isWhole() throws(AppendLogError) -> Bool {
        try forEachBlock { _ in true }
    }

    /// ``forEachBlock(_:)`` for whoever can do without the file.
    func isTaken(_ body: (UnsafeRawBufferPointer) -> Bool) -> Bool {
        (try? forEachBlock(body)) ?? false
    }

    /// Shows each block; ends early where `body` says `false`.
    ///
    /// - Returns: Whether all blocks were there, whole, and taken.
    func forEachBlock(
        _ body: (UnsafeRawBufferPointer) -> Bool
    ) throws(AppendLogError) -> Bool {
        let file = try files.openHeld(path)
        defer { files.close(file) }
        let window = GroupBuffer(capacity: Self.readBytes)
        let end = checkpoint.bytes - Checkpoint.trailerBytes
        var windowStart = Checkpoint.headerBytes
        var offset = windowStart
        var seen = 0
        while offset < end {
            if windowStart + window.count < min(offset + Checkpoint.blockBytesMax, end) {
                windowStart = offset
                try fill(window, min(Self.readBytes, end - offset), file, offset)
            }
            let rest = UnsafeRawBufferPointer(rebasing: window.bytes[(offset - windowStart)...])
            guard let content = checkpoint.block(rest, at: offset), body(content) else {
                return false
            }
            offset += Checkpoint.bytesOfBlock(content: content.count)
            seen += 1
        }
        return offset == end && seen == blocks
    }

    private func fill(
        _ window: GroupBuffer,
        _ count: Int,
        _ file: LogFileHandle,
        _ offset: Int
    ) throws(AppendLogError) {
        _ = window.recycle()
        let target = UnsafeMutableRawBufferPointer(start: window.extend(by: count), count: count)
        let got = try files.read(file, at: offset, into: target)
        window.shorten(by: count - got)
    }
}

extension LogFiles {
    /// The bytes at a place of a file, as many as there are.
    func bytes(
        of file: LogFileHandle,
        at offset: Int,
        count: Int
    ) throws(AppendLogError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let got = try bytes.withMutableBytes { (bytes) throws(AppendLogError) -> Int in
            try read(file, at: offset, into: bytes)
        }
        return Array(bytes.prefix(got))
    }

    /// Every file that is called a checkpoint, newest first.
    func checkpoints(in directory: String) throws(AppendLogError) -> [CheckpointFile] {
        var numbers: [UInt32] = []
        for name in try list(directory) {
            if let number = LogFormat.checkpointNumber(name) { numbers.append(number) }
        }
        var found: [CheckpointFile] = []
        for number in numbers.sorted(by: >) {
            let path = "\(directory)/\(LogFormat.checkpointName(number))"
            do throws(AppendLogError) {
                if let file = try CheckpointFile(path, number: number, self) { found.append(file) }
            } catch {
                // one that can't be read, or is just being removed, is none
                guard case .system = error else { throw error }
            }
        }
        return found
    }
}
