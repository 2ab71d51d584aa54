// Part of QTasks. License: see LICENSE.

import Synchronization

/// A durable log of records in one directory, with one writer.
///
/// Records have a dense sequence number from 1 and are appended only. The loop that owns the log
/// never waits for the disk: it appends, hands what it has to the log's threads with
/// ``submit(sync:)`` once a turn, and reads ``watermarks()`` when `onProgress` has told it that
/// they moved.
///
/// Not `Sendable`: it belongs to the thread that opened it.
public final class Log {
    let board: JobBoard
    let options: LogOptions
    let driver: LogDriver
    private let lockFile: LogFileHandle
    private var threads: LogThreads?
    var assembler: GroupAssembler
    /// Submitted, and not known to be written.
    private var inFlight: [GroupPiece] = []
    var source: RecordSource
    private var isClosed = false
    var checkpointDraft: CheckpointDraft?
    var compaction: CompactionProgress?
    /// What may be appended before the quota has to be looked at again, in bytes.
    private var quotaBytesLeft: Int

    /// The log's segments, oldest first; the last one is being written.
    public internal(set) var segments: [SegmentInfo]

    /// Counted up at every opening, and durable before
    /// ``open(at:options:files:driver:onProgress:listener:)`` returns: never twice the same.
    public let incarnation: UInt32

    /// What opening found.
    public let recovery: RecoveryReport

    /// The directory is in memory: "durable" then survives the process, not the machine.
    public let isInMemory: Bool

    private init(
        board: JobBoard,
        outcome: LogOpening.Outcome,
        options: LogOptions,
        driver: LogDriver,
        lockFile: LogFileHandle,
        isInMemory: Bool
    ) {
        self.board = board
        self.options = options
        self.driver = driver
        self.lockFile = lockFile
        self.isInMemory = isInMemory
        incarnation = outcome.meta.incarnation
        recovery = outcome.report
        assembler = outcome.assembler
        segments = outcome.segments
        source = RecordSource(files: board.files, directory: board.directory)
        quotaBytesLeft = options.quotaBytes == nil ? Int.max : 0
    }

    deinit {
        // As if the process had ended here: nothing more is written, the next opening recovers.
        if !isClosed { release() }
    }

    /// Opens the store in `directory`, or makes one there, and replays what no checkpoint covers.
    ///
    /// When it returns, everything replayed is durable and so is the new incarnation. It blocks for
    /// as long as reading the store takes.
    ///
    /// - Parameters:
    ///   - directory: Where the store lives; made, mode 0700, in an existing parent directory.
    ///   - options: Sizes, for this opening.
    ///   - files: The file layer.
    ///   - driver: Who carries out the work.
    ///   - onProgress: Called on the log's threads after a watermark, the space or the failure
    ///     changed. It must not call the log; ringing an eventfd is what it is for.
    ///   - listener: Hears what is there.
    /// - Returns: The log, ready to be appended to.
    /// - Throws: And nothing may be served then. After
    ///   ``AppendLogError/system(call:path:errno:)`` opening can be tried again; every other error
    ///   leaves the store as it was.
    public static func open(
        at directory: String,
        options: LogOptions = LogOptions(),
        files: any LogFiles = PosixFiles(),
        driver: LogDriver = .threads,
        onProgress: (@Sendable () -> Void)? = nil,
        listener: LogListener
    ) throws(AppendLogError) -> Log {
        if try files.createDirectory(directory) { try files.syncDirectory(parent(of: directory)) }
        let fileSystem = try files.fileSystem(of: directory)
        if case .network(let name) = fileSystem {
            throw .unsuitableFileSystem(path: directory, name: name)
        }
        let lockFile = try files.lock("\(directory)/\(LogFormat.lockName)")
        let outcome: LogOpening.Outcome
        do throws(AppendLogError) {
            var opening = LogOpening(
                files: files,
                directory: directory,
                options: options,
                listener: listener
            )
            outcome = try opening.run()
        } catch {
            files.close(lockFile)
            throw error
        }
        let jobs = LogJobs(
            meta: outcome.meta,
            end: outcome.assembler.end,
            handle: outcome.handle,
            filledEnd: outcome.filledEnd,
            options: options,
            keeping: outcome.keeping
        )
        let log = Log(
            board: JobBoard(
                jobs: jobs,
                files: files,
                directory: directory,
                metaFile: outcome.metaFile,
                onProgress: onProgress
            ),
            outcome: outcome,
            options: options,
            driver: driver,
            lockFile: lockFile,
            isInMemory: fileSystem == .memory
        )
        // from here on the log lets go of its files
        try log.startThreads()
        return log
    }

    /// Makes the flags say what holds, and starts the threads, if any.
    private func startThreads() throws(AppendLogError) {
        board.withJobs { _ in }
        if driver == .threads { threads = try LogThreads(board) }
    }

    /// Opens a store whose owner makes no checkpoints; `replay` is shown every record.
    ///
    /// - Throws: As ``open(at:options:files:driver:onProgress:listener:)``.
    public static func open(
        at directory: String,
        options: LogOptions = LogOptions(),
        files: any LogFiles = PosixFiles(),
        driver: LogDriver = .threads,
        onProgress: (@Sendable () -> Void)? = nil,
        replay: @escaping (borrowing RecordView) -> Void
    ) throws(AppendLogError) -> Log {
        try open(
            at: directory,
            options: options,
            files: files,
            driver: driver,
            onProgress: onProgress,
            listener: LogListener(replay: replay)
        )
    }

    private static func parent(of directory: String) -> String {
        let trimmed = directory.hasSuffix("/") ? directory.dropLast() : directory[...]
        guard let slash = trimmed.lastIndex(of: "/") else { return "." }
        return slash == trimmed.startIndex ? "/" : String(trimmed[..<slash])
    }
}

// MARK: - Appending

extension Log {
    /// The sequence that the last appended record has; 0 before the first.
    public var lastSequence: UInt64 {
        assembler.nextSequence - 1
    }

    /// Appends a record to the open group; `fill` writes the payload straight into its memory.
    ///
    /// Nothing is on its way to the disk before ``submit(sync:)``. `fill` must not call the log.
    ///
    /// - Throws: ``AppendLogError/payloadTooLarge(bytes:limit:)``;
    ///   ``AppendLogError/outOfSpace(bytes:preparedBytesLeft:)`` where the disk is full and the
    ///   record doesn't fit into what is prepared; ``failure`` once there is one. Nothing was
    ///   appended then.
    public func append(
        kind: UInt8,
        flags: UInt8 = 0,
        payloadBytes: Int,
        fill: (UnsafeMutableRawBufferPointer) -> Void
    ) throws(AppendLogError) -> (sequence: UInt64, position: RecordPosition) {
        precondition(!isClosed, "nothing is appended to a closed log")
        guard payloadBytes <= options.recordBytesMax else {
            throw .payloadTooLarge(bytes: payloadBytes, limit: options.recordBytesMax)
        }
        if board.hasFailed.load(ordering: .acquiring), let failure { throw failure }
        try checkRoom(payloadBytes)
        let sequence = assembler.nextSequence
        let position = assembler.append(
            kind: kind,
            flags: flags,
            payloadBytes: payloadBytes,
            fill: fill
        )
        noteBegunSegments()
        return (sequence, position)
    }

    func noteBegunSegments() {
        guard !assembler.begun.isEmpty else { return }
        for info in assembler.begun { segments.append(next: info) }
        assembler.forgetBegun()
    }

    /// A number of the owner's, such as a time, that each segment's header keeps from when it is begun;
    /// it only rises.
    public var stamp: UInt64 {
        get { assembler.stamp }
        set { assembler.stamp = max(assembler.stamp, newValue) }
    }

    /// Appends a record whose payload is `payload`.
    @discardableResult
    public func append(
        kind: UInt8,
        flags: UInt8 = 0,
        payload: [UInt8]
    ) throws(AppendLogError) -> (sequence: UInt64, position: RecordPosition) {
        try append(kind: kind, flags: flags, payloadBytes: payload.count) { target in
            payload.withUnsafeBytes { target.copyMemory(from: $0) }
        }
    }

    /// Appends a record whose payload is `pieces`, one after the other.
    @discardableResult
    public func append(
        kind: UInt8,
        flags: UInt8 = 0,
        pieces: [UnsafeRawBufferPointer]
    ) throws(AppendLogError) -> (sequence: UInt64, position: RecordPosition) {
        let bytes = pieces.reduce(0) { $0 + $1.count }
        return try append(kind: kind, flags: flags, payloadBytes: bytes) { target in
            var rest = target[...]
            for piece in pieces {
                UnsafeMutableRawBufferPointer(rebasing: rest).copyMemory(from: piece)
                rest = rest.dropFirst(piece.count)
            }
        }
    }

    /// Closes the open group and hands it to the writer.
    ///
    /// Once a turn of the loop; never waits for the disk. Where nothing else is going on, a little is
    /// written (to the kernel) right here: ``watermarks()`` then has it at once.
    ///
    /// - Parameter sync: Whether everything up to here is to become durable as soon as it can. With
    ///   `false` it is only written; a later `submit(sync: true)`, also of nothing, covers it.
    public func submit(sync: Bool = true) {
        precondition(!isClosed, "nothing is appended to a closed log")
        let (marks, written) = board.look { ($0.marks, $0.writtenEnd) }
        forgetWritten(written)
        let pieces = assembler.close(durableUpTo: marks.durable)
        inFlight += pieces
        let (end, last) = (assembler.end, lastSequence)
        switch driver {
        case .threads:
            board.writeHereIfQuiet { $0.submit(pieces, end: end, last: last, sync: sync) }
        case .manual:
            board.withJobs { $0.submit(pieces, end: end, last: last, sync: sync) }
        }
    }

    /// How far the log has got.
    public func watermarks() -> Watermarks {
        board.look { $0.marks }
    }

    /// The write or sync that failed.
    ///
    /// It is final: no watermark moves any more, appending throws; what was durable stays, and the
    /// next opening sorts out the rest.
    public var failure: AppendLogError? {
        board.look { $0.failure }
    }

    /// Bytes appended whose write isn't known to be done: what a slow disk makes the process hold.
    public var pendingBytes: Int {
        forgetWritten(board.look { $0.writtenEnd })
        return inFlight.reduce(assembler.openBytes) { $0 + $1.buffer.count }
    }

    /// Submits and waits until all of it is durable.
    ///
    /// For tools and tests: it blocks.
    ///
    /// - Throws: ``failure``.
    public func flush() throws(AppendLogError) {
        submit(sync: true)
        switch driver {
        case .threads: board.waitUntilDurable()
        case .manual: while runOneWrite() || runOneSync() {}
        }
        if let failure { throw failure }
    }

    /// Has the lower bound of what is durable written, once the last commit is 1 s old: so a tear
    /// and rot in the last group can be told apart later.
    ///
    /// Does nothing where there is nothing new.
    public func noteIdle() {
        if !assembler.isEmpty { submit(sync: true) }
        board.withJobs { $0.noteIdle() }
    }

    private func forgetWritten(_ written: RecordPosition) {
        let done = inFlight.prefix { $0.endPosition <= written }
        for piece in done { assembler.recycle(piece.buffer) }
        inFlight.removeFirst(done.count)
    }
}

// MARK: - Space

extension Log {
    /// Whether new work is welcome.
    ///
    /// `false` while the disk is full, or as good as full by ``LogOptions/quotaBytes`` and
    /// ``LogOptions/freeShare``. What becomes of the old still fits, at the worst into
    /// ``preparedBytesLeft``.
    public var hasRoom: Bool {
        !board.isShortOfSpace.load(ordering: .relaxed)
    }

    /// Whether ``hasRoom`` is about to become `false`, or is: within a few segments.
    ///
    /// Who gives something up now loses no time then.
    public var isAlmostFull: Bool {
        board.look { $0.isAlmostShortOfSpace }
    }

    /// Bytes behind the last record that are the log's already, in this segment and the next.
    public var preparedBytesLeft: Int {
        let end = assembler.end
        return board.look {
            max(0, $0.filledEnd(of: end.segment) - Int(end.offset))
                + max(0, $0.filledEnd(of: end.segment + 1) - SegmentHeader.areaBytes)
        }
    }

    /// Asks the disk again for room, in the background; `onProgress` is called when it gave any.
    public func retrySpace() {
        board.withJobs { $0.retrySpace() }
    }

    /// Whether a record with such a payload may be appended.
    ///
    /// Takes the board's lock where the disk or the quota is as good as full, and else once in a while.
    func checkRoom(_ payloadBytes: Int, isCarried: Bool = false) throws(AppendLogError) {
        let isAtLimit = board.isAtLimit.load(ordering: .relaxed)
        quotaBytesLeft -= payloadBytes + RecordHeader.carriedBytes + RecordHeader.alignment
        guard isAtLimit || quotaBytesLeft < 0 else { return }
        let place = assembler.place(payloadBytes: payloadBytes, isCarried: isCarried)
        let (filled, left) = board.look { jobs in
            (
                jobs.filledEnd(of: place.segment),
                jobs.quotaBytesLeft.map { $0 - growth(place.segment, place.end, jobs) } ?? Int.max
            )
        }
        guard left >= 0, place.end <= filled || !isAtLimit else {
            quotaBytesLeft = min(quotaBytesLeft, 0)
            throw .outOfSpace(bytes: payloadBytes, preparedBytesLeft: preparedBytesLeft)
        }
        // Little at a time, since checkpoints and zeros ahead share the quota; and so that at most one
        // segment begins meanwhile.
        guard options.quotaBytes != nil else { return }
        let share = min(left, 64 << 10, options.segmentBytes / 2)
        quotaBytesLeft = share - 2 * SegmentHeader.areaBytes
    }

    /// How much the files grow beyond what is counted, once everything up to `end` in `segment` is written.
    private func growth(_ segment: UInt32, _ end: Int, _ jobs: LogJobs) -> Int {
        var ends: [UInt32: Int] = [segment: end]
        for piece in inFlight + assembler.openPieces {
            ends[piece.segment] = max(ends[piece.segment] ?? 0, piece.end)
        }
        return ends.reduce(0) { $0 + max(0, $1.value - jobs.filledEnd(of: $1.key)) }
    }
}

// MARK: - Reading

extension Log {
    /// Shows the record at `position`, also one that isn't written yet.
    ///
    /// The pointer is valid only inside `body`, which must not call the log.
    ///
    /// - Throws: ``AppendLogError/corrupt(path:offset:)`` where no whole record begins there.
    public func withRecord<Result>(
        at position: RecordPosition,
        _ body: (borrowing RecordView) -> Result
    ) throws(AppendLogError) -> Result {
        if let piece = unwritten(position) { return try source.show(piece, position, body) }
        return try source.read(position, body)
    }

    /// The group with the record at `position`, where that isn't written yet.
    private func unwritten(_ position: RecordPosition) -> GroupPiece? {
        if position.segment >= inFlight.first?.segment ?? assembler.end.segment {
            forgetWritten(board.look { $0.writtenEnd })
        }
        return inFlight.first { $0.holds(position) } ?? assembler.piece(with: position)
    }

    /// Shows the first bytes of the record at `position`, for a fraction of what reading a long one
    /// takes.
    ///
    /// What is shown is as it stands there: nothing vouches for a payload that wasn't read whole.
    ///
    /// - Parameters:
    ///   - position: Where it begins.
    ///   - count: How much of the payload is wanted, in bytes.
    ///   - body: Gets the record's sequence, its payload's length, and up to `count` bytes of that.
    /// - Returns: `nil` where the record isn't written yet: nobody else can read it there.
    /// - Throws: ``AppendLogError/corrupt(path:offset:)`` where no record begins there.
    public func withStart<Result>(
        of position: RecordPosition,
        bytes count: Int,
        _ body: (UInt64, Int, UnsafeRawBufferPointer) -> Result
    ) throws(AppendLogError) -> Result? {
        guard unwritten(position) == nil else { return nil }
        return try source.readStart(position, bytes: count, body)
    }

    /// Shows the payload of the record at `position`.
    public func withPayload<Result>(
        at position: RecordPosition,
        _ body: (UnsafeRawBufferPointer) -> Result
    ) throws(AppendLogError) -> Result {
        try withRecord(at: position) { body($0.payload) }
    }

    /// A copy of the payload of the record at `position`.
    public func read(_ position: RecordPosition) throws(AppendLogError) -> [UInt8] {
        try withPayload(at: position) { [UInt8]($0) }
    }
}

// MARK: - By hand, and the end

extension Log {
    /// Carries out one write; `false` where there was none.
    ///
    /// Only with ``LogDriver/manual``.
    public func runOneWrite() -> Bool {
        runOne(.write)
    }

    /// Carries out one sync, of data or of the meta page.
    ///
    /// Only with ``LogDriver/manual``.
    public func runOneSync() -> Bool {
        runOne(.sync)
    }

    /// Zero-fills one chunk.
    ///
    /// Only with ``LogDriver/manual``.
    public func runOnePreparation() -> Bool {
        runOne(.prepare)
    }

    /// Carries out one step of housekeeping.
    ///
    /// Only with ``LogDriver/manual``.
    public func runOneKeep() -> Bool {
        runOneRead() || runOne(.keep)
    }

    /// Reads on for a compaction.
    ///
    /// Only with ``LogDriver/manual``.
    public func runOneRead() -> Bool {
        runOne(.read)
    }

    private func runOne(_ role: JobBoard.Role) -> Bool {
        precondition(driver == .manual, "a log with threads runs by itself")
        return board.runOne(role)
    }

    /// Commits what is there, marks the store as cleanly closed, and lets go of it.
    ///
    /// Blocks.
    ///
    /// A log that has failed is let go of as well, and not marked. Closing twice does nothing.
    ///
    /// - Throws: What kept the last records from becoming durable.
    public func close() throws(AppendLogError) {
        guard !isClosed else { return }
        defer {
            release()
            isClosed = true
        }
        board.withJobs { $0.endPreparing() }
        abandonCheckpoint()
        try flush()
        while failure == nil, isWritingCheckpoint { waitForHousekeeping() }
        if let failure { throw failure }
        stopThreads()
        if let failure { throw failure }  // of housekeeping, meanwhile
        let page = board.look { $0.nextMeta(isClean: true) }
        try board.files.writeMeta(page, to: board.metaFile)
    }

    private func stopThreads() {
        guard var threads else { return }
        board.end()
        threads.join()
        self.threads = nil
    }

    private func release() {
        stopThreads()
        let files = board.files
        board.look { $0.handles }.forEach(files.close)
        source.close()
        files.close(board.metaFile)
        files.close(lockFile)
    }
}

@available(*, unavailable, message: "a log belongs to the thread that opened it")
extension Log: Sendable {}
