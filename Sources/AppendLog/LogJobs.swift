// Part of QTasks. License: see LICENSE.

/// Decides what is written, synced and prepared next.
///
/// ```
///   owner --submit--> queue --WriteJob--> written --SyncJob--> durable
///                                   \
///                                    '--PreparationJob--> zeros ahead of the end
/// ```
///
/// Progress is kept as positions, since what compaction carries forward has no sequence of its own;
/// the owner hears of sequences.
///
/// A value: it neither waits nor touches a file. At most one job of each sort is out at a time, so
/// what arrives meanwhile goes into the next one.
struct LogJobs {
    struct WriteJob {
        var segment: UInt32
        /// `nil` where the file isn't open for writing yet.
        var handle: LogFileHandle?
        /// Whether the file has to be made first.
        var creates: Bool
        /// Adjacent, all of one segment.
        var pieces: [GroupPiece]

        var offset: Int { pieces[0].offset }
        var end: Int { pieces[pieces.count - 1].end }
        var lastSequence: UInt64 { pieces[pieces.count - 1].lastSequence }
    }

    enum SyncJob {
        /// Sync these files, oldest first, then the directory if asked; then `upTo` is durable.
        case data([LogFileHandle], syncsDirectory: Bool, upTo: UInt64, end: RecordPosition)
        /// Write this page and sync it.
        case meta(MetaPage)
    }

    /// Fill `from..<to` of a segment with zeros and sync it.
    struct PreparationJob: Equatable {
        var segment: UInt32
        /// Whether the file has to be made first, and its name synced.
        var creates: Bool
        var from: Int
        var to: Int
    }

    /// A file that is, or soon will be, written.
    struct Segment {
        var handle: LogFileHandle?
        var isMade: Bool
        var nameIsDurable: Bool
        /// From here on the file holds neither records nor zeros: the place to go on filling.
        var filledEnd: Int
    }

    private let options: LogOptions
    private var queue: [GroupPiece] = []
    private var segments: [UInt32: Segment]
    private var dirty: [UInt32] = []
    private var syncWanted: RecordPosition
    /// A page is to be written once everything up to here is durable.
    private var metaAfter: RecordPosition?
    /// What the log begins with once everything up to `after` is durable.
    private var release: (segment: UInt32, sequence: UInt64, after: RecordPosition)?
    private var isWriting = false
    private var isSyncing = false
    private var preparing: UInt32?
    private var retriesSpace = false
    private var mayPrepare = true
    private(set) var durableEnd: RecordPosition
    private(set) var writtenEnd: RecordPosition

    /// The end of everything submitted, and its last sequence.
    private var submittedEnd: RecordPosition
    private var submitted: UInt64
    private(set) var marks: Watermarks
    private(set) var meta: MetaPage
    /// What the other page says.
    private var formerMeta: MetaPage
    private(set) var keeping: LogKeeping
    /// The file system has no more than the share that is to stay free.
    private var isDiskShort = false
    /// The same, but for a few segments.
    private var isDiskAlmostShort = false
    /// There is no room but what is prepared.
    private(set) var isAtLimit = false
    private(set) var failure: AppendLogError?

    /// A log that has just been opened, everything in it durable.
    init(
        meta: MetaPage,
        end: RecordPosition,
        handle: LogFileHandle,
        filledEnd: Int,
        options: LogOptions,
        keeping: LogKeeping = LogKeeping()
    ) {
        self.options = options
        self.meta = meta
        self.keeping = keeping
        formerMeta = meta
        let last = meta.durableAtLeast
        marks = Watermarks(written: last, durable: last)
        submitted = last
        syncWanted = end
        submittedEnd = end
        writtenEnd = end
        durableEnd = end
        segments = [
            end.segment: Segment(
                handle: handle,
                isMade: true,
                nameIsDurable: true,
                filledEnd: filledEnd
            )
        ]
        self.keeping.setSize(filledEnd, of: end.segment)
        if options.freeShare > 0 { self.keeping.measure() }
    }

    /// Every file still open for writing.
    var handles: [LogFileHandle] {
        segments.values.compactMap(\.handle) + [keeping.openHandle].compactMap { $0 }
    }

    var isAllDurable: Bool {
        durableEnd == submittedEnd && queue.isEmpty
    }

    /// The first failure is final: nothing moves afterwards.
    mutating func fail(_ error: AppendLogError) {
        if failure == nil { failure = error }
    }

    /// Takes a closed group; `sync` asks for everything submitted so far to become durable.
    mutating func submit(_ pieces: [GroupPiece], end: RecordPosition, last: UInt64, sync: Bool) {
        guard failure == nil else { return }
        queue += pieces
        submittedEnd = end
        submitted = last
        if sync { syncWanted = end }
    }

    /// The owner is idle: makes all of it durable and has the lower bound written.
    mutating func noteIdle() {
        syncWanted = submittedEnd
        if submittedEnd > meta.mark { metaAfter = submittedEnd }
    }

    mutating func retrySpace() {
        retriesSpace = isAtLimit
        if isShortOfSpace { keeping.measure() }
    }

    /// No zero-filling from here on.
    mutating func endPreparing() {
        mayPrepare = false
    }

    /// How much of a segment can be written without asking the disk for blocks.
    func filledEnd(of segment: UInt32) -> Int {
        segments[segment]?.filledEnd ?? 0
    }
}

// MARK: - Writing

extension LogJobs {
    var canWrite: Bool {
        guard failure == nil, !isWriting, let first = queue.first else { return false }
        // A piece that reaches into what is being filled right now would be filled over.
        guard preparing == first.segment else { return true }
        return writeEnd <= filledEnd(of: first.segment)
    }

    /// What may be written by the thread that submits, at most, in bytes.
    private static let quietBytesMax = 64 << 10

    /// Whether a write would wait for nothing: no sync, no other write, no zero-filling is under way, the
    /// segment is there, and it is little.
    var isQuiet: Bool {
        guard !isSyncing, !isWriting, preparing == nil, let first = queue.first,
            let last = queue.last, first.segment == last.segment
        else { return false }
        return segments[first.segment]?.handle != nil
            && last.end - first.offset <= Self.quietBytesMax
    }

    mutating func nextWrite() -> WriteJob? {
        guard canWrite, let first = queue.first else { return nil }
        let pieces = Array(queue.prefix { $0.segment == first.segment })
        queue.removeFirst(pieces.count)
        isWriting = true
        var segment =
            segments[first.segment]
            ?? Segment(handle: nil, isMade: false, nameIsDurable: false, filledEnd: 0)
        let job = WriteJob(
            segment: first.segment,
            handle: segment.handle,
            creates: !segment.isMade,
            pieces: pieces
        )
        segment.filledEnd = max(segment.filledEnd, job.end)
        segments[first.segment] = segment
        keeping.setSize(segment.filledEnd, of: first.segment)
        return job
    }

    mutating func wrote(_ job: WriteJob, with handle: LogFileHandle) {
        isWriting = false
        segments[job.segment]?.handle = handle
        segments[job.segment]?.isMade = true
        marks.written = job.lastSequence
        writtenEnd = job.pieces[job.pieces.count - 1].endPosition
        if dirty.last != job.segment { dirty.append(job.segment) }
    }

    private var writeEnd: Int {
        guard let first = queue.first else { return 0 }
        return queue.prefix { $0.segment == first.segment }.last?.end ?? 0
    }
}

// MARK: - Syncing

extension LogJobs {
    var canSync: Bool {
        failure == nil && !isSyncing && (isMetaDue || isDataDue)
    }

    private var isDataDue: Bool {
        min(syncWanted, writtenEnd) > durableEnd
    }

    private var isMetaDue: Bool {
        let after = [metaAfter, release?.after].compactMap { $0 }.min()
        return after.map { $0 <= durableEnd } ?? false
    }

    mutating func nextSync() -> SyncJob? {
        guard canSync else { return nil }
        isSyncing = true
        if isMetaDue { return .meta(takeMeta()) }
        let files = dirty.sorted().compactMap { segments[$0] }
        dirty = []
        return .data(
            files.compactMap(\.handle),
            syncsDirectory: !files.allSatisfy(\.nameIsDurable),
            upTo: marks.written,
            end: writtenEnd
        )
    }

    /// The sync is done.
    ///
    /// Gives back the files that are complete and need not stay open.
    mutating func synced(_ job: SyncJob) -> [LogFileHandle] {
        isSyncing = false
        switch job {
        case .meta(let page):
            // files go once neither page leads to them, so the other one has to follow
            if page.firstSegment != meta.firstSegment || page.checkpoint != meta.checkpoint {
                metaAfter = metaAfter ?? durableEnd
            }
            (formerMeta, meta) = (meta, page)
            return []
        case .data(_, let syncsDirectory, let upTo, let end):
            marks.durable = upTo
            durableEnd = end
            if syncsDirectory {
                // One that was made meanwhile is dirty; its name is synced with it.
                for index in segments.keys where index <= end.segment {
                    segments[index]?.nameIsDurable = true
                }
            }
            return retire(before: end.segment)
        }
    }

    /// What the next meta page says.
    func nextMeta(isClean: Bool) -> MetaPage {
        var next = meta
        next.transaction += 1
        next.durableAtLeast = marks.durable
        next.mark = durableEnd
        next.isClean = isClean
        if let release, release.after <= durableEnd {
            next.firstSegment = release.segment
            next.firstSequence = release.sequence
        }
        if let checkpoint = keeping.checkpoints.last {
            next.checkpoint = checkpoint.number
            next.checkpointSequence = checkpoint.startSequence
        }
        return next
    }

    private mutating func takeMeta() -> MetaPage {
        let page = nextMeta(isClean: false)
        if let after = metaAfter, after <= durableEnd { metaAfter = nil }
        if page.firstSegment == release?.segment { release = nil }
        return page
    }

    /// Lets go of the segments that the log has grown past; a meta page then says so.
    private mutating func retire(before segment: UInt32) -> [LogFileHandle] {
        let past = segments.keys.filter {
            $0 < segment && !dirty.contains($0) && $0 != preparing
        }
        guard !past.isEmpty else { return [] }
        metaAfter = max(metaAfter ?? durableEnd, durableEnd)
        return past.compactMap { segments.removeValue(forKey: $0)?.handle }
    }
}

// MARK: - Preparing

extension LogJobs {
    var canPrepare: Bool {
        preparation != nil
    }

    mutating func nextPreparation() -> PreparationJob? {
        guard let job = preparation else { return nil }
        preparing = job.segment
        retriesSpace = false
        return job
    }

    mutating func prepared(_ job: PreparationJob) {
        preparing = nil
        isAtLimit = false
        if job.creates {
            segments[job.segment] = Segment(
                handle: nil,
                isMade: true,
                nameIsDurable: true,
                filledEnd: job.to
            )
        } else {
            segments[job.segment]?.filledEnd = job.to
        }
        keeping.setSize(job.to, of: job.segment)
    }

    /// There was no room.
    ///
    /// `wasMade` says whether the file is there now all the same.
    mutating func refused(_ job: PreparationJob, wasMade: Bool) {
        preparing = nil
        isAtLimit = true
        guard job.creates, wasMade else { return }
        segments[job.segment] = Segment(
            handle: nil,
            isMade: true,
            nameIsDurable: false,
            filledEnd: 0
        )
    }

    private var preparation: PreparationJob? {
        guard failure == nil, mayPrepare, preparing == nil, !isAtLimit || retriesSpace,
            options.zeroFillAheadBytes > 0, let current = segments[submittedEnd.segment],
            current.isMade
        else { return nil }
        let used = Int(submittedEnd.offset)
        let chunk = options.zeroFillChunkBytes
        if current.filledEnd < options.segmentBytes {
            // In time: what is written behind the zeros meets a full disk when it is too late to
            // refuse it. A small store gets one more chunk when half of the last one is used.
            let room = max(min(used, options.zeroFillAheadBytes) - chunk, chunk / 2)
            guard current.filledEnd - used <= room else { return nil }
            let to = min(current.filledEnd + chunk, options.segmentBytes)
            return PreparationJob(
                segment: submittedEnd.segment,
                creates: false,
                from: current.filledEnd,
                to: to
            )
        }
        guard options.segmentBytes - used < options.zeroFillAheadBytes else { return nil }
        return nextSegmentPreparation(chunk: chunk)
    }

    private func nextSegmentPreparation(chunk: Int) -> PreparationJob? {
        let index = submittedEnd.segment + 1
        let next = segments[index]
        // Being made by the writer just now: it becomes the current one.
        guard next?.isMade != false else { return nil }
        let from = next?.filledEnd ?? 0
        let goal = min(options.zeroFillAheadBytes, options.segmentBytes)
        let to = min(from + chunk, goal)
        guard from < to else { return nil }
        return PreparationJob(segment: index, creates: next == nil, from: from, to: to)
    }
}

// MARK: - Room

extension LogJobs {
    /// New work is better refused: what room there is is for what becomes of the old.
    var isShortOfSpace: Bool {
        isAtLimit || isDiskShort
            || !quotaAdmits(options.reserveBytes + options.zeroFillChunkBytes)
    }

    /// It is a few segments until then: time to make room.
    var isAlmostShortOfSpace: Bool {
        isShortOfSpace || isDiskAlmostShort
            || !quotaAdmits(2 * options.reserveBytes + options.zeroFillChunkBytes)
    }

    /// What the quota still lets in, in bytes; `nil` where there is none.
    var quotaBytesLeft: Int? {
        options.quotaBytes.map { $0 - keeping.bytesUsed }
    }

    /// Whether the quota lets this many more bytes in.
    func quotaAdmits(_ bytes: Int) -> Bool {
        quotaBytesLeft.map { bytes <= $0 } ?? true
    }

    /// How much room the file system has.
    mutating func measured(_ space: LogFileSystemSpace) {
        let reserve = Int(Double(space.totalBytes) * options.freeShare)
        isDiskShort = space.freeBytes <= reserve
        isDiskAlmostShort = space.freeBytes <= reserve + options.reserveBytes
    }
}

// MARK: - Housekeeping

extension LogJobs {
    var nextKeepJob: LogKeeping.Job? {
        guard failure == nil else { return nil }
        return keeping.job(durableEnd: durableEnd, pages: [meta, formerMeta])
    }

    var canRead: Bool {
        failure == nil && keeping.nextRead != nil
    }

    /// Whether a step is under way or could be.
    var isKeeping: Bool {
        keeping.isBusy || keeping.isReading || canRead || nextKeepJob != nil
    }

    mutating func nextRead() -> CompactionRead? {
        guard canRead, let read = keeping.nextRead else { return nil }
        keeping.beginRead()
        return read
    }

    mutating func nextKeep() -> LogKeeping.Job? {
        guard let job = nextKeepJob else { return nil }
        keeping.begin(job)
        return job
    }

    mutating func keep(_ change: (inout LogKeeping) -> Void) {
        change(&keeping)
    }

    /// A checkpoint has its name: the meta pages are to say so.
    mutating func published(_ checkpoint: Checkpoint) {
        keeping.published(checkpoint)
        metaAfter = max(metaAfter ?? durableEnd, durableEnd)
    }

    /// Files were removed: there may be room again.
    mutating func removed(segments: [UInt32], checkpoints: [UInt32]) {
        keeping.removed(segments: segments, checkpoints: checkpoints)
        retriesSpace = isAtLimit
    }

    /// The log is to begin with `segment` once everything submitted so far is durable.
    mutating func releaseSegments(before segment: UInt32, firstSequence: UInt64) {
        keeping.doom(before: segment)
        syncWanted = submittedEnd
        release = (segment, firstSequence, submittedEnd)
    }
}
