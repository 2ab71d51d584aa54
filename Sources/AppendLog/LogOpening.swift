// Part of QTasks. License: see LICENSE.

import Glibc

/// Opens a store for writing: reads the newest checkpoint and what follows it, tells tears from rot,
/// and leaves the disk in a state from which the owner may serve.
///
/// FileFormat.md tells the steps.
struct LogOpening {
    let files: any LogFiles
    let directory: String
    let options: LogOptions
    let listener: LogListener
    var report = RecoveryReport()

    private var meta = MetaPage()
    private var chain = SegmentChain([], incarnation: 0)
    private var newestIndex: UInt32 = 0
    private var order = ReplayOrder(durable: 0)
    /// The end of the last durable record: where the log is cut if the end was not clean.
    private var cut = RecordPosition(segment: 0, offset: 0)
    private var tail: Tail?
    private var checkpoints: [CheckpointFile] = []
    /// Where reading begins.
    private var start = RecordPosition(segment: 0, offset: 0)

    /// What an opening ends with.
    struct Outcome {
        var meta: MetaPage
        var metaFile: LogFileHandle
        var assembler: GroupAssembler
        var handle: LogFileHandle
        var filledEnd: Int
        var report: RecoveryReport
        /// Every segment of the log, oldest first; the last one is the one that is written to.
        var segments: [SegmentInfo]
        var keeping: LogKeeping
    }

    /// The new segment that takes the log's unproven tail.
    private struct Tail {
        var handle: LogFileHandle
        var assembler: GroupAssembler
        var written: [LogFileHandle] = []
    }

    init(
        files: any LogFiles,
        directory: String,
        options: LogOptions,
        listener: LogListener
    ) {
        self.files = files
        self.directory = directory
        self.options = options
        self.listener = listener
    }

    /// Does it all.
    ///
    /// The writer's lock must be held.
    mutating func run() throws(AppendLogError) -> Outcome {
        let metaFile = try openMeta()
        do throws(AppendLogError) {
            try findSegments()
            report.wasClean = meta.isClean && !report.isNew
            order = ReplayOrder(
                durable: try durable(),
                mark: meta.mark,
                from: meta.firstSequence
            )
            try restore()
            let continued = try readAll()
            return try settle(continued, metaFile)
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
        chain = SegmentChain(
            headers,
            incarnation: meta.incarnation,
            firstSegment: meta.firstSegment
        )
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

    /// Shows the owner the newest checkpoint that is whole and not ahead of the log.
    ///
    /// Without one, reading begins with the first segment: a checkpoint is a cache.
    private mutating func restore() throws(AppendLogError) {
        start = RecordPosition(segment: meta.firstSegment, offset: 0)
        guard let restore = listener.restore else { return }
        checkpoints = try files.checkpoints(in: directory).filter { isOfThisLog($0.checkpoint) }
        for file in checkpoints where try file.isWhole() {
            guard restore(.begin), try file.forEachBlock({ restore(.block($0)) }),
                restore(.end)
            else { continue }
            let checkpoint = file.checkpoint
            order = ReplayOrder(
                durable: order.durable,
                mark: meta.mark,
                from: checkpoint.startSequence + 1
            )
            start = checkpoint.start
            cut = checkpoint.start
            report.checkpoint = checkpoint.number
            return
        }
        if !checkpoints.isEmpty { _ = restore(.begin) }
    }

    /// Whether the log has what a checkpoint refers to, and what comes after it.
    private func isOfThisLog(_ checkpoint: Checkpoint) -> Bool {
        guard checkpoint.startSequence + 1 >= meta.firstSequence,
            checkpoint.endSequence <= order.durable,
            checkpoint.incarnation <= meta.incarnation, checkpoint.end <= meta.mark
        else { return false }
        return chain.links.contains {
            $0.header.index == checkpoint.start.segment
                && Int(checkpoint.start.offset) <= $0.limit
        }
    }

    /// Replays the chain from `start` on.
    ///
    /// Gives the segment to go on in where the end was clean and is as it was left.
    private mutating func readAll() throws(AppendLogError) -> SegmentHeader? {
        var isStopped = false
        var endsLoose = false
        for link in chain.links where link.header.index >= start.segment {
            let file = try SegmentBytes(path(link.header.index), files)
            let isFirst = link.header.index == start.segment
            var scan = SegmentScan(
                file.bytes,
                salt: link.header.salt,
                limit: link.limit,
                from: max(SegmentHeader.areaBytes, isFirst ? Int(start.offset) : 0)
            )
            endsLoose = false
            var start = scan.offset
            while let item = scan.next() {
                defer { start = scan.offset }
                let position = RecordPosition(segment: link.header.index, offset: UInt32(start))
                switch item {
                case .record(let header, let offset, let isSound) where !isStopped:
                    let view = RecordView(
                        header,
                        at: position,
                        payload: scan.payload(header, at: offset)
                    )
                    isStopped = try !take(view, header, isSound: isSound, end: scan.offset)
                    endsLoose = false
                case .damage(let range):
                    endsLoose = true
                    if order.isDurable(position) { noteDamage(range, at: position) }
                case .record, .group:
                    break
                }
                if isStopped || endsLoose && !order.isDurable(position) {
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

    /// A group's header alone holds nothing; what is longer may have been something carried forward,
    /// which no gap in the sequence would tell.
    private mutating func noteDamage(_ range: Range<Int>, at position: RecordPosition) {
        guard range.count > GroupHeader.bytes else { return }
        report.damaged.append(DamagedBytes(position: position, bytes: range.count))
    }

    /// Whether the mark stands right behind the header: nothing was appended to this segment.
    private func isEmptySegment(_ header: SegmentHeader) -> Bool {
        meta.mark.offset == UInt32(SegmentHeader.areaBytes) && cut.segment != header.index
    }

    /// Shows one record to the owner, if it counts; `false` where the log ends before it.
    private mutating func take(
        _ view: borrowing RecordView,
        _ header: RecordHeader,
        isSound: Bool,
        end: Int
    ) throws(AppendLogError) -> Bool {
        let wasDurable =
            view.source == nil ? view.sequence <= order.durable : order.isDurable(view.position)
        switch order.record(header, at: view.position, isSound: isSound) {
        case .ignore:
            return true
        case .stop(let lost):
            if let lost { note(lost, at: view.position) }
            return false
        case .lost(let lost):
            note(lost, at: view.position)
            listener.damaged?(view)
        case .deliverAfterLoss(let lost):
            note(lost, at: cut.segment == 0 ? view.position : cut)
            try deliver(view, isDurable: wasDurable)
        case .deliver:
            try deliver(view, isDurable: wasDurable)
        }
        if wasDurable {
            cut = RecordPosition(segment: view.position.segment, offset: UInt32(end))
        }
        return true
    }

    private mutating func note(_ lost: ClosedRange<UInt64>, at position: RecordPosition) {
        report.lost.append(LostRecords(sequences: lost, position: position))
    }

    private mutating func deliver(
        _ view: borrowing RecordView,
        isDurable: Bool
    ) throws(AppendLogError) {
        report.records += 1
        guard !isDurable else { return listener.replay(view) }
        report.recordsRewritten += 1
        try listener.replay(rewrite(view))
    }

    // MARK: The new segment

    /// Appends a record that may only be in the page cache to the new segment.
    private mutating func rewrite(
        _ view: borrowing RecordView
    ) throws(AppendLogError) -> RecordView {
        if tail == nil { try beginTail() }
        guard var tail else { preconditionFailure("a tail was just begun") }
        let (sequence, payload) = (view.sequence, view.payload)
        let position = tail.assembler.append(
            kind: view.kind,
            flags: view.flags,
            payloadBytes: payload.count,
            carried: view.source.map { (sequence, $0) }
        ) { $0.copyMemory(from: payload) }
        self.tail = tail
        if tail.assembler.openBytes >= 1 << 20 { try flushTail() }
        var header = RecordHeader(
            kind: view.kind,
            flags: view.flags,
            payloadBytes: payload.count,
            sequence: sequence,
            payloadChecksum: 0
        )
        header.source = view.source
        return RecordView(header, at: position, payload: payload)
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
        var assembler: GroupAssembler
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
        let keeping = try keepers()
        meta.checkpoint = keeping.checkpoints.last?.number ?? 0
        meta.checkpointSequence = keeping.checkpoints.last?.startSequence ?? 0
        for _ in 0..<2 {
            meta.transaction += 1
            try files.writeMeta(meta, to: metaFile)
        }
        let segments = segments(with: assembler)
        assembler.forgetBegun()
        tail = nil
        removeLeftovers(keeping, end: assembler.end.segment)
        return Outcome(
            meta: meta,
            metaFile: metaFile,
            assembler: assembler,
            handle: handle,
            filledEnd: max(try files.size(handle), Int(meta.mark.offset)),
            report: report,
            segments: segments,
            keeping: keeping
        )
    }

    /// The segments of the log as it is now, the new ones included.
    private func segments(with assembler: GroupAssembler) -> [SegmentInfo] {
        let old = chain.links.map(\.header).filter { $0.index <= cut.segment || tail == nil }
        var infos: [SegmentInfo] = []
        for info in old.map({ SegmentInfo($0) }) + assembler.begun { infos.append(next: info) }
        return infos
    }

    /// What is there, and what it takes up.
    private func keepers() throws(AppendLogError) -> LogKeeping {
        var sizes: [UInt32: Int] = [:]
        for name in try files.list(directory) {
            guard let index = LogFormat.segmentIndex(name) else { continue }
            let file = try files.open(path(index), .read)
            defer { files.close(file) }
            sizes[index] = try files.size(file)
        }
        return LogKeeping(checkpoints: checkpoints.reversed().map(\.checkpoint), sizes: sizes)
    }

    /// Removes what no meta page leads to any more.
    ///
    /// Nothing goes while records are missing: repair may still find them.
    private func removeLeftovers(_ keeping: LogKeeping, end: UInt32) {
        guard report.lost.isEmpty, report.damaged.isEmpty else { return }
        let passed = chain.links.map(\.header.index).filter { $0 > cut.segment && $0 < end }
        // one that stays is met again at the next opening
        for index in chain.superseded + passed where index != meta.mark.segment {
            try? files.remove(path(index))
        }
        let kept = Set(keeping.checkpoints.map(\.number))
        for name in (try? files.list(directory)) ?? [] {
            let number = LogFormat.checkpointNumber(name)
            let isUnfinished = name.hasPrefix("checkpoint-") && name.hasSuffix(LogFormat.unfinished)
            guard isUnfinished || number.map({ !kept.contains($0) }) ?? false else { continue }
            if isUnfinished || listener.restore != nil { try? files.remove("\(directory)/\(name)") }
        }
    }
}
