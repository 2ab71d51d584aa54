// Part of QTasks. License: see LICENSE.

import Synchronization

/// A checkpoint that the owner is giving, block by block.
struct CheckpointDraft {
    var checkpoint: Checkpoint
    /// What is not handed over yet.
    var buffer = GroupBuffer(capacity: 1 << 18)
    /// Where in the file `buffer` begins.
    var offset = 0
    var blocks = 0

    var end: Int {
        offset + buffer.count
    }
}

/// What is known of a checkpoint on disk.
public struct CheckpointInfo: Hashable, Sendable {
    public let number: UInt32
    /// Where reading goes on behind it.
    public let start: RecordPosition
    public let startSequence: UInt64
    /// No later change is in it: from here on the log and it tell exactly what holds.
    public let endSequence: UInt64
    /// What the owner said of its end.
    public let stamp: UInt64
    /// Of the file.
    public let bytes: Int

    init(_ checkpoint: Checkpoint) {
        number = checkpoint.number
        start = checkpoint.start
        startSequence = checkpoint.startSequence
        endSequence = checkpoint.endSequence
        stamp = checkpoint.stamp
        bytes = checkpoint.bytes
    }
}

// A checkpoint spares the next opening the history. It is fuzzy: the owner gives its entries in
// steps, between which the log goes on.
extension Log {
    /// The longest block, in bytes.
    public static let checkpointBlockBytesMax =
        Checkpoint.blockBytesMax - Checkpoint.blockHeaderBytes - 8

    /// Whole checkpoints, oldest first.
    public var checkpoints: [CheckpointInfo] {
        board.look { $0.keeping.checkpoints }.map { CheckpointInfo($0) }
    }

    /// Whether one is on its way, from ``beginCheckpoint()`` until it has its name or was given up.
    public var isWritingCheckpoint: Bool {
        checkpointDraft != nil || board.look { $0.keeping.isWritingCheckpoint }
    }

    /// Whether the owner may give the next block; `false` while the disk is behind, in which case
    /// `onProgress` is called, and once the checkpoint was given up for want of room.
    public var takesCheckpointBlocks: Bool {
        checkpointDraft != nil && board.look { $0.keeping.takesBlocks }
    }

    /// Why the last checkpoint was given up: the disk had no room for it.
    ///
    /// The owner abandons it, and begins another later.
    public var checkpointFailure: AppendLogError? {
        board.look { $0.keeping.checkpointFailure }
    }

    /// Begins a checkpoint of what holds now or later.
    ///
    /// The owner then gives all of its entries, each with the changes that it has by the time it is
    /// given.
    ///
    /// - Precondition: None is on its way.
    public func beginCheckpoint() {
        precondition(!isWritingCheckpoint, "one checkpoint at a time")
        let newest = board.look { $0.keeping.checkpoints.last?.number ?? $0.meta.checkpoint }
        let checkpoint = Checkpoint(
            number: newest + 1,
            salt: board.files.salt(),
            incarnation: incarnation,
            startSequence: lastSequence,
            start: endBeforeEmpty
        )
        let draft = CheckpointDraft(checkpoint: checkpoint)
        checkpoint.encodeHeader(to: draft.buffer.extend(by: Checkpoint.headerBytes))
        checkpointDraft = draft
        board.withJobs { $0.keep { $0.beginCheckpoint(checkpoint) } }
    }

    /// Adds a block, which an opening gives back as it is.
    ///
    /// - Precondition: ``takesCheckpointBlocks``, and the block is not too long.
    public func addCheckpointBlock(_ content: UnsafeRawBufferPointer) {
        precondition(content.count <= Self.checkpointBlockBytesMax, "a block has a longest length")
        guard var draft = checkpointDraft else { return }
        let size = Checkpoint.bytesOfBlock(content: content.count)
        let offset = draft.end
        let target = draft.buffer.extend(by: size)
        target.store(UInt64(0), at: size - 8)  // the padding
        UnsafeMutableRawBufferPointer(
            start: target + Checkpoint.blockHeaderBytes,
            count: content.count
        ).copyMemory(from: content)
        draft.checkpoint.encodeBlockHeader(to: target, content: content, at: offset)
        draft.blocks += 1
        if draft.buffer.count >= 1 << 18 { handOver(&draft) }
        checkpointDraft = draft
    }

    /// Ends the checkpoint: it counts once everything appended so far is durable and it is itself.
    ///
    /// - Parameter stamp: The owner's, such as the time of the newest record.
    public func endCheckpoint(stamp: UInt64) {
        guard var draft = checkpointDraft else { return }
        checkpointDraft = nil
        draft.checkpoint.endSequence = lastSequence
        draft.checkpoint.end = endBeforeEmpty
        draft.checkpoint.stamp = stamp
        let offset = draft.end
        draft.checkpoint.encodeTrailer(
            to: draft.buffer.extend(by: Checkpoint.trailerBytes),
            blocks: draft.blocks,
            at: offset
        )
        handOver(&draft)
        let checkpoint = draft.checkpoint
        board.withJobs { $0.keep { $0.completeCheckpoint(checkpoint) } }
        submit(sync: true)
    }

    /// Blocks until the log's housekeeping has got further, or there is none.
    ///
    /// For tools, tests and an orderly end.
    public func waitForHousekeeping() {
        switch driver {
        case .threads: board.waitForKeep()
        case .manual: _ = runOneWrite() || runOneSync() || runOneKeep()
        }
    }

    /// Gives up the checkpoint that is on its way.
    public func abandonCheckpoint() {
        guard checkpointDraft != nil else { return }
        checkpointDraft = nil
        board.withJobs { $0.keep { $0.abandonCheckpoint() } }
    }

    /// Removes a checkpoint; one that a meta page names stays until the next is there.
    public func removeCheckpoint(_ number: UInt32) {
        board.withJobs { $0.keep { $0.dropCheckpoint(number) } }
    }

    /// Whether what is not needed any more goes as fast as it can, also where that holds up syncs: a
    /// compaction that has fallen behind gains nothing before it is gone.
    public var isHurried: Bool {
        get { board.isHurried.load(ordering: .relaxed) }
        set { board.isHurried.store(newValue, ordering: .relaxed) }
    }

    /// Changes with each step of housekeeping that is done: until it does, checkpoints and files are as
    /// they were.
    public var housekeepingCount: Int {
        board.keptCount.load(ordering: .acquiring)
    }

    /// Whether anything was appended or carried that is not submitted yet.
    public var hasUnsubmitted: Bool {
        !assembler.isEmpty
    }

    /// Where the next record will begin, or a little before.
    public var end: RecordPosition {
        assembler.end
    }

    /// How many bytes of records the next opening would read behind the newest checkpoint.
    public var bytesSinceCheckpoint: Int {
        let start = board.look { $0.keeping.checkpoints.last?.start }
        return bytes(since: start ?? RecordPosition(segment: 0, offset: 0))
    }

    /// How many bytes of records lie behind `position`.
    public func bytes(since position: RecordPosition) -> Int {
        var sum = 0
        // the last one, mostly: there may be thousands before it
        for segment in segments.reversed() {
            guard segment.index >= position.segment else { break }
            let end = segment.end ?? Int(assembler.end.offset)
            // a header is no record: one that a checkpoint can't begin behind would call for the next
            let start =
                segment.index == position.segment
                ? Int(position.offset) : SegmentHeader.areaBytes
            sum += max(0, end - start)
        }
        return sum
    }

    /// The end of the log; an opening drops a segment without records.
    private var endBeforeEmpty: RecordPosition {
        guard assembler.end.offset == SegmentHeader.areaBytes, let last = segments.last else {
            return assembler.end
        }
        return last.predecessor
    }

    /// How many bytes of what was appended and carried are not known to be durable.
    public var bytesNotDurable: Int {
        bytes(since: board.look { $0.durableEnd })
    }

    /// Whether everything before `position` is written.
    public func isWritten(upTo position: RecordPosition) -> Bool {
        board.look { $0.writtenEnd } >= position
    }

    private func handOver(_ draft: inout CheckpointDraft) {
        let (buffer, offset) = (draft.buffer, draft.offset)
        draft.offset = draft.end
        draft.buffer = GroupBuffer(capacity: 1 << 18)
        board.withJobs { $0.keep { $0.addToCheckpoint(buffer, at: offset) } }
    }
}
