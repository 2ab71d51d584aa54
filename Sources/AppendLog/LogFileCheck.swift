// Part of QTasks. License: see LICENSE.

import Glibc

/// A part of a store's files that isn't as it was written.
public struct FileDamage: Hashable, Sendable {
    /// Which parts there are beside the records.
    public enum Part: String, Sendable {
        /// One of the two pages of `meta`.
        case metaPage
        /// One of the two copies of a segment's header.
        case segmentHeader
        /// What stands before the records of a group; the records can be read without it.
        case groupHeader
        /// A checkpoint's header, a block of it, or its end.
        case checkpoint
    }

    /// Which one it is.
    public var part: Part
    /// The file's name in the store's directory.
    public var file: String
    /// Where the part begins.
    public var offset: Int
    /// Its length.
    public var bytes: Int
}

/// Looks at what surrounds the records of a store: both meta pages, both headers of every segment,
/// the headers of groups, and the checkpoints.
///
/// ``LogReader`` gets along without most of them, and doesn't tell; it checks the records. Works on
/// a store that is being written, too, and blocks nobody.
public struct LogFileCheck {
    /// Everything that isn't as it was written.
    public private(set) var damages: [FileDamage] = []

    /// How many of the two meta pages are whole.
    public private(set) var metaPages = 0

    /// The checkpoints that are whole, newest first.
    public private(set) var checkpoints: [CheckpointInfo] = []

    /// How many segment files there are.
    public private(set) var segments = 0

    private let directory: String
    private let files: any LogFiles
    private var meta: MetaPage?

    /// Does it all.
    ///
    /// - Throws: `ENOENT` where there is no such directory;
    ///   ``AppendLogError/newerFormat(path:version:supported:)``.
    public init(_ directory: String, files: any LogFiles = PosixFiles()) throws(AppendLogError) {
        self.directory = directory
        self.files = files
        try checkMeta()
        try checkSegments()
        try checkCheckpoints()
    }

    private func path(_ name: String) -> String { "\(directory)/\(name)" }

    // MARK: Meta

    /// How often a page or header that isn't whole is read again: its writer may be at it right now.
    private static let readsMax = 20

    private mutating func checkMeta() throws(AppendLogError) {
        var pages: [MetaPage?] = []
        for _ in 0..<Self.readsMax {
            pages = try readMetaPages()
            if pages.allSatisfy({ $0 != nil }) { break }
        }
        for (index, page) in pages.enumerated() where page == nil {
            damages.append(
                FileDamage(
                    part: .metaPage,
                    file: LogFormat.metaName,
                    offset: index * MetaPage.bytes,
                    bytes: MetaPage.bytes
                )
            )
        }
        let whole = pages.compactMap { $0 }
        metaPages = whole.count
        meta = whole.max { $0.transaction < $1.transaction }
    }

    private func readMetaPages() throws(AppendLogError) -> [MetaPage?] {
        let path = path(LogFormat.metaName)
        guard let file = try openIfThere(path) else { return [nil, nil] }
        defer { files.close(file) }
        let bytes = try files.bytes(of: file, at: 0, count: MetaPage.fileBytes)
        var pages: [MetaPage?] = []
        for offset in [0, MetaPage.bytes] {
            let page = try bytes.withBytes { (all) throws(AppendLogError) -> MetaPage? in
                let rest = UnsafeRawBufferPointer(rebasing: all.dropFirst(offset))
                return try MetaPage.decode(rest, path: path)
            }
            pages.append(page)
        }
        return pages
    }

    // MARK: Segments

    private mutating func checkSegments() throws(AppendLogError) {
        var headers: [SegmentHeader] = []
        var mappings: [UInt32: LogMapping] = [:]
        for name in try files.list(directory).sorted() {
            guard let index = LogFormat.segmentIndex(name), index >= meta?.firstSegment ?? 1,
                let start = try Self.start(of: path(name), map: mapIfThere)
            else { continue }
            for offset in start.bad {
                damages.append(
                    FileDamage(
                        part: .segmentHeader,
                        file: name,
                        offset: offset,
                        bytes: SegmentHeader.bytes
                    )
                )
            }
            guard let header = start.header else { continue }
            segments += 1
            headers.append(header)
            mappings[index] = start.mapping
        }
        guard let meta else { return }
        let chain = SegmentChain(
            headers,
            incarnation: meta.incarnation,
            firstSegment: meta.firstSegment
        )
        let links = chain.links.compactMap { link in
            mappings[link.header.index].map { (link, $0.bytes) }
        }
        checkGroups(of: links, meta)
    }

    /// A segment, its header by either of the two copies, and where one is that isn't whole.
    struct SegmentStart {
        let mapping: LogMapping
        var header: SegmentHeader?
        var bad: [Int] = []
    }

    /// Looks at a segment's headers, again and again where they aren't whole.
    ///
    /// - Returns: `nil` where the segment is gone.
    static func start(
        of path: String,
        map: (String) throws(AppendLogError) -> LogMapping?
    ) throws(AppendLogError) -> SegmentStart? {
        var start: SegmentStart?
        for _ in 0..<readsMax {
            guard let mapping = try map(path) else { return nil }
            var found = SegmentStart(mapping: mapping)
            for offset in [0, SegmentHeader.copyOffset] {
                // of one copy alone: decode takes the second for what it looks at first
                let copy = UnsafeRawBufferPointer(
                    rebasing: mapping.bytes.dropFirst(offset).prefix(SegmentHeader.bytes)
                )
                if let header = try SegmentHeader.decode(copy, path: path) {
                    found.header = found.header ?? header
                } else {
                    found.bad.append(offset)
                }
            }
            // prepared, and never written to
            let isEmpty = found.header == nil && mapping.bytes.allSatisfy { $0 == 0 }
            if isEmpty { found.bad = [] }
            if found.bad.isEmpty { return found }
            start = found
        }
        return start
    }

    private mutating func checkGroups(
        of links: [(SegmentChain.Link, UnsafeRawBufferPointer)],
        _ meta: MetaPage
    ) {
        let proven = links.reversed().lazy.compactMap { SegmentBytes.durableUpTo($1, $0) }.first
        var order = ReplayOrder(
            durable: max(meta.durableAtLeast, proven ?? 0),
            mark: meta.mark,
            from: meta.firstSequence
        )
        for (link, bytes) in links {
            var scan = SegmentScan(
                bytes,
                salt: link.header.salt,
                limit: link.limit,
                knownEnd: link.knownEnd(meta.mark),
                checksPayloads: false
            )
            while let item = scan.next() {
                switch item {
                case .group: break
                case .record(let header, let offset, let isSound):
                    let position = RecordPosition(
                        segment: link.header.index,
                        offset: UInt32(offset)
                    )
                    _ = order.record(header, at: position, isSound: isSound)
                case .damage(let range):
                    // what is longer may have been a record: LogReader tells of it
                    let position = RecordPosition(
                        segment: link.header.index,
                        offset: UInt32(range.lowerBound)
                    )
                    let isDurable = order.isDurable(position)
                    _ = order.damage(bytes: range.count, at: position)
                    guard range.count <= GroupHeader.bytes, isDurable else { continue }
                    damages.append(
                        FileDamage(
                            part: .groupHeader,
                            file: LogFormat.segmentName(link.header.index),
                            offset: range.lowerBound,
                            bytes: range.count
                        )
                    )
                }
            }
        }
    }

    // MARK: Checkpoints

    private mutating func checkCheckpoints() throws(AppendLogError) {
        let names = try files.list(directory).filter { LogFormat.checkpointNumber($0) != nil }
        for name in names.sorted(by: >) {
            guard let number = LogFormat.checkpointNumber(name) else { continue }
            do throws(AppendLogError) {
                try check(number, name)
            } catch {
                // a writer removes those that it needs no longer
                guard case .system("open", _, ENOENT) = error else { throw error }
            }
        }
    }

    private mutating func check(_ number: UInt32, _ name: String) throws(AppendLogError) {
        guard let file = try CheckpointFile(path(name), number: number, files) else {
            return note(name, at: 0, bytes: Checkpoint.headerBytes)
        }
        var offset = Checkpoint.headerBytes
        let isWhole = try file.forEachBlock { content in
            offset += Checkpoint.bytesOfBlock(content: content.count)
            return true
        }
        guard isWhole else {
            return note(name, at: offset, bytes: file.checkpoint.bytes - offset)
        }
        checkpoints.append(CheckpointInfo(file.checkpoint))
    }

    private mutating func note(_ name: String, at offset: Int, bytes: Int) {
        damages.append(
            FileDamage(part: .checkpoint, file: name, offset: offset, bytes: bytes)
        )
    }

    // MARK: Files that may go

    private func openIfThere(_ path: String) throws(AppendLogError) -> LogFileHandle? {
        do throws(AppendLogError) {
            return try files.openHeld(path)
        } catch {
            guard case .system("open", _, ENOENT) = error else { throw error }
            return nil
        }
    }

    private func mapIfThere(_ path: String) throws(AppendLogError) -> LogMapping? {
        do throws(AppendLogError) {
            return try files.map(path)
        } catch {
            guard case .system("open", _, ENOENT) = error else { throw error }
            return nil
        }
    }
}
