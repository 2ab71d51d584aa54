// Part of QTasks. License: see LICENSE.

import Glibc

/// Opens a store for writing: reads it all, tells tears from rot, and leaves the disk in a state
/// from which the owner may serve.
///
/// FileFormat.md tells the steps.
struct LogOpening {
    let files: any LogFiles
    let directory: String
    let options: LogOptions
    var report = RecoveryReport()

    private var meta = MetaPage()
    private var chain = SegmentChain([], incarnation: 0)
    private var newestIndex: UInt32 = 0
    private var order = ReplayOrder(durable: 0)
    /// The end of the last durable record: where the log is cut if the end was not clean.
    private var cut = RecordPosition(segment: 0, offset: 0)
    private var tail: Tail?

    /// What an opening ends with.
    struct Outcome {
        var meta: MetaPage
        var metaFile: LogFileHandle
        var assembler: GroupAssembler
        var handle: LogFileHandle
        var filledEnd: Int
        var report: RecoveryReport
    }

    /// The new segment that takes the log's unproven tail.
    private struct Tail {
        var handle: LogFileHandle
        var assembler: GroupAssembler
        var written: [LogFileHandle] = []
    }

    init(files: any LogFiles, directory: String, options: LogOptions) {
        self.files = files
        self.directory = directory
        self.options = options
    }

    /// Does it all.
    ///
    /// The writer's lock must be held.
    mutating func run(
        _ replay: (borrowing RecordView) -> Void
    ) throws(AppendLogError) -> Outcome {
        let metaFile = try openMeta()
        do throws(AppendLogError) {
            try findSegments()
            report.wasClean = meta.isClean && !report.isNew
            let continued = try readAll(replay)
            let outcome = try settle(continued, metaFile)
            removeLeftovers(outcome.meta)
            return outcome
        } catch {
            files.close(metaFile)
            tail?.written.forEach(files.close)
            throw error
        }
    }

    private func path(_ segment: UInt32) -> String {
        "\(directory)/\(LogFormat.segmentName(segment))"
    }

    // MARK: Meta

    private mutating func openMeta() throws(AppendLogError) -> LogFileHandle {
        let path = "\(directory)/\(LogFormat.metaName)"
        do throws(AppendLogError) {
            let file = try files.open(path, .readWrite)
            do throws(AppendLogError) {
                meta = try files.readMeta(file, path: path)
                return file
            } catch {
                files.close(file)
                throw error
            }
        } catch {
            guard case .system("open", _, ENOENT) = error else { throw error }
        }
        guard try !files.list(directory).contains(where: { LogFormat.segmentIndex($0) != nil })
        else { throw .metaUnreadable(path: path) }
        return try makeMeta(path)
    }

    /// Both pages first, whole and durable under another name: `meta` is never half there.
    private mutating func makeMeta(_ path: String) throws(AppendLogError) -> LogFileHandle {
        report.isNew = true
        meta.isClean = true
        let file = try files.open(path + ".new", .create)
        do throws(AppendLogError) {
            try files.writeMeta(meta, to: file)
            meta.transaction += 1
            try files.writeMeta(meta, to: file)
            try files.rename(path + ".new", to: path)
            try files.syncDirectory(directory)
        } catch {
            files.close(file)
            throw error
        }
        return file
    }

    // MARK: Reading

    private mutating func findSegments() throws(AppendLogError) {
        var headers: [SegmentHeader] = []
        var unused: [UInt32] = []  // prepared, and never written to
        for name in try files.list(directory) {
            guard let index = LogFormat.segmentIndex(name) else { continue }
            let header = try files.readSegmentHeader(path(index))
            if header == nil, try isZero(index) {
                unused.append(index)
                continue
            }
            newestIndex = max(newestIndex, index)
            if let header, header.index == index { headers.append(header) }
        }
        // Their names are needed again.
        for index in unused { try files.remove(path(index)) }
        chain = SegmentChain(headers, incarnation: meta.incarnation)
    }

    private func isZero(_ segment: UInt32) throws(AppendLogError) -> Bool {
        let file = try SegmentBytes(path(segment), files)
        return file.bytes.allSatisfy { $0 == 0 }
    }

    /// The highest sequence that any evidence calls durable.
    private func durable() throws(AppendLogError) -> UInt64 {
        for link in chain.links.reversed() {
            let file = try SegmentBytes(path(link.header.index), files)
            if let proven = file.durableUpTo(link) { return max(proven, meta.durableAtLeast) }
        }
        return meta.durableAtLeast
    }

    /// Replays the chain.
    ///
    /// Gives the segment to go on in where the end was clean and is as it was left.
    private mutating func readAll(
        _ replay: (borrowing RecordView) -> Void
    ) throws(AppendLogError) -> SegmentHeader? {
        order = ReplayOrder(durable: try durable())
        var isStopped = false
        var endsLoose = false
        for link in chain.links {
            let file = try SegmentBytes(path(link.header.index), files)
            var scan = SegmentScan(file.bytes, salt: link.header.salt, limit: link.limit)
            endsLoose = false
            var start = scan.offset
            while let item = scan.next() {
                defer { start = scan.offset }
                switch item {
                case .record(let header, let offset, let isSound) where !isStopped:
                    let view = RecordView(
                        sequence: header.sequence,
                        kind: header.kind,
                        flags: header.flags,
                        position: RecordPosition(
                            segment: link.header.index,
                            offset: UInt32(offset)
                        ),
                        payload: scan.payload(header, at: offset)
                    )
                    isStopped = try !take(view, isSound: isSound, end: scan.offset, replay)
                    endsLoose = false
                case .damage:
                    endsLoose = true
                case .record, .group:
                    break
                }
                if isStopped || endsLoose && order.next > order.durable {
                    report.tornBytes += scan.offset - start
                }
            }
        }
        if let lost = order.finish() { note(lost, at: cut) }
        guard meta.isClean, tail == nil, !isStopped, !endsLoose,
            order.durable == meta.durableAtLeast,
            let last = chain.links.last?.header, last.index == newestIndex,
            last.index == meta.mark.segment, cut == meta.mark || isEmptySegment(last)
        else { return nil }
        return last
    }

    /// Whether the mark stands right behind the header: nothing was appended to this segment.
    private func isEmptySegment(_ header: SegmentHeader) -> Bool {
        meta.mark.offset == UInt32(SegmentHeader.areaBytes) && cut.segment != header.index
    }

    /// Shows one record to the owner, if it counts; `false` where the log ends before it.
    private mutating func take(
        _ view: borrowing RecordView,
        isSound: Bool,
        end: Int,
        _ replay: (borrowing RecordView) -> Void
    ) throws(AppendLogError) -> Bool {
        switch order.record(view.sequence, isSound: isSound) {
        case .ignore:
            return true
        case .stop(let lost):
            if let lost { note(lost, at: view.position) }
            return false
        case .lost(let lost):
            note(lost, at: view.position)
        case .deliverAfterLoss(let lost):
            note(lost, at: cut.segment == 0 ? view.position : cut)
            try deliver(view, replay)
        case .deliver:
            try deliver(view, replay)
        }
        if view.sequence <= order.durable {
            cut = RecordPosition(segment: view.position.segment, offset: UInt32(end))
        }
        return true
    }

    private mutating func note(_ lost: ClosedRange<UInt64>, at position: RecordPosition) {
        report.lost.append(LostRecords(sequences: lost, position: position))
    }

    private mutating func deliver(
        _ view: borrowing RecordView,
        _ replay: (borrowing RecordView) -> Void
    ) throws(AppendLogError) {
        report.records += 1
        guard view.sequence > order.durable else { return replay(view) }
        report.recordsRewritten += 1
        let position = try rewrite(view)
        replay(
            RecordView(
                sequence: view.sequence,
                kind: view.kind,
                flags: view.flags,
                position: position,
                payload: view.payload
            )
        )
    }

    // MARK: The new segment

    /// Appends a record that may only be in the page cache to the new segment.
    private mutating func rewrite(
        _ view: borrowing RecordView
    ) throws(AppendLogError) -> RecordPosition {
        if tail == nil { try beginTail() }
        guard var tail else { preconditionFailure("a tail was just begun") }
        let source = view.payload
        let position = tail.assembler.append(
            kind: view.kind,
            flags: view.flags,
            payloadBytes: source.count
        ) { $0.copyMemory(from: source) }
        self.tail = tail
        if tail.assembler.openBytes >= 1 << 20 { try flushTail() }
        return position
    }

    private mutating func beginTail() throws(AppendLogError) {
        let index = newestIndex + 1
        let handle = try files.open(path(index), .createNew)
        let files = files
        tail = Tail(
            handle: handle,
            assembler: GroupAssembler(
                segment: index,
                after: cut,
                firstSequence: order.durable + 1,
                incarnation: meta.incarnation + 1,
                segmentBytes: options.segmentBytes,
                newSalt: { files.salt() }
            ),
            written: [handle]
        )
    }

    private mutating func flushTail() throws(AppendLogError) {
        guard var tail else { return }
        defer { self.tail = tail }
        for piece in tail.assembler.close(durableUpTo: order.durable) {
            if piece.offset == 0, piece.segment != newestIndex + 1 {
                tail.handle = try files.open(path(piece.segment), .createNew)
                tail.written.append(tail.handle)
            }
            try files.write(tail.handle, [piece.buffer.bytes], at: piece.offset)
        }
    }

    // MARK: Settling

    /// Makes what was read durable, and says so in both meta pages.
    private mutating func settle(
        _ continued: SegmentHeader?,
        _ metaFile: LogFileHandle
    ) throws(AppendLogError) -> Outcome {
        let incarnation = meta.incarnation + 1
        let files = files
        let assembler: GroupAssembler
        let handle: LogFileHandle
        if let continued {
            assembler = GroupAssembler(
                continuing: meta.mark,
                salt: continued.salt,
                nextSequence: order.durable + 1,
                incarnation: incarnation,
                segmentBytes: options.segmentBytes,
                newSalt: { files.salt() }
            )
            handle = try files.open(path(continued.index), .readWrite)
            tail = nil
        } else {
            if tail == nil { try beginTail() }
            try flushTail()
            guard let tail else { preconditionFailure("a tail was just begun") }
            for file in tail.written { try files.syncData(file) }
            try files.syncDirectory(directory)
            tail.written.dropLast().forEach(files.close)
            (assembler, handle) = (tail.assembler, tail.handle)
        }
        meta.incarnation = incarnation
        meta.isClean = false
        meta.durableAtLeast = assembler.nextSequence - 1
        meta.mark = assembler.end
        for _ in 0..<2 {
            meta.transaction += 1
            try files.writeMeta(meta, to: metaFile)
        }
        tail = nil
        return Outcome(
            meta: meta,
            metaFile: metaFile,
            assembler: assembler,
            handle: handle,
            filledEnd: max(try files.size(handle), Int(meta.mark.offset)),
            report: report
        )
    }

    /// Removes what no meta page leads to any more.
    ///
    /// Nothing goes while records are missing: repair may still find them.
    private func removeLeftovers(_ meta: MetaPage) {
        guard report.lost.isEmpty else { return }
        let passed = chain.links.map(\.header.index).filter { $0 > cut.segment }
        for index in chain.superseded + passed where index != meta.mark.segment {
            try? files.remove(path(index))  // one that stays is met again at the next opening
        }
    }
}
