// Part of QTasks. License: see LICENSE.

import AppendLog
import QTasksModel
import QTasksWire

@testable import QTasksStorage

// What `StorageLoop` does in a turn, and the messages that reach it.

extension KeptStore {
    // MARK: Turns

    /// The end of a turn: what was appended goes on its way, and a little house is kept.
    func turn(jobs: Int, keeps: Bool = true, looks: Int = .max) throws {
        guard let log else { return }
        try drain()
        submit(log)
        for _ in 0..<jobs { _ = runOneJob(log.kept) }
        if let failure = log.kept.failure { state.fail("\(failure)") }
        state.watermarks(log.kept.watermarks(), log: log)
        if log.kept.hasRoom, state.awaitsSpace { state.spaceMayBeBack(now: now, log: log) }
        _ = state.flush()
        guard keeps else { return }
        keep(log, looks: looks)
        try drain()
        submit(log)
    }

    @discardableResult
    private func keep(_ log: RecordingLog, looks: Int) -> StorageKeeper.Pace {
        var looks = looks
        return keeper.step(&state, log, now: now) {
            looks -= 1
            return looks < 0
        }
    }

    private func submit(_ log: RecordingLog) {
        let wantsSync = state.takeSyncWish(now: now.monotonic)
        guard log.kept.hasUnsubmitted || wantsSync else { return }
        log.kept.submit(sync: wantsSync)
    }

    private func runOneJob(_ log: Log) -> Bool {
        switch Int.random(in: 0..<4, using: &random) {
        case 0: log.runOneWrite()
        case 1: log.runOneSync()
        case 2: log.runOnePreparation()
        default: log.runOneKeep()
        }
    }

    /// Everything that can be done is done: the log is durable, and the keeper has nothing left.
    func settle() throws {
        guard let log else { return }
        log.kept.retrySpace()
        for _ in 0..<10_000 {
            log.kept.submit(sync: true)
            log.kept.noteIdle()
            var didWork = false
            while log.kept.runOneWrite() || log.kept.runOneSync() || log.kept.runOneKeep()
                || log.kept.runOnePreparation()
            {
                didWork = true
            }
            if let failure = log.kept.failure { return state.fail("\(failure)") }
            state.watermarks(log.kept.watermarks(), log: log)
            _ = state.flush()
            let pace = keep(log, looks: 50)
            try drain()
            if pace == .idle, !didWork { return }
        }
        throw KeptModel.Complaint("housekeeping has no end")
    }

    // MARK: Events

    func propose(_ proposals: Proposal...) {
        guard let log else { return }
        var writer = WireWriter(.propose, number: state.sessionNumber ?? 0)
        for proposal in proposals { proposal.write(to: &writer) }
        writer.bytes.withUnsafeBytes { state.brokerMessage($0, now: now, log: log) }
        state.decideReleases(now: now, log: log)
    }

    func add(_ task: TaskSubmission, isWatched: Bool = false, first: (Lease, WorkerID)? = nil)
        throws
    {
        var writer = WireWriter()
        try task.write(to: &writer)
        writer.bytes.withUnsafeBytes {
            propose(
                .add(
                    number: 1,
                    isWatched: isWatched,
                    lease: first?.0 ?? .none,
                    worker: first?.1 ?? Bench.worker,
                    envelope: $0
                )
            )
        }
    }

    func lease(_ id: TaskID, _ lease: Lease, to worker: WorkerID, synced: Bool = false) {
        guard let handle = state.tasks.index.number(of: id) else { return }
        let place = QueuedPlace(sequence: state.tasks.index[handle].sequence, handle: handle)
        propose(.lease(number: 2, place: place, lease: lease, worker: worker, synced: synced))
    }

    /// Somebody wants a task to be forgotten that may be dead.
    func purge(_ id: TaskID) {
        wanted(gone: id)
        propose(.change(number: 8, .forget, id: id, reason: ""))
    }

    func push(_ id: TaskID, _ lease: Lease, _ outcome: TaskOutcome, from worker: WorkerID) {
        guard let log else { return }
        let result = ResultEntry(
            id: id,
            lease: lease,
            startedAt: now.wall,
            finishedAt: now.wall,
            outcome: outcome
        )
        state.push(result, from: worker, now: now, log: log)
    }
}
