// Part of QTasks. License: see LICENSE.

package import AppendLog
package import QTasksModel

/// Storage's housekeeping, in steps, so that nobody waits for it: retention, checkpoints, compaction,
/// history.
package struct StorageKeeper {
    /// How long a turn keeps house at most, in nanoseconds: a quarter of what may be noticed, since the last
    /// part of a step takes its time too.
    package static let stepTime: UInt64 = 250_000

    /// What is fixed while Storage runs.
    package struct Settings: Sendable, Equatable {
        package var history: HistoryWindow
        /// A checkpoint is written once this many bytes of records have no part in the last one, or
        /// half of what that takes, if that is more: so that the next opening reads little, and
        /// checkpoints are a small part of what is written.
        package var checkpointBytes = 64 << 20

        package init(history: HistoryWindow) {
            self.history = history
        }

        /// What a system's settings say.
        package init(_ config: QueueConfig) {
            history = config.history
        }
    }

    /// Whether there is more to do.
    package enum Pace: Int, Comparable {
        /// Nothing until something changes.
        case idle
        /// The log calls when it has got further.
        case waiting
        /// Go on with the next turn.
        case soon

        package static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }
    }

    /// How many tasks of a checkpoint, and records of a compaction, are dealt with between two looks at
    /// the clock.
    private static let entriesAtATime = 256
    private static let recordsAtATime = 16

    /// So many bytes that are on their way to the disk are enough for a compaction to wait: whoever waits
    /// for a sync waits for them too.
    private static let bytesUnderWay = 32 << 10
    /// Where room is short, or it has fallen behind, it waits for what it has copied itself alone, which takes up
    /// memory until it is written.
    ///
    /// In the one case whoever adds a task waits for the compaction, in the other it would never come to its end.
    private static let bytesCopiedMax = 4 << 20

    /// Where room is short, that much is worth copying all that is alive.
    private static let bytesWorthwhile = 1 << 20

    /// What the last look at the log saw: while that holds there is nothing new to decide.
    private struct Look: Equatable {
        var segment: UInt32
        /// In steps of 256 KiB.
        var part: UInt32
        var housekeeping: Int
        var hasRoom: Bool

        init(_ log: Log) {
            segment = log.end.segment
            part = log.end.offset >> 18
            housekeeping = log.housekeepingCount
            hasRoom = log.hasRoom
        }
    }

    /// What a worker's record takes up once it was carried forward.
    private static let workerBytes = Log.bytesOnDisk(
        payloadBytes: StoredWorker.byteCount,
        isCarried: true
    )

    /// What a queue's record takes up at most.
    private static let queueBytes = Log.bytesOnDisk(
        payloadBytes: StoredQueue.bytesMax,
        isCarried: true
    )

    private let settings: Settings
    private var lastLook: Look?
    private var walk: CheckpointWalk?
    private var newestCheckpoint: UInt32 = 0
    /// Compact up to here whether it pays or not: somebody asked for it.
    private var forcedBefore: UInt32?
    /// Something is due and can't be done yet; the log calls when it has got further.
    private var isExpiryStuck = false
    /// A task is to be ended that nobody leased in time, and the log has no room for that.
    private var isUnleasedStuck = false
    /// How far the log had grown without a checkpoint when there was no room for one.
    private var checkpointFailedAt: Int?
    /// What compaction has dealt with: a second try, after one that found no room, goes on from here.
    private var carriedUpTo = RecordPosition.none
    /// What the compaction that is under way may do by now.
    private var allowance = CopyAllowance()
    /// Up to where the log's bytes are counted in it.
    private var copyEnd = RecordPosition.none
    /// What it has copied since everything up to `mark` was on its way to the disk.
    private var copied = (bytes: 0, mark: RecordPosition.none)
    /// When it may do more, in nanoseconds of the monotonic clock; `nil` where something else wakes it.
    private var copyAt: UInt64?
    /// Where compaction met a record that can't be read.
    package private(set) var damage: RecordPosition?

    package init(settings: Settings) {
        self.settings = settings
    }

    /// Does a little of whatever is to be done.
    ///
    /// - Parameters:
    ///   - state: The core that the log belongs to.
    ///   - log: The log.
    ///   - now: The time of this turn.
    ///   - isOver: Whether the step has taken as long as it may.
    /// - Returns: When to go on.
    package mutating func step(
        _ state: inout StorageState,
        _ log: some KeptLog,
        now: Now,
        isOver: () -> Bool
    ) -> Pace {
        guard state.failure == nil else { return .idle }
        state.tasks.now = now
        log.kept.stamp = UInt64(clamping: state.tasks.latest.nanoseconds)
        if state.beginCompactions(log.kept) { compactAll(log.kept) }
        let expiry = max(endUnleased(&state, log, now: now), expire(&state, log, now: now))
        let look = Look(log.kept)
        guard look != lastLook || walk != nil || log.kept.isCompacting || isForced else {
            return expiry
        }
        lastLook = look
        let paces = [
            expiry, writeCheckpoint(state, log.kept, isOver),
            compact(&state, log, now: now, isOver),
        ]
        if damage != nil { forcedBefore = nil }
        // what is said now leaves with the next turn
        if !isForced, state.endCompactions(damage: damage, log.kept) { return .soon }
        if paces.contains(.soon) {
            lastLook = nil
            return .soon
        }
        return paces.contains(.waiting) ? .waiting : .idle
    }

    /// Compacts every segment that is complete by now, also where it gains nothing.
    package mutating func compactAll(_ log: Log) {
        forcedBefore = log.segments.last?.index
    }

    /// Whether a compaction that was asked for goes on.
    package var isForced: Bool { forcedBefore != nil }

    // MARK: Retention

    /// When there is something to do that no event brings, in nanoseconds of `CLOCK_BOOTTIME`.
    package func nextDeadline(_ state: inout StorageState, now: Now) -> UInt64? {
        guard state.failure == nil else { return nil }
        var next: Int64 = .max
        if !isUnleasedStuck, let due = state.nextLeaseDeadline { next = due.nanoseconds }
        if !isExpiryStuck {
            let window = state.firstWindow().map(\.moment)
            let due = [state.retention.nextDeadline?.nanoseconds, window].compactMap(\.self).min()
            if let due { next = min(next, due + Self.retentionSlack) }
        }
        guard next < .max else { return copyAt }
        let wait = next.subtractingReportingOverflow(now.wall.nanoseconds)
        guard !wait.overflow else { return copyAt }
        return min(now.monotonic &+ UInt64(max(0, wait.partialValue)), copyAt ?? .max)
    }

    // MARK: Deadlines

    /// How many tasks are ended in a step that nobody leased in time.
    private static let unleasedAtATime = 64

    /// How many unique keys are looked at in a step, so that those go which nobody holds.
    private static let keysAtATime = 8

    private mutating func endUnleased(
        _ state: inout StorageState,
        _ log: some KeptLog,
        now: Now
    ) -> Pace {
        state.tasks.sweepKeys(Self.keysAtATime, at: state.tasks.stamp(now))
        // as with tasks that are forgotten: there is room for some even where it is short
        isUnleasedStuck = !log.kept.hasRoom && log.kept.preparedBytesLeft <= 1 << 20
        if isUnleasedStuck { return .idle }
        switch state.endUnleased(atMost: Self.unleasedAtATime, now: now, log: log) {
        case true?: return .idle
        case false?: return .soon
        case nil:
            isUnleasedStuck = true
            return .idle
        }
    }

    /// How much later than it could finished tasks go, in nanoseconds: many at a time cost fewer
    /// wake-ups.
    private static let retentionSlack: Int64 = 10_000_000_000

    /// How many tasks are forgotten in a step.
    private static let expiriesAtATime = 64

    private mutating func expire(
        _ state: inout StorageState,
        _ log: some KeptLog,
        now: Now
    ) -> Pace {
        let hasMore = state.forgetExpired(atMost: 4 * Self.expiriesAtATime)
        // there is room for these even then, but not if they come by the million
        isExpiryStuck = !log.kept.hasRoom && log.kept.preparedBytesLeft <= 1 << 20
        if isExpiryStuck { return .idle }
        let due = state.retention.due(now: state.tasks.stamp(now), atMost: Self.expiriesAtATime)
        for task in due {
            if let pace = expire(task, &state, log, now: now) { return pace }
        }
        for _ in due.count..<Self.expiriesAtATime {
            guard let task = state.firstAfterWindow(now: state.tasks.stamp(now)) else {
                return hasMore ? .soon : .idle
            }
            if let pace = expire(task, &state, log, now: now) { return pace }
        }
        return .soon
    }

    /// - Returns: When to go on, where the task can't be forgotten yet.
    private mutating func expire(
        _ task: RetentionState.Finished,
        _ state: inout StorageState,
        _ log: some KeptLog,
        now: Now
    ) -> Pace? {
        switch state.expire(task, now: now, log: log) {
        case .forgotten, .kept: return nil
        case .notYet:
            isExpiryStuck = true
            return .waiting
        case .noRoom:
            isExpiryStuck = true
            return .idle
        }
    }

    // MARK: Checkpoints

    private mutating func writeCheckpoint(
        _ state: StorageState,
        _ log: Log,
        _ isOver: () -> Bool
    ) -> Pace {
        forgetOldCheckpoints(log, state)
        if log.checkpointFailure != nil {
            log.abandonCheckpoint()
            walk = nil
            checkpointFailedAt = checkpointFailedAt ?? log.bytesSinceCheckpoint
        }
        if walk == nil {
            // a compaction that has begun ends first, and its segment goes: together they take up most
            let isCompacting = log.isCompacting || log.isRemovingSegments
            guard !log.isWritingCheckpoint, !isCompacting || isForced, isCheckpointDue(log),
                log.hasRoom
            else { return .idle }
            checkpointFailedAt = nil
            log.beginCheckpoint()
            walk = CheckpointWalk()
        }
        while walk != nil, log.takesCheckpointBlocks {
            advance(state, log)
            if isOver() { return .soon }
        }
        return walk == nil ? .idle : .waiting
    }

    private mutating func advance(_ state: StorageState, _ log: Log) {
        let isDone = walk?.step(state.tasks, atMost: Self.entriesAtATime) { block in
            log.addCheckpointBlock(block)
        }
        guard isDone == true else { return }
        walk = nil
        log.endCheckpoint(stamp: UInt64(clamping: state.tasks.latest.nanoseconds))
    }

    private func isCheckpointDue(_ log: Log) -> Bool {
        let last = log.checkpoints.last?.bytes ?? 0
        // one that found no room is not tried again before there is more to gain
        let least = checkpointFailedAt.map { $0 + settings.checkpointBytes / 4 } ?? 0
        return log.bytesSinceCheckpoint >= max(settings.checkpointBytes, last / 2, least)
    }

    /// Writes a checkpoint to its end, so that the next opening has nothing else to read; for an orderly
    /// end.
    ///
    /// Blocks. Does nothing where little has happened since the last one.
    package mutating func writeLastCheckpoint(_ state: StorageState, _ log: Log) {
        guard state.failure == nil, log.hasRoom,
            walk != nil || log.bytesSinceCheckpoint >= 1 << 20
        else { return }
        if walk == nil, !log.isWritingCheckpoint {
            log.beginCheckpoint()
            walk = CheckpointWalk()
        }
        while walk != nil, log.checkpointFailure == nil, log.failure == nil {
            if log.takesCheckpointBlocks { advance(state, log) } else { log.waitForHousekeeping() }
        }
        walk = nil
    }

    private mutating func forgetOldCheckpoints(_ log: Log, _ state: StorageState) {
        let checkpoints = log.checkpoints
        guard let newest = checkpoints.last?.number, newest != newestCheckpoint else { return }
        newestCheckpoint = newest
        checkpointFailedAt = nil
        base(log, state).obsolete.forEach(log.removeCheckpoint)
    }

    private func base(_ log: Log, _ state: StorageState) -> HistoryBase {
        HistoryBase(
            settings.history,
            checkpoints: log.checkpoints,
            now: UInt64(clamping: state.tasks.latest.nanoseconds),
            bytesSince: log.bytes(since:)
        )
    }

    // MARK: Compaction

    private mutating func compact(
        _ state: inout StorageState,
        _ log: some KeptLog,
        now: Now,
        _ isOver: () -> Bool
    ) -> Pace {
        copyAt = nil
        if !log.kept.isCompacting {
            // by turns: a checkpoint that waits for the segment before to go would wait for ever
            let isCheckpointNext = log.kept.isRemovingSegments && isCheckpointDue(log.kept)
            let isUrgent = isForced || log.kept.isAlmostFull
            guard damage == nil, isUrgent || !isCheckpointNext, isWorthCompacting(state, log.kept),
                log.kept.beginCompaction()
            else { return .idle }
            allowance.begin(now: now.monotonic)
            copyEnd = log.kept.end
        }
        let appended = log.kept.bytes(since: copyEnd)
        copyEnd = log.kept.end
        // one thing at a time: each takes of the disk what whoever waits for a sync then lacks
        let isCheckpointFirst =
            log.kept.isWritingCheckpoint && !isDead(log.kept.segments[0], state, but: 16)
        if isCheckpointFirst || log.kept.isRemovingSegments, !log.kept.isAlmostFull {
            guard allowance.goesOn(beside: appended, now: now.monotonic) else { return .waiting }
        } else {
            allowance.grow(appended: appended, now: now.monotonic)
        }
        log.kept.isHurried = isInNeed(log.kept)
        while true {
            if isUnderWay(log.kept) {
                log.kept.submit(sync: true)
                return .waiting
            }
            if allowance.isSpent, !log.kept.isAlmostFull, !isForced {
                copyAt = allowance.nextAt
                return .idle
            }
            defer {
                let bytes = log.kept.bytes(since: copyEnd)
                allowance.spend(copied: bytes)
                copied.bytes += bytes
                copyEnd = log.kept.end
            }
            for _ in 0..<Self.recordsAtATime {
                switch compactOne(&state, log) {
                case .record: break
                case .waiting: return .waiting
                case .finished:
                    forget(before: log.kept.segments[0].index, &state, log.kept)
                    return .soon
                case .damaged(let position):
                    damage = position
                    state.reportDamage(position)
                    return .idle
                case nil: return .idle
                }
            }
            if isOver() {
                // where nobody else asks for a sync, the one before a segment goes would find all of it to do
                if log.kept.bytesNotDurable > Self.bytesUnderWay { log.kept.submit(sync: true) }
                return .soon
            }
        }
    }

    private func isInNeed(_ log: Log) -> Bool {
        log.isAlmostFull || allowance.isBehind
    }

    /// Whether so much is on its way to the disk that a compaction waits.
    private mutating func isUnderWay(_ log: Log) -> Bool {
        // others' bytes count where somebody waits for them: those that are late have no regard, and would
        // wait for ever where others append faster than the disk syncs
        guard isInNeed(log) else { return log.bytesNotDurable > Self.bytesUnderWay }
        if log.isWritten(upTo: copied.mark) { copied = (0, log.end) }
        return copied.bytes > Self.bytesCopiedMax
    }

    /// A segment is gone.
    private func forget(before first: UInt32, _ state: inout StorageState, _ log: Log) {
        state.tasks.usage.drop(before: first)
        // what reading would have to go on from after them isn't there any more
        for checkpoint in log.checkpoints.dropLast() where checkpoint.start.segment < first {
            log.removeCheckpoint(checkpoint.number)
        }
    }

    /// One record; `nil` where there is no room for it, or the log has failed.
    private mutating func compactOne(
        _ state: inout StorageState,
        _ log: some KeptLog
    ) -> CompactionStep? {
        var failure: AppendLogError?
        let step = log.kept.compactNext { view in
            allowance.read(Log.bytesOnDisk(payloadBytes: view.payload.count))
            guard view.position > carriedUpTo else { return }
            do throws(AppendLogError) {
                try state.carry(view, to: log)
                carriedUpTo = view.position
            } catch {
                failure = error
            }
        }
        guard let failure else { return step }
        log.kept.abandonCompaction()
        if !failure.isNoSpace { state.fail("\(failure)") }
        return nil
    }

    /// What is dead is worth more than what is alive costs to copy, where history leaves it to us; or
    /// the room is needed.
    private mutating func isWorthCompacting(_ state: StorageState, _ log: Log) -> Bool {
        guard let oldest = log.compactable else {
            forcedBefore = nil
            return false
        }
        if let before = forcedBefore {
            if oldest.index < before { return true }
            forcedBefore = nil
        }
        // history goes before anything is refused
        let isAlmostFull = log.isAlmostFull
        let first = isAlmostFull ? .max : base(log, state).firstSegment
        guard oldest.index < first else { return false }
        let (alive, dead) = space(state, log, before: first)
        guard log.hasRoom else { return dead >= Self.bytesWorthwhile }
        if isAlmostFull { return dead > min(alive, max(alive / 4, Self.bytesWorthwhile)) }
        // one that frees three bytes for each that it copies is cheap, whatever the others are like
        return dead > alive || isDead(oldest, state, but: 4)
    }

    /// Whether of a complete segment no more than one byte in so many is to be copied.
    private func isDead(_ segment: SegmentInfo, _ state: StorageState, but parts: Int) -> Bool {
        let alive = state.tasks.usage[segment.index] + toldBytes(state)
        return segment.end.map { $0 >= parts * alive } ?? false
    }

    /// What tells of workers and queues takes up at most: the table says nothing of it, and it is copied as well.
    private func toldBytes(_ state: StorageState) -> Int {
        state.tasks.workers.count * Self.workerBytes
            + state.tasks.queues.entries.count * Self.queueBytes
    }

    /// The bytes of complete segments before that one, by whether somebody may still ask for them.
    private func space(
        _ state: StorageState,
        _ log: Log,
        before first: UInt32
    ) -> (alive: Int, dead: Int) {
        // nothing is gained by copying it
        let told = toldBytes(state)
        var (alive, dead) = (told, -told)
        for segment in log.segments {
            guard segment.index < first, let end = segment.end else { continue }
            let living = state.tasks.usage[segment.index]
            alive += living
            dead += max(0, end - living)
        }
        return (alive, dead)
    }
}
