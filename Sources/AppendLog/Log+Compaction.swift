// Part of QTasks. License: see LICENSE.

import Synchronization

/// A compaction from the owner's side.
struct CompactionProgress {
    let segment: SegmentInfo
    var batch: CompactionBatch?
    var next = 0
    /// The sequence behind those of the appended records that were shown.
    var nextSequence: UInt64 = 0
    /// Something could not be carried forward: the segment has to stay.
    var isIncomplete = false
}

// Compaction takes the oldest segment, always: what ends something lies behind what began it, so
// nothing that was ended can come back (recovery.md, R8). The owner is shown each record once and
// carries forward what is alive.
extension Log {
    /// The oldest segment, if it is complete, durable, and sound as far as is known.
    public var compactable: SegmentInfo? {
        guard let oldest = segments.first, oldest.end != nil, !recovery.isDamaged,
            segments.count > 1, board.look({ $0.durableEnd.segment }) > oldest.index
        else { return nil }
        return oldest
    }

    /// Whether a compaction is on its way.
    public var isCompacting: Bool {
        compaction != nil
    }

    /// Whether compacted segments still take up room that nobody holds; `onProgress` is called once they are
    /// gone.
    public var isRemovingSegments: Bool {
        board.look { $0.keeping.isRemovingSegments }
    }

    /// Begins to compact the oldest segment.
    ///
    /// - Returns: Whether there is one that can be.
    /// - Precondition: None is on its way.
    public func beginCompaction() -> Bool {
        precondition(!isCompacting, "one compaction at a time")
        guard let segment = compactable, let end = segment.end else { return false }
        compaction = CompactionProgress(segment: segment)
        let read = CompactionRead(
            segment: segment.index,
            salt: segment.salt,
            limit: end,
            offset: SegmentHeader.areaBytes
        )
        board.withJobs { $0.keep { $0.beginCompaction(read) } }
        return true
    }

    /// Shows the next record of the segment that is compacted.
    ///
    /// `body` may append and ``carry(_:kind:flags:payloadBytes:fill:)``. After the last record the
    /// compaction is over: the segment is removed once what was carried is durable, unless a `carry` has
    /// thrown.
    public func compactNext(_ body: (borrowing RecordView) -> Void) -> CompactionStep {
        guard let progress = compaction else { return .finished }
        if let batch = progress.batch {
            if progress.next < batch.records.count {
                compaction?.next += 1
                let header = batch.records[progress.next].header
                if header.source == nil {
                    compaction?.nextSequence = max(progress.nextSequence, header.sequence + 1)
                }
                withExtendedLifetime(batch) { body(batch.view(progress.next)) }
                return .record
            }
            if let damage = batch.damage { return stopAtDamage(damage, progress) }
            if batch.isLast {
                if progress.isIncomplete { abandonCompaction() } else { finishCompaction(progress) }
                return .finished
            }
        }
        guard let batch = board.withJobs({ jobs in takeBatch(&jobs) }) else { return .waiting }
        compaction?.batch = batch
        compaction?.next = 0
        return compactNext(body)
    }

    /// Appends a record that stands for the one that `view` shows, from now on.
    ///
    /// It keeps the sequence; kind, flags and payload are what the owner makes of it.
    ///
    /// It may be longer than ``LogOptions/recordBytesMax``, which may have been more when it came.
    ///
    /// - Throws: As ``append(kind:flags:payloadBytes:fill:)``, but for the length. The segment then
    ///   stays however the compaction ends, and can be compacted again; what was carried so far is in
    ///   no way wrong.
    public func carry(
        _ view: borrowing RecordView,
        kind: UInt8,
        flags: UInt8 = 0,
        payloadBytes: Int,
        fill: (UnsafeMutableRawBufferPointer) -> Void
    ) throws(AppendLogError) -> RecordPosition {
        do throws(AppendLogError) {
            if board.hasFailed.load(ordering: .acquiring), let failure { throw failure }
            try checkRoom(payloadBytes, isCarried: true)
        } catch {
            compaction?.isIncomplete = true
            throw error
        }
        let position = assembler.append(
            kind: kind,
            flags: flags,
            payloadBytes: payloadBytes,
            carried: (view.sequence, view.position),
            fill: fill
        )
        noteBegunSegments()
        return position
    }

    /// Gives up a compaction; the segment stays, and what was carried stands for what it was.
    public func abandonCompaction() {
        guard isCompacting else { return }
        compaction = nil
        board.withJobs { $0.keep { $0.endCompaction() } }
    }

    /// Keeps a segment's file, since somebody outside was told of a place in it.
    public func hold(_ segment: UInt32) {
        board.withJobs { $0.keep { $0.hold(segment) } }
    }

    /// Takes back one ``hold(_:)``.
    public func unhold(_ segment: UInt32) {
        board.withJobs { $0.keep { $0.unhold(segment) } }
    }

    /// The bytes that a record with this payload takes up on disk.
    public static func bytesOnDisk(payloadBytes: Int, isCarried: Bool = false) -> Int {
        RecordHeader.bytesOnDisk(payloadBytes: payloadBytes, isCarried: isCarried)
    }

    /// What all files of the store take up, in bytes.
    public var bytesUsed: Int {
        board.look { $0.keeping.bytesUsed }
    }

    private func takeBatch(_ jobs: inout LogJobs) -> CompactionBatch? {
        var batch: CompactionBatch?
        jobs.keep { batch = $0.takeBatch() }
        return batch
    }

    private func stopAtDamage(_ offset: Int, _ progress: CompactionProgress) -> CompactionStep {
        abandonCompaction()
        return .damaged(
            RecordPosition(segment: progress.segment.index, offset: UInt32(offset))
        )
    }

    private func finishCompaction(_ progress: CompactionProgress) {
        compaction = nil
        submit(sync: true)
        segments.removeFirst()
        guard var first = segments.first else { preconditionFailure("one segment is written to") }
        // of what the next header says to be gone, only what was seen here is
        first.firstSequence = max(
            progress.segment.firstSequence,
            min(first.firstSequence, progress.nextSequence)
        )
        segments[0] = first
        source.close(before: first.index)
        board.withJobs {
            $0.keep { $0.endCompaction() }
            $0.releaseSegments(before: first.index, firstSequence: first.firstSequence)
        }
    }
}
