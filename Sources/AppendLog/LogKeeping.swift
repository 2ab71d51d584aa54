// Part of QTasks. License: see LICENSE.

/// Decides the log's housekeeping: checkpoints on their way to the disk, what compaction reads, and
/// which files nothing refers to any more.
///
/// A value, part of ``LogJobs``. One job is out at a time, and one read; none of them is ever waited for.
struct LogKeeping {
    enum Job {
        /// Write `bytes` to the unfinished checkpoint's file; the first makes it.
        case write(number: UInt32, handle: LogFileHandle?, GroupBuffer, at: Int)
        /// Sync the file, give it its name, and sync that.
        case publish(Checkpoint, LogFileHandle)
        /// Remove what was written of a checkpoint that nobody wants.
        case abandon(number: UInt32, LogFileHandle?)
        /// Remove these files: segments, then checkpoints.
        case remove(segments: [UInt32], checkpoints: [UInt32])
        /// Ask the file system how much room there is.
        case measure
    }

    /// A checkpoint that is being written.
    private struct Draft {
        var checkpoint: Checkpoint
        var handle: LogFileHandle?
        var queue: [(buffer: GroupBuffer, offset: Int)] = []
        /// Given by the owner and not written yet, in bytes.
        var pendingBytes = 0
        /// The owner has given all of it.
        var isComplete = false
        var isAbandoned = false
    }

    /// A segment that is compacted.
    private struct Source {
        var read: CompactionRead
        var isReading = false
        var isAtEnd = false
        var batches: [CompactionBatch] = []
    }

    /// At most this much is read ahead of the owner, in batches.
    private static let batchesMax = 4

    private var draft: Draft?
    private var source: Source?
    private(set) var isBusy = false
    private var wantsMeasure = false

    /// Segments that a reader outside was told of, and how often: they stay.
    private var holds: [UInt32: Int] = [:]
    private var doomedSegments: Set<UInt32> = []
    private var doomedCheckpoints: Set<UInt32> = []

    /// Whole checkpoints, oldest first.
    private(set) var checkpoints: [Checkpoint]
    /// What each segment's file takes up.
    private(set) var sizes: [UInt32: Int]
    private var sizesTotal: Int
    /// Why the last checkpoint came to nothing.
    private(set) var checkpointFailure: AppendLogError?

    init(checkpoints: [Checkpoint] = [], sizes: [UInt32: Int] = [:]) {
        self.checkpoints = checkpoints
        self.sizes = sizes
        sizesTotal = sizes.values.reduce(0, +)
    }

    /// What all files take up together, in bytes.
    var bytesUsed: Int {
        MetaPage.fileBytes + sizesTotal
            + checkpoints.reduce(0) { $0 + $1.bytes } + (draft?.checkpoint.bytes ?? 0)
    }

    mutating func setSize(_ bytes: Int, of segment: UInt32) {
        sizesTotal += bytes - (sizes.updateValue(bytes, forKey: segment) ?? 0)
    }
}

// MARK: - What comes next

extension LogKeeping {
    /// The next job.
    ///
    /// - Parameters:
    ///   - durableEnd: A checkpoint is given its name once everything it speaks of is on disk: an index
    ///     ahead of its log lies.
    ///   - pages: The two meta pages; what either names is not removed.
    /// - Returns: `nil` where there is nothing to do, or nothing yet.
    func job(durableEnd: RecordPosition, pages: [MetaPage]) -> Job? {
        guard !isBusy else { return nil }
        if let job = removal(pages) { return job }
        if wantsMeasure { return .measure }
        guard let draft else { return nil }
        if draft.isAbandoned { return .abandon(number: draft.checkpoint.number, draft.handle) }
        if let next = draft.queue.first {
            return .write(
                number: draft.checkpoint.number,
                handle: draft.handle,
                next.buffer,
                at: next.offset
            )
        }
        guard draft.isComplete, draft.checkpoint.end <= durableEnd, let handle = draft.handle else {
            return nil
        }
        return .publish(draft.checkpoint, handle)
    }

    mutating func begin(_ job: Job) {
        isBusy = true
        if case .measure = job { wantsMeasure = false }
    }

    /// Files that neither page leads to, and that nobody outside was told of.
    private func removal(_ pages: [MetaPage]) -> Job? {
        // asked at every change, and mostly there is nothing
        if doomedSegments.isEmpty, doomedCheckpoints.isEmpty { return nil }
        guard let first = pages.map(\.firstSegment).min() else { return nil }
        let named = Set(pages.map(\.checkpoint))
        let segments = doomedSegments.filter { $0 < first && holds[$0] == nil }.sorted()
        let checkpoints = doomedCheckpoints.subtracting(named).sorted()
        guard !segments.isEmpty || !checkpoints.isEmpty else { return nil }
        return .remove(segments: segments, checkpoints: checkpoints)
    }
}

// MARK: - Checkpoints

extension LogKeeping {
    /// How much of a checkpoint may wait for the disk, in bytes.
    static let draftBytesMax = 4 << 20

    var isWritingCheckpoint: Bool {
        draft != nil
    }

    /// Whether the owner may give the next block.
    var takesBlocks: Bool {
        draft.map { !$0.isComplete && $0.pendingBytes < Self.draftBytesMax } ?? false
    }

    mutating func beginCheckpoint(_ checkpoint: Checkpoint) {
        checkpointFailure = nil
        draft = Draft(checkpoint: checkpoint)
    }

    mutating func addToCheckpoint(_ buffer: GroupBuffer, at offset: Int) {
        draft?.queue.append((buffer, offset))
        draft?.pendingBytes += buffer.count
    }

    mutating func completeCheckpoint(_ checkpoint: Checkpoint) {
        let bytes = draft?.checkpoint.bytes ?? 0
        draft?.checkpoint = checkpoint
        draft?.checkpoint.bytes = bytes
        draft?.isComplete = true
    }

    mutating func abandonCheckpoint() {
        draft?.isAbandoned = true
        draft?.queue = []
    }

    mutating func wrote(_ buffer: GroupBuffer, at offset: Int, with handle: LogFileHandle) {
        isBusy = false
        draft?.handle = handle
        draft?.checkpoint.bytes = offset + buffer.count
        guard draft?.isAbandoned == false else { return }
        draft?.pendingBytes -= buffer.count
        draft?.queue.removeFirst()
    }

    /// The checkpoint has its name.
    mutating func published(_ checkpoint: Checkpoint) {
        isBusy = false
        draft = nil
        checkpoints.append(checkpoint)
    }

    /// A full disk, or the owner, put an end to it.
    mutating func abandoned() {
        isBusy = false
        draft = nil
    }

    /// Writing it met a full disk: there will be another.
    mutating func checkpointFailed(_ error: AppendLogError, handle: LogFileHandle?) {
        isBusy = false
        checkpointFailure = error
        if let handle { draft?.handle = handle }
        abandonCheckpoint()
    }

    /// The file that is still open, for whoever lets go of everything.
    var openHandle: LogFileHandle? {
        draft?.handle
    }

    /// Removes a checkpoint once no meta page names it.
    mutating func dropCheckpoint(_ number: UInt32) {
        doomedCheckpoints.insert(number)
    }
}

// MARK: - Compaction

extension LogKeeping {
    var isCompacting: Bool {
        source != nil
    }

    mutating func beginCompaction(_ read: CompactionRead) {
        source = Source(read: read)
    }

    /// What compaction is to read next; `nil` where it is read, or being read, or enough is.
    ///
    /// Not one of the jobs: those wait for a disk that is slow at writing, what is read is mostly in memory.
    var nextRead: CompactionRead? {
        guard let source, !source.isReading, !source.isAtEnd,
            source.batches.count < Self.batchesMax
        else { return nil }
        return source.read
    }

    var isReading: Bool {
        source?.isReading == true
    }

    mutating func beginRead() {
        source?.isReading = true
    }

    /// A part of the segment was read.
    mutating func wasRead(_ batch: CompactionBatch) {
        source?.isReading = false
        guard let source, batch.isAnswer(to: source.read) else { return }
        self.source?.read.offset = batch.nextOffset
        self.source?.isAtEnd = batch.isLast || batch.damage != nil
        self.source?.batches.append(batch)
    }

    mutating func takeBatch() -> CompactionBatch? {
        guard source?.batches.isEmpty == false else { return nil }
        return source?.batches.removeFirst()
    }

    mutating func endCompaction() {
        source = nil
    }

    /// Whether segments are to go that only the meta pages, or the disk, keep.
    var isRemovingSegments: Bool {
        doomedSegments.contains { holds[$0] == nil }
    }

    /// Nothing in these segments counts once the meta pages say so.
    mutating func doom(before first: UInt32) {
        for index in sizes.keys where index < first { doomedSegments.insert(index) }
    }

    mutating func hold(_ segment: UInt32) {
        holds[segment, default: 0] += 1
    }

    mutating func unhold(_ segment: UInt32) {
        guard let count = holds[segment] else { return }
        holds[segment] = count > 1 ? count - 1 : nil
    }

    mutating func removed(segments: [UInt32], checkpoints: [UInt32]) {
        isBusy = false
        doomedSegments.subtract(segments)
        doomedCheckpoints.subtract(checkpoints)
        for index in segments { sizesTotal -= sizes.removeValue(forKey: index) ?? 0 }
        self.checkpoints.removeAll { checkpoints.contains($0.number) }
        wantsMeasure = true
    }
}

// MARK: - Room

extension LogKeeping {
    mutating func measure() {
        wantsMeasure = true
    }

    mutating func measured() {
        isBusy = false
    }
}
