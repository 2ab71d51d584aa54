// Part of QTasks. License: see LICENSE.

import Glibc

/// Single records of a store, read from outside by their place: from any process, without a lock,
/// also while the store is being written.
///
/// Whoever is told of a place is told of the record's sequence as well. Both checksums begin with
/// the segment's salt, so that a place of another store, or of a segment that is gone, never passes
/// for the record that was meant: it throws, and never waits.
public struct LogRecords: Sendable {
    private let directory: String
    private let files: any LogFiles

    /// Those of the store in `directory`; nothing is opened yet.
    public init(_ directory: String, files: any LogFiles = PosixFiles()) {
        self.directory = directory
        self.files = files
    }

    /// Whether a store can be opened here for reading.
    public var canBeOpened: Bool {
        let path = "\(directory)/\(LogFormat.metaName)"
        guard let file = try? files.open(path, .read) else { return false }
        files.close(file)
        return true
    }

    /// Maps the record that begins at `position`, and nothing else.
    ///
    /// The header is checked here, the payload by ``MappedRecord/isSound()``. The segment's blocks
    /// stay on the disk for as long as the mapping lives, also once its file is removed.
    ///
    /// - Throws: `ENOENT` where the segment is gone; ``AppendLogError/corrupt(path:offset:)`` where
    ///   no record with this sequence begins there.
    public func map(
        _ position: RecordPosition,
        sequence: UInt64
    ) throws(AppendLogError) -> MappedRecord {
        let segment = try Segment(position, sequence, directory, files)
        defer { files.close(segment.file) }
        let mapping = try files.map(
            segment.file,
            at: Int(position.offset),
            bytes: segment.header.headerBytes + segment.header.payloadBytes,
            path: segment.path
        )
        return MappedRecord(mapping, segment.header, seed: segment.seed)
    }

    /// Reads a part of a record's payload, and checks all of it.
    ///
    /// With `pread`, not from a mapping: a disk that can't read is an error then, and no signal.
    ///
    /// - Parameters:
    ///   - position: Where the record begins.
    ///   - sequence: Its sequence.
    ///   - start: The first byte of the payload that is wanted.
    ///   - target: Filled with what follows from there; undefined after an error.
    /// - Throws: As ``map(_:sequence:)``, and where the payload isn't as it was written.
    public func read(
        _ position: RecordPosition,
        sequence: UInt64,
        from start: Int,
        into target: UnsafeMutableRawBufferPointer
    ) throws(AppendLogError) {
        let segment = try Segment(position, sequence, directory, files)
        defer { files.close(segment.file) }
        let payloadBytes = segment.header.payloadBytes
        let end = start + target.count
        guard start >= 0, end <= payloadBytes else { throw segment.corrupt }
        // what stands before and behind is read for the checksum alone
        let rest = UnsafeMutableRawBufferPointer.allocate(
            byteCount: max(1, start, payloadBytes - end),
            alignment: 8
        )
        defer { rest.deallocate() }
        var checksum = segment.seed
        var offset = Int(position.offset) + segment.header.headerBytes
        let parts = [
            UnsafeMutableRawBufferPointer(rebasing: rest[..<start]), target,
            UnsafeMutableRawBufferPointer(rebasing: rest[..<(payloadBytes - end)]),
        ]
        for part in parts {
            guard let base = part.baseAddress, !part.isEmpty else { continue }
            guard try files.read(segment.file, at: offset, into: part) == part.count else {
                throw segment.corrupt
            }
            checksum = UnsafeRawPointer(base).crc32c(part.count, seed: checksum)
            offset += part.count
        }
        guard checksum == segment.header.payloadChecksum else { throw segment.corrupt }
    }

    /// A segment's open file, and the header of one record in it.
    private struct Segment {
        let file: LogFileHandle
        let path: String
        let header: RecordHeader
        /// What the record's checksums begin with.
        let seed: UInt32
        private let offset: Int

        init(
            _ position: RecordPosition,
            _ sequence: UInt64,
            _ directory: String,
            _ files: any LogFiles
        ) throws(AppendLogError) {
            path = "\(directory)/\(LogFormat.segmentName(position.segment))"
            offset = Int(position.offset)
            file = try files.openHeld(path)
            do throws(AppendLogError) {
                guard let segment = try files.readSegmentHeader(file, path: path) else {
                    throw .corrupt(path: path, offset: 0)
                }
                seed = segment.salt ^ position.offset
                let found = try Self.header(of: file, at: offset, seed: seed, files)
                guard let found, found.sequence == sequence,
                    try files.size(file) >= offset + found.headerBytes + found.payloadBytes
                else { throw .corrupt(path: path, offset: offset) }
                header = found
            } catch {
                files.close(file)
                throw error
            }
        }

        var corrupt: AppendLogError { .corrupt(path: path, offset: offset) }

        private static func header(
            of file: LogFileHandle,
            at offset: Int,
            seed: UInt32,
            _ files: any LogFiles
        ) throws(AppendLogError) -> RecordHeader? {
            var bytes = [UInt8](repeating: 0, count: RecordHeader.carriedBytes)
            return try bytes.withMutableBytes { (bytes) throws(AppendLogError) -> RecordHeader? in
                let count = try files.read(file, at: offset, into: bytes)
                guard let base = bytes.baseAddress else { return nil }
                return RecordHeader(UnsafeRawPointer(base), available: count, seed: seed)
            }
        }
    }
}

/// A record of a store, mapped read-only for as long as this object lives.
public final class MappedRecord {
    private let mapping: LogMapping
    private let header: RecordHeader
    private let seed: UInt32

    init(_ mapping: LogMapping, _ header: RecordHeader, seed: UInt32) {
        self.mapping = mapping
        self.header = header
        self.seed = seed
    }

    /// Its number in the log.
    public var sequence: UInt64 { header.sequence }

    /// Its payload, unchecked; valid for as long as this object lives.
    ///
    /// A page that the disk can't read is a SIGBUS for this process, see mmap(2). After
    /// ``isSound()`` that takes a page that was dropped from the cache meanwhile, and a disk that
    /// has failed since.
    public var payload: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: mapping.bytes[header.headerBytes...])
    }

    /// Reads all of it and compares it with its checksum.
    ///
    /// - Returns: `false` also where the disk can't read it, on Linux 5.14 or later; an older kernel
    ///   has no way to say so but SIGBUS.
    public func isSound() -> Bool {
        guard mapping.populate() else { return false }
        let payload = payload
        guard let base = payload.baseAddress else { return header.payloadBytes == 0 }
        return base.crc32c(payload.count, seed: seed) == header.payloadChecksum
    }
}

// Nothing in it changes, and neither do the bytes of a record once it is written.
extension MappedRecord: @unchecked Sendable {}
