// Part of QTasks. License: see LICENSE.

/// The bytes of one segment file after the other, read with `pread`.
///
/// Not mapped: a read error would then be a signal instead of an error. The memory is used again for the
/// next file: fresh memory costs as much as the reading.
final class SegmentBytes {
    private var buffer = UnsafeMutableRawBufferPointer(start: nil, count: 0)

    /// Of the file that was read last; valid until another one is read.
    private(set) var bytes = UnsafeRawBufferPointer(start: nil, count: 0)

    /// Reads a whole file.
    func read(_ path: String, _ files: any LogFiles) throws(AppendLogError) {
        let file = try files.open(path, .read)
        defer { files.close(file) }
        let size = try files.size(file)
        bytes = UnsafeRawBufferPointer(start: nil, count: 0)
        if buffer.count < size {
            buffer.deallocate()
            buffer = .allocate(byteCount: size, alignment: 8)
        }
        let target = UnsafeMutableRawBufferPointer(rebasing: buffer.prefix(size))
        let count = try files.read(file, at: 0, into: target)
        bytes = UnsafeRawBufferPointer(rebasing: target.prefix(count))
    }

    deinit {
        buffer.deallocate()
    }

    /// The highest `durableUpTo` of the segment's groups; `nil` where it has none.
    func durableUpTo(_ link: SegmentChain.Link) -> UInt64? {
        Self.durableUpTo(bytes, link)
    }

    static func durableUpTo(_ bytes: UnsafeRawBufferPointer, _ link: SegmentChain.Link) -> UInt64? {
        var scan = SegmentScan(
            bytes,
            salt: link.header.salt,
            limit: link.limit,
            checksPayloads: false
        )
        var highest: UInt64?
        while let item = scan.next() {
            if case .group(let group) = item { highest = max(highest ?? 0, group.durableUpTo) }
        }
        return highest
    }
}

extension LogFiles {
    /// The newer whole meta page.
    func readMeta(_ file: LogFileHandle, path: String) throws(AppendLogError) -> MetaPage {
        var bytes = [UInt8](repeating: 0, count: MetaPage.fileBytes)
        let count = try bytes.withMutableBytes { (bytes) throws(AppendLogError) -> Int in
            try read(file, at: 0, into: bytes)
        }
        return try MetaPage.newest(of: Array(bytes.prefix(count)), path: path)
    }

    /// The header of a segment; `nil` where neither copy is whole.
    func readSegmentHeader(_ path: String) throws(AppendLogError) -> SegmentHeader? {
        let file = try open(path, .read)
        defer { close(file) }
        return try readSegmentHeader(file, path: path)
    }

    func readSegmentHeader(
        _ file: LogFileHandle,
        path: String
    ) throws(AppendLogError) -> SegmentHeader? {
        var area = [UInt8](repeating: 0, count: SegmentHeader.areaBytes)
        return try area.withMutableBytes { (bytes) throws(AppendLogError) -> SegmentHeader? in
            let count = try read(file, at: 0, into: bytes)
            return try SegmentHeader.decode(
                UnsafeRawBufferPointer(rebasing: bytes.prefix(count)),
                path: path
            )
        }
    }
}
