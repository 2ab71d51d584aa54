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
    /// The end of the last durable record that was read.
    private var end = RecordPosition(segment: 0, offset: 0)
    /// Segment files whose header can't be read.
    private var unreadable: [UInt32] = []
    /// Where the log is cut if the end was not clean: behind the last durable thing that was read, a record
    /// or damage, which the next opening reports again.
    ///
    /// Never at a place that was not read, whatever the meta page marks: so the next opening reads up to
    /// here what this one has read, and judges it alike, since what is called durable only grows.
    private var cut = RecordPosition(segment: 0, offset: 0)
    /// Whether something was read that is not durable.
    ///
    /// What is durable is a prefix of the log, so nothing behind is, whatever the meta page marks: the cut
    /// stays where it is.
    private var isBehindDurable = false
    private var tail: Tail?
    private let segment = SegmentBytes()
    /// Those that can be used, newest first.
    private var checkpoints: [CheckpointFile] = []
    /// What was opened on the way to the new segment, or is written to from now on.
    private var opened: [LogFileHandle] = []
    /// A meta page may lead to the new segment.
    private var isSettling = false
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
            let durable = try durable()
            guard durable <= LogFormat.sequenceMax / 2 else { throw .notAStore(path: directory) }
            order = ReplayOrder(
                durable: durable,
                mark: meta.mark,
                from: meta.firstSequence
            )
            try restore()
            let continued = try readAll()
            return try settle(continued, metaFile)
        } catch {
            files.close(metaFile)
            opened.forEach(files.close)
            if let tail, !isSettling { removeUnused(tail) }
            throw error
        }
    }

    /// On a full disk each attempt would otherwise leave less room for the next.
    private func removeUnused(_ tail: Tail) {
        for index in newestIndex + 1...tail.assembler.end.segment { try? files.remove(path(index)) }
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
                guard meta.incarnation <= LogFormat.numberMax / 2,
                    max(meta.transaction, meta.durableAtLeast) <= LogFormat.sequenceMax / 2
                else { throw AppendLogError.notAStore(path: path) }
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
        // also one whose file is gone: its number is not used again
        newestIndex = max(meta.mark.segment, meta.firstSegment - min(1, meta.firstSegment))
        for name in try files.list(directory) {
            guard let index = LogFormat.segmentIndex(name) else { continue }
            let header = try files.readSegmentHeader(path(index))
            if header == nil, index > meta.mark.segment, try isZero(index) {
                unused.append(index)
                continue
            }
            newestIndex = max(newestIndex, index)
            if header == nil { unreadable.append(index) }
            if let header, header.index == index { headers.append(header) }
        }
        // A writer has to be able to count on.
        guard newestIndex <= LogFormat.numberMax / 2 else {
            throw .notAStore(path: path(newestIndex))
        }
        // Their names are needed again.
        for index in unused { try files.remove(path(index)) }
        chain = SegmentChain(
            headers,
            incarnation: meta.incarnation,
            firstSegment: meta.firstSegment
        )
    }

    private func isZero(_ index: UInt32) throws(AppendLogError) -> Bool {
        try segment.read(path(index), files)
        return withExtendedLifetime(segment) { segment.bytes.allSatisfy { $0 == 0 } }
    }

    /// The highest sequence that any evidence calls durable.
    private func durable() throws(AppendLogError) -> UInt64 {
        for link in chain.links.reversed() {
            try segment.read(path(link.header.index), files)
            if let proven = segment.durableUpTo(link) { return max(proven, meta.durableAtLeast) }
        }
        return meta.durableAtLeast
    }

    /// Shows the owner the newest checkpoint that is whole and not ahead of the log.
    ///
    /// Without one, reading begins with the first segment: a checkpoint is a cache.
    private mutating func restore() throws(AppendLogError) {
        start = RecordPosition(segment: meta.firstSegment, offset: 0)
        cut = chain.begin
        guard let restore = listener.restore else { return }
        let found = try files.checkpoints(in: directory).filter { isOfThisLog($0.checkpoint) }
        for (index, file) in found.enumerated() {
            guard restore(.begin), file.isTaken({ restore(.block($0)) }), restore(.end) else {
                continue
            }
            checkpoints = Array(found[index...])
            let checkpoint = file.checkpoint
            order = ReplayOrder(
                durable: order.durable,
                mark: meta.mark,
                from: checkpoint.startSequence + 1
            )
            start = checkpoint.start
            end = checkpoint.start
            cut = checkpoint.start
            report.checkpoint = checkpoint.number
            return
        }
        if !found.isEmpty { _ = restore(.begin) }
    }

    /// Whether the log has what a checkpoint refers to, and what comes after it.
    private func isOfThisLog(_ checkpoint: Checkpoint) -> Bool {
        guard checkpoint.startSequence + 1 >= meta.firstSequence,
            checkpoint.endSequence <= order.durable,
            checkpoint.incarnation <= meta.incarnation, checkpoint.end <= meta.mark
        else { return false }
        return SegmentChain.contains(checkpoint.start, in: chain.links)
            && SegmentChain.contains(checkpoint.end, in: chain.links)
    }

    /// Replays the chain from `start` on.
    ///
    /// Gives the segment to go on in where the end was clean and is as it was left.
    private mutating func readAll() throws(AppendLogError) -> SegmentHeader? {
        var isStopped = false
        var endsLoose = false
        var isBeyondMark = false
        var items: [SegmentScan.Found] = []
        for link in chain.links where link.header.index >= start.segment {
            if let missing = link.missing, missing > start, !isStopped {
                noteMissing(missing)
            }
            try segment.read(path(link.header.index), files)
            let isFirst = link.header.index == start.segment
            var scan = SegmentScan(
                segment.bytes,
                salt: link.header.salt,
                limit: link.limit,
                knownEnd: link.knownEnd(meta.mark),
                from: max(SegmentHeader.areaBytes, isFirst ? Int(start.offset) : 0)
            )
            endsLoose = false
            while scan.next(atMost: Self.itemsAhead, &items) {
                announce(items, of: scan)
                for (item, place) in items {
                    let position = RecordPosition(
                        segment: link.header.index,
                        offset: UInt32(place.lowerBound)
                    )
                    isBeyondMark = isBeyondMark || position >= meta.mark
                    switch item {
                    case .record(let header, let offset, let isSound) where !isStopped:
                        let view = RecordView(
                            header,
                            at: position,
                            payload: scan.payload(header, at: offset)
                        )
                        isStopped = try !take(view, header, isSound: isSound, end: place.upperBound)
                        endsLoose = false
                    case .damage(let range) where !isStopped:
                        endsLoose = true
                        noteDamage(range.count, at: position)
                    case .record, .group, .damage:
                        break
                    }
                    if isStopped || endsLoose && !order.isDurable(position) {
                        report.tornBytes += place.count
                    }
                }
            }
        }
        if meta.mark.segment > chain.links.last?.header.index ?? 0 { noteMissing(meta.mark) }
        if let lost = order.finish() { note(lost, at: end) }
        guard meta.isClean, tail == nil, !isStopped, !endsLoose, !isBeyondMark,
            order.durable == meta.durableAtLeast,
            let last = chain.links.last?.header, last.index == newestIndex,
            last.index == meta.mark.segment, end == meta.mark || isEmptySegment(last)
        else { return nil }
        return last
    }

    /// How many things of a segment are looked at before the first of them is dealt with: enough for the
    /// memory that the owner will need to be on its way, few enough that it stays in the CPU's cache.
    private static let itemsAhead = 32

    private func announce(_ items: [SegmentScan.Found], of scan: SegmentScan) {
        guard let prepare = listener.prepare else { return }
        for case (.record(let header, let offset, _), _) in items {
            prepare(header.kind, scan.payload(header, at: offset))
        }
    }

    private mutating func noteDamage(_ bytes: Int, at position: RecordPosition) {
        keep(order.durableEnd(of: bytes, at: position), order.isDurable(position))
        guard order.damage(bytes: bytes, at: position) == .damage else { return }
        report.damaged.append(DamagedBytes(position: position, bytes: bytes))
    }

    /// Has what was just read stay before the cut, if it was durable and all before it.
    private mutating func keep(_ end: RecordPosition, _ wasDurable: Bool) {
        isBehindDurable = isBehindDurable || !wasDurable
        if !isBehindDurable { cut = end }
    }

    /// Nothing can be read of the segment that ends, or has something up to, there.
    private mutating func noteMissing(_ segmentEnd: RecordPosition) {
        let first = SegmentHeader.areaBytes
        guard segmentEnd.offset > first else { return }
        let cut = cut
        noteDamage(
            Int(segmentEnd.offset) - first,
            at: RecordPosition(segment: segmentEnd.segment, offset: UInt32(first))
        )
        // it is reported this once, then
        if !chain.canLack(segmentEnd.segment) { self.cut = cut }
    }

    /// Whether the mark stands right behind the header: nothing was appended to this segment.
    private func isEmptySegment(_ header: SegmentHeader) -> Bool {
        meta.mark.offset == UInt32(SegmentHeader.areaBytes) && end.segment != header.index
    }

    /// Shows one record to the owner, if it counts; `false` where the log ends before it.
    private mutating func take(
        _ view: borrowing RecordView,
        _ header: RecordHeader,
        isSound: Bool,
        end: Int
    ) throws(AppendLogError) -> Bool {
        let isProven =
            view.source == nil ? view.sequence <= order.durable : order.isDurable(view.position)
        let wasDurable = isProven && !isBehindDurable
        let end = RecordPosition(segment: view.position.segment, offset: UInt32(end))
        switch order.record(header, at: view.position, isSound: isSound) {
        case .ignore, .damage:
            return true
        case .stop(let lost):
            if let lost { note(lost, at: view.position) }
            isBehindDurable = true
            return false
        case .lost(let lost):
            note(lost, at: view.position)
            listener.damaged?(view)
        case .deliverAfterLoss(let lost):
            note(lost, at: self.end.segment == 0 ? view.position : self.end)
            try deliver(view, isDurable: wasDurable)
        case .deliver:
            try deliver(view, isDurable: wasDurable)
        }
        if wasDurable { self.end = end }
        keep(end, wasDurable)
        return true
    }

    private mutating func note(_ lost: ClosedRange<UInt64>, at position: RecordPosition) {
        report.lost.append(LostRecords(sequences: lost, position: position))
    }

    private mutating func deliver(
        _ view: borrowing RecordView,
        isDurable: Bool
    ) throws(AppendLogError) {
        if let knows = listener.knows, !knows(view.kind) {
            throw .unknownKind(
                path: directory,
                kind: view.kind,
                sequence: view.sequence,
                format: LogFormat.version
            )
        }
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
        opened.append(handle)
        let files = files
        tail = Tail(
            handle: handle,
            assembler: GroupAssembler(
                segment: index,
                after: cut,
                firstSequence: order.durable + 1,
                incarnation: meta.incarnation + 1,
                segmentBytes: options.segmentBytes,
                stamp: stamp,
                newSalt: { files.salt() }
            )
        )
    }

    /// What the newest segment says that its owner had said.
    private var stamp: UInt64 {
        chain.links.map(\.header.stamp).max() ?? 0
    }

    private mutating func flushTail() throws(AppendLogError) {
        guard var tail else { return }
        defer { self.tail = tail }
        for piece in tail.assembler.close(durableUpTo: order.durable) {
            if piece.offset == 0, piece.segment != newestIndex + 1 {
                tail.handle = try files.open(path(piece.segment), .createNew)
                opened.append(tail.handle)
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
                stamp: stamp,
                newSalt: { files.salt() }
            )
            handle = try files.open(path(continued.index), .readWrite)
            opened.append(handle)
        } else {
            if tail == nil { try beginTail() }
            try flushTail()
            guard let tail else { preconditionFailure("a tail was just begun") }
            for file in opened { try files.syncData(file) }
            try files.syncDirectory(directory)
            (assembler, handle) = (tail.assembler, tail.handle)
        }
        let filled = try files.size(handle)
        let segments = segments(with: assembler)
        meta.incarnation = incarnation
        meta.isClean = false
        meta.durableAtLeast = assembler.nextSequence - 1
        meta.mark = assembler.end
        let keeping = try keepers()
        meta.checkpoint = keeping.checkpoints.last?.number ?? 0
        meta.checkpointSequence = keeping.checkpoints.last?.startSequence ?? 0
        isSettling = true
        for _ in 0..<2 {
            meta.transaction += 1
            try files.writeMeta(meta, to: metaFile)
        }
        opened.filter { $0 != handle }.forEach(files.close)
        assembler.forgetBegun()
        removeLeftovers(keeping, segments)
        return Outcome(
            meta: meta,
            metaFile: metaFile,
            assembler: assembler,
            handle: handle,
            filledEnd: max(filled, Int(meta.mark.offset)),
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
        // what the page says counts: the log is read by it
        if !infos.isEmpty { infos[0].firstSequence = meta.firstSequence }
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
    private func removeLeftovers(_ keeping: LogKeeping, _ segments: [SegmentInfo]) {
        guard !report.isDamaged else { return }
        let found = Set(chain.links.map(\.header.index) + chain.superseded + unreadable)
        // one that stays is met again at the next opening
        for index in found.subtracting(segments.map(\.index)).sorted() {
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
