// Part of QTasks. License: see LICENSE.
//
// CANCEL and REQUEUE of recovery.md, chapter 4: what holds, and what is answered where it doesn't.

import AppendLog
import QTasksModel
import QTasksStorage
import QTasksWire
import Testing

private let first = Lease(incarnation: 7, counter: 1)
private let second = Lease(incarnation: 7, counter: 2)
private let failure = TaskFailure(type: "E", message: "no")

@Suite
struct `A cancel` {
    var bench = Bench()

    @Test mutating func `of a queued task ends it, and it is never leased (P2)`() throws {
        let id = try bench.addedTask()
        let place = bench.place(of: id)
        bench.cancel(id)
        let told = try bench.synced()
        guard case .changed(5, .withdrawn(let placement, .none)) = try #require(told.first) else {
            Issue.record("\(told)")
            return
        }
        #expect(placement.place == place)
        let record = try #require(try bench.record(id))
        #expect(record.status == .cancel)
        #expect(record.outcome == .cancel(reason: "enough"))
        #expect(record.startedAt == nil && record.finishedAt == bench.now.wall)
        bench.lease(id, first)
        #expect(try bench.written() == [.stale(2, .cancel)])
    }

    @Test mutating func `of a retry that nobody was told of comes after the word of it`() throws {
        let id = try bench.runningTask(first)
        bench.push(id, first, .retry(failure, afterMilliseconds: 1000, maxAttempts: 3))
        bench.cancel(id)
        let due = DueTime(boot: bench.now.monotonic + 1_000_000_000)
        let told = try bench.synced()
        let holding = Holding(id: id, lease: first)
        #expect(told.first == .finished(holding, .committed, .scheduled, nil))
        guard told.count == 2, case .changed(5, .withdrawn(_, due)) = told[1] else {
            Issue.record("\(told)")
            return
        }
    }

    @Test mutating func `is told before a lease that comes too late is refused`() throws {
        let id = try bench.addedTask()
        bench.cancel(id)
        bench.lease(id, first)
        // the Broker would put a task back that it never took out, or take it out of a line it isn't in
        #expect(try bench.written() == [])
        let told = try bench.synced()
        #expect(told.count == 2)
        guard case .changed(5, .withdrawn) = try #require(told.first) else {
            Issue.record("\(told)")
            return
        }
        #expect(told.last == .stale(2, .cancel))
    }

    @Test mutating func `of a scheduled task tells when it would have been due`() throws {
        var task = bench.submission()
        task.start = .after(milliseconds: 1000)
        let id = try bench.addedTask(task)
        bench.cancel(id)
        let told = try bench.synced()
        let due = DueTime(boot: bench.now.monotonic + 1_000_000_000)
        guard case .changed(5, .withdrawn(_, due)) = try #require(told.first) else {
            Issue.record("\(told)")
            return
        }
        bench.now.monotonic += 2_000_000_000
        bench.lease(id, first)
        #expect(try bench.written() == [.stale(2, .cancel)])
    }

    @Test
    mutating func `of a running task ends it, and its worker's result is refused and recorded`()
        throws
    {
        let id = try bench.runningTask(first)
        bench.cancel(id)
        #expect(try bench.synced() == [.changed(5, .revoked(first))])
        bench.push(id, first)
        let holding = Holding(id: id, lease: first)
        #expect(try bench.synced() == [.finished(holding, .stale, .cancel, nil)])
        #expect(bench.log.count(.stale) == 1)
        #expect(try bench.record(id)?.outcome == .cancel(reason: "enough"))
    }

    @Test mutating func `of a task that has ended changes nothing`() throws {
        let id = try bench.runningTask(first)
        bench.push(id, first)
        _ = try bench.synced()
        bench.cancel(id)
        #expect(try bench.synced() == [.changed(5, .unchanged(.success))])
        #expect(bench.log.count(.cancel) == 0)
    }

    @Test mutating func `of a task that nobody added is answered at once`() throws {
        bench.cancel(bench.newID())
        #expect(try bench.told() == [.changed(5, .unchanged(nil))])
    }

    @Test mutating func `is told no earlier than it is as durable as the task asked (P2)`() throws {
        let id = try bench.addedTask()
        bench.cancel(id)
        #expect(try bench.written() == [])
        #expect(try bench.synced().count == 1)
    }

    @Test mutating func `ends the wait for the task`() throws {
        let task = bench.submission()
        try bench.add(task, isWatched: true)
        _ = try bench.synced()
        bench.cancel(task.id)
        let told = try bench.synced()
        guard case .final(task.id, let record) = try #require(told.last) else {
            Issue.record("\(told)")
            return
        }
        #expect(record?.outcome == .cancel(reason: "enough"))
    }

    @Test mutating func `is not forgotten by a restart`() throws {
        let queued = try bench.addedTask()
        let running = try bench.runningTask(first)
        bench.cancel(queued)
        bench.cancel(running)
        _ = try bench.synced()
        try bench.reopen()
        #expect(try bench.status(queued) == .cancel)
        #expect(try bench.status(running) == .cancel)
        bench.push(running, first)
        _ = try bench.synced()
        #expect(try bench.record(running)?.outcome == .cancel(reason: "enough"))
        #expect(try bench.snapshot() == [.end])
    }

    @Test mutating func `leaves a release nothing to do`() throws {
        let id = try bench.runningTask(first)
        bench.cancel(id)
        bench.release(id, first, counts: true)
        let told = try bench.synced()
        #expect(told.contains(.released(3, .cancel, isSuspect: false)))
        #expect(try bench.record(id)?.deaths == 0)
    }
}

@Suite
struct `A requeue` {
    var bench = Bench()

    @Test mutating func `is told before a lease that was asked for without knowing of it`() throws {
        let id = try bench.addedTask()
        bench.cancel(id)
        bench.requeue(id)
        bench.lease(id, first)
        #expect(try bench.written().isEmpty)
        let told = try bench.synced()
        guard case .changed(5, .withdrawn) = told.first, case .changed(6, .requeued) = told[1],
            case .leased(2, _, _) = told.last, told.count == 3
        else {
            Issue.record("\(told)")
            return
        }
    }

    @Test mutating func `begins a new epoch in which everything is counted anew`() throws {
        let id = try bench.runningTask(first)
        bench.push(id, first, .error(failure))
        _ = try bench.synced()
        let sequence = try #require(try bench.record(id)).sequence
        bench.requeue(id)
        let told = try bench.synced()
        guard case .changed(6, .requeued(let placement)) = try #require(told.first) else {
            Issue.record("\(told)")
            return
        }
        // P6: at the place that it had
        #expect(placement.place.sequence == sequence)
        let record = try #require(try bench.record(id))
        #expect(record.status == .new && record.epoch == 1)
        #expect(record.attempt == 0 && record.failures == 0 && record.outcome == nil)
        bench.lease(id, second)
        bench.push(id, second)
        _ = try bench.synced()
        let end = try #require(try bench.record(id))
        #expect(end.status == .success && end.attempt == 1 && end.epoch == 1)
    }

    @Test mutating func `before its end was told leaves those who wait until the next end`()
        throws
    {
        let id = try bench.addedTask()
        bench.propose(.watch(id: id))
        bench.cancel(id)
        bench.requeue(id)
        let told = try bench.synced()
        #expect(!told.contains(where: Self.isEnd), "\(told)")
        bench.cancel(id)
        #expect(try bench.synced().contains(where: Self.isEnd))
    }

    private static func isEnd(_ told: Told) -> Bool {
        if case .final = told { true } else { false }
    }

    @Test mutating func `of a dead suspect lets it run beside others again`() throws {
        var config = QueueConfig()
        config.maxDeliveries = 1
        bench = Bench(config)
        let id = try bench.runningTask(first)
        bench.release(id, first, isShared: true)
        _ = try bench.synced()
        bench.lease(id, second)
        bench.release(id, second, counts: true)
        _ = try bench.synced()
        #expect(try bench.status(id) == .dead)
        bench.requeue(id)
        guard case .changed(6, .requeued(let placement)) = try #require(try bench.synced().first)
        else {
            Issue.record("not requeued")
            return
        }
        #expect(!placement.isSuspect)
        #expect(try bench.record(id)?.deaths == 0)
    }

    @Test mutating func `of a task that isn't final, or has succeeded, changes nothing (P2)`()
        throws
    {
        let id = try bench.runningTask(first)
        bench.requeue(id)
        #expect(try bench.synced() == [.changed(6, .unchanged(.process))])
        bench.push(id, first)
        _ = try bench.synced()
        bench.requeue(id)
        #expect(try bench.synced() == [.changed(6, .unchanged(.success))])
        #expect(bench.log.count(.requeue) == 0)
    }

    @Test mutating func `leaves the former epoch's lease without a say (P2)`() throws {
        let id = try bench.runningTask(first)
        bench.push(id, first, .error(failure))
        _ = try bench.synced()
        bench.requeue(id)
        _ = try bench.synced()
        bench.push(id, first)
        let holding = Holding(id: id, lease: first)
        #expect(try bench.synced() == [.finished(holding, .stale, .new, nil)])
        #expect(try bench.status(id) == .new)
    }

    @Test mutating func `is kept by a restart`() throws {
        let id = try bench.addedTask()
        bench.cancel(id)
        bench.requeue(id)
        _ = try bench.synced()
        try bench.reopen()
        let record = try #require(try bench.record(id))
        #expect(record.status == .new && record.epoch == 1 && record.outcome == nil)
    }
}

@Suite
struct `A purge` {
    var bench: Bench

    init() {
        var config = QueueConfig()
        config.maxDeliveries = 1
        bench = Bench(config)
    }

    @Test mutating func `forgets a dead task, to everybody and for good`() throws {
        let id = try bench.runningTask(first)
        bench.release(id, first, counts: true)
        _ = try bench.synced()
        bench.forget(id)
        #expect(try bench.written().isEmpty, "as durable as the task asked")
        #expect(try bench.record(id) == nil)
        #expect(bench.log.count(.expire) == 1)
        try bench.reopen()
        #expect(bench.state.tasks.index.count == 0)
        bench.forget(id)
        #expect(try bench.told() == [.changed(8, .unchanged(nil))])
    }

    @Test mutating func `waits until the death itself is durable`() throws {
        let id = try bench.runningTask(first)
        bench.release(id, first, counts: true)
        _ = try bench.written()
        bench.forget(id)
        #expect(bench.log.count(.expire) == 0)
        let wantsSync = bench.state.takeSyncWish()
        #expect(wantsSync)
        #expect(try bench.synced().isEmpty)
        #expect(bench.log.count(.expire) == 1)
        #expect(try bench.synced() == [.changed(8, .forgotten)])
    }

    @Test mutating func `of a task in any other status changes nothing (P1)`() throws {
        let ended = try bench.runningTask(first)
        bench.push(ended, first)
        let running = try bench.runningTask(second)
        for (id, status) in [(ended, TaskStatus.success), (running, .process)] {
            bench.forget(id)
            #expect(try bench.synced() == [.changed(8, .unchanged(status))])
        }
        #expect(bench.log.count(.expire) == 0)
    }

    @Test mutating func `is refused on a full disk, and ends nothing (P9)`() throws {
        let id = try bench.runningTask(first)
        bench.release(id, first, counts: true)
        _ = try bench.synced()
        bench.log.refusal = .outOfSpace(bytes: 1, preparedBytesLeft: 0)
        bench.forget(id)
        guard case .changed(8, .refused(let refusal))? = try bench.told().first else {
            Issue.record("not refused")
            return
        }
        #expect(refusal.code == .storageUnavailable && refusal.message.contains("full"))
        bench.log.refusal = nil
        #expect(try bench.status(id) == .dead)
    }
}

@Suite
struct `An attempt whose worker was ended over its limit` {
    private static let began = Timestamp(nanoseconds: 900_000_000_000)
    var bench = Bench()

    private func overdue(_ id: TaskID, _ lease: Lease, maxAttempts: UInt32) -> Proposal {
        let attempt = RunningAttempt(
            lease: lease,
            deadline: 1,
            startedAt: Self.began,
            retryMilliseconds: 500,
            maxAttempts: maxAttempts
        )
        return .overdue(
            number: 4,
            holding: Holding(id: id, lease: lease),
            OverdueAttempt(worker: Bench.worker, attempt)
        )
    }

    @Test mutating func `ends as an error of that type, with no death counted (P4)`() throws {
        let id = try bench.runningTask(first)
        bench.propose(overdue(id, first, maxAttempts: 1))
        let holding = Holding(id: id, lease: first)
        #expect(try bench.synced() == [.finished(holding, .committed, .error, nil)])
        let record = try #require(try bench.record(id))
        #expect(record.status == .error && record.deaths == 0 && record.failures == 1)
        #expect(record.startedAt == Self.began && record.finishedAt == bench.now.wall)
        guard case .error(let failure) = record.outcome else {
            Issue.record("\(record)")
            return
        }
        #expect(failure.type == TaskFailure.timeLimitType)
    }

    @Test mutating func `is tried again as its policy says`() throws {
        let id = try bench.runningTask(first)
        bench.propose(overdue(id, first, maxAttempts: 2))
        _ = try bench.synced()
        #expect(try bench.status(id) == .scheduled)
        bench.now.monotonic += 500_000_000
        bench.lease(id, second)
        _ = try bench.synced()
        bench.propose(overdue(id, second, maxAttempts: 2))
        _ = try bench.synced()
        #expect(try bench.status(id) == .error)
    }

    @Test mutating func `has ended as its worker said, where that arrived before (P2, H26)`() throws
    {
        let id = try bench.runningTask(first)
        bench.deliver([overdue(id, first, maxAttempts: 1)])
        bench.push(id, first)
        bench.state.decideReleases(now: bench.now, log: bench.log)
        let told = try bench.synced()
        #expect(told.last == .released(4, .success, isSuspect: false))
        #expect(try bench.status(id) == .success)
    }

    @Test mutating func `waits for room in the log (P9)`() throws {
        let id = try bench.runningTask(first)
        bench.log.refusal = .outOfSpace(bytes: 100, preparedBytesLeft: 0)
        bench.propose(overdue(id, first, maxAttempts: 1))
        #expect(try bench.synced() == [])
        #expect(bench.state.awaitsSpace)
        bench.log.refusal = nil
        bench.state.spaceMayBeBack(now: bench.now, log: bench.log)
        #expect(try bench.status(id) == .error)
    }
}
