// Part of QTasks. License: see LICENSE.

/// Decides what is written, synced and prepared next.
///
/// ```
///   owner --submit--> queue --WriteJob--> written --SyncJob--> durable
///                                   \
///                                    '--PreparationJob--> zeros ahead of the end
/// ```
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
    private var syncWanted: UInt64
    private var metaWanted: UInt64?
    private var isWriting = false
    private var isSyncing = false
    private var preparing: UInt32?
    private var retriesSpace = false
    private var mayPrepare = true
    private var durableEnd: RecordPosition
    private var writtenEnd: RecordPosition

    /// The end of everything submitted, and its last sequence.
    private var submittedEnd: RecordPosition
    private var submitted: UInt64
    private(set) var marks: Watermarks
    private(set) var meta: MetaPage
    private(set) var isShortOfSpace = false
    private(set) var failure: AppendLogError?

    /// A log that has just been opened, everything in it durable.
    init(
        meta: MetaPage,
        end: RecordPosition,
        handle: LogFileHandle,
        filledEnd: Int,
        options: LogOptions
    ) {
        self.options = options
        self.meta = meta
        let last = meta.durableAtLeast
        marks = Watermarks(written: last, durable: last)
        submitted = last
        syncWanted = last
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
    }

    /// Every file still open for writing.
    var handles: [LogFileHandle] {
        segments.values.compactMap(\.handle)
    }

    var isAllDurable: Bool {
        marks.durable == submitted && queue.isEmpty
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
        if sync { syncWanted = last }
    }

    /// The owner is idle: makes all of it durable and has the lower bound written.
    mutating func noteIdle() {
        syncWanted = submitted
        if submitted > meta.durableAtLeast { metaWanted = submitted }
    }

    mutating func retrySpace() {
        retriesSpace = isShortOfSpace
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
        return job
    }

    mutating func wrote(_ job: WriteJob, with handle: LogFileHandle) {
        isWriting = false
        segments[job.segment]?.handle = handle
        segments[job.segment]?.isMade = true
        marks.written = job.lastSequence
        writtenEnd = RecordPosition(segment: job.segment, offset: UInt32(job.end))
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
        min(syncWanted, marks.written) > marks.durable
    }

    private var isMetaDue: Bool {
        metaWanted.map { $0 <= marks.durable } ?? false
    }

    mutating func nextSync() -> SyncJob? {
        guard canSync else { return nil }
        isSyncing = true
        if isMetaDue {
            metaWanted = nil
            return .meta(nextMeta(isClean: false))
        }
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
            meta = page
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
        return next
    }

    /// Lets go of the segments that the log has grown past; a meta page then says so.
    private mutating func retire(before segment: UInt32) -> [LogFileHandle] {
        let past = segments.keys.filter {
            $0 < segment && !dirty.contains($0) && $0 != preparing
        }
        guard !past.isEmpty else { return [] }
        metaWanted = marks.durable
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
        isShortOfSpace = false
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
    }

    /// The disk had no room.
    ///
    /// `wasMade` says whether the file is there now all the same.
    mutating func refused(_ job: PreparationJob, wasMade: Bool) {
        preparing = nil
        isShortOfSpace = true
        guard job.creates, wasMade else { return }
        segments[job.segment] = Segment(
            handle: nil,
            isMade: true,
            nameIsDurable: false,
            filledEnd: 0
        )
    }

    private var preparation: PreparationJob? {
        guard failure == nil, mayPrepare, preparing == nil, !isShortOfSpace || retriesSpace,
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
