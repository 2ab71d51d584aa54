// Part of QTasks. License: see LICENSE.

import AppendLog
import Logging
import QTasksModel
import QTasksProcess
import QTasksStorage
import QTasksWire
import ZeroMQ

/// The thread of an ``AppendLogStorage``: turns orders, the log's progress and time into events of
/// `StorageState`, and its verdicts into answers.
///
/// Each turn takes all orders that lie there and hands their records to the log at once.
struct AppendLogStorageLoop: ~Copyable {
    private static let bellToken: UInt64 = 1

    /// How long after the last commit the log notes how far it is durable; also how often a full
    /// disk is asked for room.
    ///
    /// In nanoseconds.
    private static let pause: UInt64 = 1_000_000_000

    private let mailbox: StorageMailbox
    private let logger: Logger
    private let log: Log
    private var state: StorageState
    private var keeper: StorageKeeper
    private var hasHousework = false
    private var poll: PollLoop
    private var waiting = WaitingAnswers()

    private var lastNumber: UInt64 = 0
    private var lastLease: UInt32 = 0
    private var idleAt: UInt64?
    private var spaceAt: UInt64?
    private var retentionAt: UInt64?

    /// Serves the mailbox until it is closed.
    static func run(
        _ mailbox: StorageMailbox,
        _ directory: String,
        _ config: QueueConfig,
        opened: StorageMailbox.Answer<Void>
    ) {
        do {
            var loop = try AppendLogStorageLoop(mailbox, directory, config)
            opened.resume(returning: .success(()))
            mailbox.ended(loop.serve())
        } catch {
            let reason = error as? AppendLogError
            let failure = reason?.opening(directory) ?? .internalError(directory, error)
            opened.resume(returning: .failure(failure))
            mailbox.ended(.failure(failure))
        }
    }

    private init(
        _ mailbox: StorageMailbox,
        _ directory: String,
        _ config: QueueConfig
    ) throws {
        var logger = Logger(label: "qtasks.storage")
        logger[metadataKey: "path"] = .string(directory)
        let settings = StorageState.Settings(config, directory: directory)
        let space = try? PosixFiles().space(of: directory)
        let store = try OpenedStore(
            settings,
            options: .store(config, space: space),
            keeping: StorageKeeper.Settings(config),
            onProgress: { [doorbell = mailbox.doorbell] in doorbell.ring() }
        )
        let log = store.log
        var state = store.state
        if store.unreadable > 0 || log.recovery.isDamaged {
            logger.error(
                "records of the store are damaged; everything else is there",
                metadata: ["event": "records lost"]
            )
        }
        state.brokerSession(incarnation: log.incarnation, globalConfigPid: 0)
        // the snapshot that a Broker would get
        _ = state.flush()
        let poll = try PollLoop()
        try poll.watch(descriptor: mailbox.doorbell.descriptor, token: Self.bellToken)
        self.mailbox = mailbox
        self.logger = logger
        self.log = log
        self.state = state
        keeper = store.keeper
        self.poll = poll
    }

    private mutating func serve() -> Result<Void, QTasksError> {
        do {
            while try turn() {}
            try log.flush()
            hear()
            keeper.writeLastCheckpoint(state, log)
            try log.close()
        } catch {
            let failure = state.failure.map { QTasksError.storeFailed($0) }
            let reason = failure ?? .storeFailed("\(error)")
            waiting.failAll(reason)
            return .failure(reason)
        }
        waiting.failAll(mailbox.closed)
        return .success(())
    }

    /// - Returns: Whether there will be another.
    private mutating func turn() throws -> Bool {
        try poll.setTimer(
            at: hasHousework
                ? 1 : [idleAt, spaceAt, retentionAt, state.syncDeadline].compactMap(\.self).min()
        )
        let ready = try poll.wait([])
        if !ready.tokens.isEmpty {
            mailbox.doorbell.clear()
            logProgressed()
        }
        if ready.timerFired { timer(MonotonicClock.nowNanoseconds()) }
        let (orders, isClosed) = mailbox.take()
        for order in orders { decide(order) }
        submit()
        hear()
        if let failure = state.failure { waiting.failAll(.storeFailed(failure)) }
        keepHouse()
        return !isClosed
    }

    private mutating func keepHouse() {
        let end = MonotonicClock.nowNanoseconds() + StorageKeeper.stepTime
        let pace = keeper.step(&state, log, now: .current) {
            MonotonicClock.nowNanoseconds() >= end
        }
        hasHousework = pace == .soon
        retentionAt = keeper.nextDeadline(&state, now: .current)
        submit()
    }

    // MARK: Orders

    private mutating func decide(_ order: StorageMailbox.Order) {
        if let failure = state.failure { return order.fail(.storeFailed(failure)) }
        lastNumber += 1
        let number = lastNumber
        switch order {
        case .add(let envelope, let durability, let answer):
            waiting.open[number] = .add(durability, answer)
            envelope.withUnsafeBytes { bytes in
                propose(
                    .add(
                        number: number,
                        isWatched: false,
                        lease: .none,
                        worker: WorkerID(high: 0, low: 0),
                        envelope: bytes
                    )
                )
            }
        case .lease(let id, let worker, let answer): lease(id, to: worker, number, answer)
        case .release(let holding, let reason, let answer):
            waiting.open[number] = .release(answer)
            propose(reason.proposal(number, holding))
            state.decideReleases(now: .current, log: log)
        case .record(let id, let answer):
            waiting.open[number] = .record(answer)
            propose(.read(number: number, id: id, isWhole: true))
        case .save(let result, let answer): save(result, answer)
        case .unfinished(let sequence, let count, let answer):
            answer.resume(returning: .success(unfinished(after: sequence, atMost: count)))
        }
    }

    private mutating func propose(_ proposal: Proposal) {
        var writer = WireWriter(.propose)
        proposal.write(to: &writer)
        writer.bytes.withUnsafeBytes { state.brokerMessage($0, now: .current, log: log) }
    }

    private mutating func nextLease() -> Lease {
        let (next, overflow) = lastLease.addingReportingOverflow(1)
        precondition(!overflow, "a store gives out 4 billion leases between two openings")
        lastLease = next
        return Lease(incarnation: log.incarnation, counter: next)
    }

    private mutating func lease(
        _ id: TaskID,
        to worker: WorkerID,
        _ number: UInt64,
        _ answer: StorageMailbox.Answer<TaskHandover?>
    ) {
        guard let handle = state.tasks.index.number(of: id) else {
            return answer.resume(returning: .success(nil))
        }
        let entry = state.tasks.index[handle]
        waiting.open[number] = .lease(answer)
        propose(
            .lease(
                number: number,
                place: QueuedPlace(sequence: entry.sequence, handle: handle),
                lease: nextLease(),
                worker: worker,
                // durable before its task runs: it may bring the whole host down
                synced: entry.flags.contains(.suspect)
            )
        )
    }

    private mutating func save(
        _ result: AttemptResult,
        _ answer: StorageMailbox.Answer<SaveVerdict>
    ) {
        var writer = WireWriter(.results)
        writer.worker(result.worker)
        ResultEntry(
            id: result.id,
            lease: result.lease,
            startedAt: result.startedAt,
            finishedAt: result.finishedAt,
            outcome: result.outcome
        ).write(to: &writer)
        // so that what is told next is about this result
        settle(state.flush())
        let before = state.counters
        writer.bytes.withUnsafeBytes { state.results($0, now: .current, log: log) }
        guard state.counters.withoutSpace == before.withoutSpace else {
            let reason = "the disk is full: offer the result again later"
            return answer.resume(returning: .failure(.storeFailed(reason)))
        }
        guard state.counters.malformed == before.malformed else {
            let reason = "no store takes the result of task \(result.id): it is too long"
            let error = QTasksError(.payloadTooLarge, reason)
            return answer.resume(returning: .failure(error))
        }
        waiting.newest = .init(result, answer)
        settle(state.flush())
        waiting.keepNewest()
    }

    private func unfinished(after sequence: UInt64, atMost count: Int) -> [StorageMailbox.Place] {
        state.tasks.index.unfinished(after: sequence, atMost: count)
            .map { .init(id: $0.id, sequence: $0.sequence) }
    }

    // MARK: The log

    private mutating func submit() {
        let wantsSync = state.takeSyncWish(now: MonotonicClock.nowNanoseconds())
        guard log.hasUnsubmitted || wantsSync else { return }
        log.submit(sync: wantsSync)
        idleAt = MonotonicClock.nowNanoseconds() + Self.pause
    }

    private mutating func logProgressed() {
        if let failure = log.failure { state.fail("\(failure)") }
        if log.hasRoom {
            spaceAt = nil
            if state.awaitsSpace { state.spaceMayBeBack(now: .current, log: log) }
        } else if spaceAt == nil {
            spaceAt = MonotonicClock.nowNanoseconds() + Self.pause
            logger.error(
                "the disk is full: new tasks are refused until there is room",
                metadata: ["event": "short of space"]
            )
        }
    }

    private mutating func timer(_ now: UInt64) {
        if let due = idleAt, due <= now {
            idleAt = nil
            // what nobody needs to be durable becomes so now
            log.submit(sync: true)
            log.noteIdle()
        }
        if let due = spaceAt, due <= now {
            spaceAt = now + Self.pause
            log.retrySpace()
            if state.awaitsSpace { state.spaceMayBeBack(now: .current, log: log) }
        }
    }

    // MARK: Answers

    /// Answers everything that is now as durable as it has to be.
    private mutating func hear() {
        let marks = log.watermarks()
        state.watermarks(marks, log: log)
        settle(state.flush())
        waiting.durable(upTo: marks.durable)
    }

    private mutating func settle(_ outbox: StorageOutbox) {
        for notice in outbox.notices {
            logger.log(
                level: notice.isWarning ? .warning : .info,
                "\(notice.message)",
                metadata: ["event": "\(notice.event)"]
            )
        }
        for message in outbox.toBroker {
            do {
                try message.withUnsafeBytes { try waiting.settle($0) }
            } catch {
                preconditionFailure("Storage's core tells what it can read: \(error)")
            }
        }
    }
}

extension ReleaseReason {
    fileprivate func proposal(_ number: UInt64, _ holding: Holding) -> Proposal {
        switch self {
        case .handedBack:
            .release(
                number: number,
                holding: holding,
                cause: .handedBack,
                isShared: false,
                counts: false
            )
        case .workerDied(let wasAlone):
            .release(
                number: number,
                holding: holding,
                cause: .death,
                isShared: !wasAlone,
                counts: wasAlone
            )
        }
    }
}

extension QTasksError {
    fileprivate static func storeFailed(_ reason: String) -> QTasksError {
        QTasksError(.storageUnavailable, reason)
    }

    fileprivate static func internalError(_ directory: String, _ error: any Error) -> QTasksError {
        QTasksError(.internalError, "the store at \(directory) can't be served", cause: error)
    }
}

extension AppendLogError {
    /// Why a store can't be opened, in a caller's words.
    fileprivate func opening(_ directory: String) -> QTasksError {
        let code: QTasksError.Code =
            switch self {
            case .locked, .notAStore, .newerFormat, .unknownKind, .unsuitableFileSystem: .badHome
            case .system, .payloadTooLarge, .outOfSpace, .corrupt, .metaUnreadable:
                .storageUnavailable
            }
        return QTasksError(code, "the store at \(directory) can't be opened", cause: self)
    }
}
