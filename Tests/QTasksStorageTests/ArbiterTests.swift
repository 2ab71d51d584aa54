// Part of QTasks. License: see LICENSE.
//
// The table of recovery.md, chapter 4, row by row: what holds, and what is answered where it doesn't.

import AppendLog
import QTasksModel
import QTasksStorage
import QTasksWire
import Testing

private let first = Lease(incarnation: 7, counter: 1)
private let second = Lease(incarnation: 7, counter: 2)
private let failure = TaskFailure(type: "E", message: "no")

@Suite
struct `An add` {
    var bench = Bench()

    @Test mutating func `of an unknown ID queues the task at its sequence (P1)`() throws {
        let task = bench.submission()
        try bench.add(task)
        #expect(
            try bench.written() == [.added(1, sequence: 1, leased: false, isDelayed: false)]
        )
        #expect(try bench.status(task.id) == .new)
    }

    @Test mutating func `with a lease is written and leased in one go`() throws {
        let task = bench.submission()
        try bench.add(task, lease: first)
        #expect(try bench.written() == [.added(1, sequence: 1, leased: true, isDelayed: false)])
        #expect(try bench.record(task.id)?.lease == first)
        #expect(try bench.record(task.id)?.attempt == 1)
    }

    @Test mutating func `with the same content again names the first one's place (P1)`() throws {
        let task = bench.submission()
        try bench.add(task)
        _ = try bench.written()
        try bench.add(task, number: 9)
        #expect(try bench.told() == [.exists(9, sequence: 1, .new)])
        #expect(bench.log.count(.add) == 1)
    }

    @Test mutating func `with another content under that ID is a conflict`() throws {
        var task = bench.submission()
        try bench.add(task)
        _ = try bench.written()
        task.arguments = [2]
        try bench.add(task, number: 9)
        #expect(try bench.told() == [.refused(9, .conflict)])
        #expect(bench.log.count(.add) == 1)
    }

    @Test mutating func `with a delay is scheduled, and its lease is not made`() throws {
        var task = bench.submission()
        task.start = .after(milliseconds: 1000)
        try bench.add(task, lease: first)
        #expect(try bench.written() == [.added(1, sequence: 1, leased: false, isDelayed: true)])
        #expect(try bench.status(task.id) == .scheduled)
        let due = bench.now.wall.nanoseconds + 1_000_000_000
        #expect(try bench.record(task.id)?.notBefore == Timestamp(nanoseconds: due))
    }

    @Test mutating func `for a moment that has passed is queued at once`() throws {
        var task = bench.submission()
        task.start = .at(Timestamp(nanoseconds: 1))
        try bench.add(task)
        #expect(try bench.written() == [.added(1, sequence: 1, leased: false, isDelayed: false)])
    }

    @Test mutating func `without room is refused while all else goes on (P9)`() throws {
        let known = try bench.addedTask()
        bench.log.isShortOfSpace = true
        try bench.add(bench.submission(), number: 4)
        #expect(try bench.told() == [.refused(4, .storageUnavailable)])
        bench.lease(known, first)
        bench.push(known, first)
        #expect(try bench.status(known) == .success)
    }

    @Test mutating func `gets no earlier time than what came before it, whatever the clock says`()
        throws
    {
        let earlier = try bench.addedTask()
        bench.now.wall = Timestamp(nanoseconds: 5)
        let later = try bench.addedTask()
        #expect(try bench.record(later)?.addedAt == bench.record(earlier)?.addedAt)
    }
}

@Suite
struct `A lease` {
    var bench = Bench()

    @Test mutating func `of a queued task holds`() throws {
        let id = try bench.addedTask()
        bench.lease(id, first)
        let told = try bench.written()
        guard case .leased(2, let task, let arguments) = try #require(told.first) else {
            Issue.record("\(told)")
            return
        }
        #expect(task.lease == first && task.attempt == 1 && !task.isSuspect)
        #expect(arguments == Array("[1]".utf8))
        #expect(try bench.status(id) == .process)
    }

    @Test mutating func `of a scheduled task holds once it is due, not before`() throws {
        var task = bench.submission()
        task.start = .after(milliseconds: 1000)
        let id = try bench.addedTask(task)
        let due = DueTime(boot: bench.now.monotonic + 1_000_000_000)
        bench.lease(id, first)
        #expect(try bench.written() == [.early(2, due)])
        bench.now.monotonic += 1_000_000_000
        bench.lease(id, first)
        #expect(try bench.written().count == 1)
        #expect(try bench.status(id) == .process)
    }

    @Test mutating func `of a running or final or unknown task is told what holds`() throws {
        let id = try bench.runningTask(first)
        bench.lease(id, second)
        #expect(try bench.told() == [.stale(2, .process)])
        bench.push(id, first)
        _ = try bench.synced()
        bench.lease(id, second)
        #expect(try bench.told() == [.stale(2, .success)])
        bench.lease(TaskID(high: 1, low: 1), second)
        #expect(try bench.told() == [.stale(2, nil)])
        #expect(bench.log.count(.lease) == 1)
    }

    @Test mutating func `that finds no room waits for it and is then made`() throws {
        let id = try bench.addedTask()
        bench.log.refusal = .outOfSpace(bytes: 1, preparedBytesLeft: 0)
        bench.lease(id, first)
        #expect(try bench.told().isEmpty)
        #expect(bench.state.awaitsSpace)
        bench.log.refusal = nil
        bench.state.spaceMayBeBack(now: bench.now, log: bench.log)
        #expect(try bench.written().count == 1)
        #expect(try bench.status(id) == .process)
    }

    @Test mutating func `comes after its worker, also where that finds no room at first (P5)`()
        throws
    {
        let id = try bench.addedTask()
        let process = WorkerProcess(pid: 9, startTime: 4, bootID: Bench.bootID)
        bench.log.refusal = .outOfSpace(bytes: 1, preparedBytesLeft: 0)
        for _ in 0..<3 { bench.propose(.worker(id: Bench.worker, process: process)) }
        bench.log.refusal = nil
        bench.lease(id, first)
        #expect(try bench.written().isEmpty, "not before its worker is known")
        bench.state.spaceMayBeBack(now: bench.now, log: bench.log)
        #expect(try bench.written().count == 1)
        #expect(bench.log.count(.worker) == 1)
        try bench.reopen()
        #expect(try bench.snapshot().contains(.worker(id: Bench.worker, process: process)))
    }

    @Test mutating func `of a task whose add rotted is not made up`() throws {
        let id = try bench.addedTask()
        try bench.reopen()
        bench.log.damage(.add)
        bench.lease(id, first)
        #expect(try bench.written() == [.stale(2, nil)])
        #expect(bench.state.counters.unreadable == 1)
    }
}

@Suite
struct `A result` {
    var bench = Bench()

    @Test mutating func `of the current lease ends the task (P2)`() throws {
        let id = try bench.runningTask(first)
        bench.push(id, first)
        let holding = Holding(id: id, lease: first)
        #expect(try bench.synced() == [.finished(holding, .committed, .success, nil)])
        let record = try #require(try bench.record(id))
        #expect(record.status == .success && record.result == [0x31])
        #expect(record.startedAt == Timestamp(nanoseconds: 10) && record.lease == first)
        #expect(record.worker == Bench.worker)
    }

    @Test(arguments: [
        (TaskOutcome.error(failure), TaskStatus.error),
        (.cancel(reason: "enough"), .cancel),
        (.success(result: [], contentType: "x/y"), .success),
    ])
    mutating func `is final as its outcome says`(outcome: TaskOutcome, status: TaskStatus) throws {
        let id = try bench.runningTask(first)
        bench.push(id, first, outcome)
        let record = try #require(try bench.record(id))
        #expect(record.status == status && record.outcome == outcome)
        #expect(record.failures == (status == .error ? 1 : 0))
    }

    @Test mutating func `of the winner is committed again when it is repeated (P2)`() throws {
        let id = try bench.runningTask(first)
        bench.push(id, first)
        let told = try bench.synced()
        bench.push(id, first)
        #expect(try bench.told() == told)
        #expect(bench.log.count(.finish) == 1)
    }

    @Test mutating func `under any other lease is refused and recorded (P2)`() throws {
        let id = try bench.runningTask(first)
        bench.push(id, second, from: Bench.otherWorker)
        let holding = Holding(id: id, lease: second)
        #expect(try bench.told() == [.finished(holding, .stale, .process, nil)])
        #expect(bench.log.count(.stale) == 1)
        bench.push(id, first)
        _ = try bench.synced()
        bench.push(id, second)
        #expect(try bench.told() == [.finished(holding, .stale, .success, nil)])
        #expect(try bench.status(id) == .success)
    }

    @Test mutating func `of a released attempt is refused though the next one runs (P2)`() throws {
        let id = try bench.runningTask(first)
        bench.release(id, first, .notHeld)
        bench.lease(id, second)
        _ = try bench.synced()
        bench.push(id, first)
        #expect(
            try bench.told() == [.finished(Holding(id: id, lease: first), .stale, .process, nil)]
        )
    }

    @Test mutating func `of an unknown task is gone`() throws {
        let id = bench.newID()
        bench.push(id, first)
        #expect(try bench.told() == [.finished(Holding(id: id, lease: first), .gone, nil, nil)])
    }

    @Test mutating func `that wants a retry schedules one and keeps the place (P6)`() throws {
        let id = try bench.runningTask(first)
        let retry = TaskOutcome.retry(failure, afterMilliseconds: 500, maxAttempts: 3)
        bench.push(id, first, retry)
        let holding = Holding(id: id, lease: first)
        #expect(try bench.synced() == [.finished(holding, .committed, .scheduled, nil)])
        bench.push(id, first, retry)
        #expect(try bench.told() == [.finished(holding, .committed, .scheduled, nil)])
        let record = try #require(try bench.record(id))
        #expect(record.failures == 1 && record.sequence == 1)
        #expect(record.notBefore?.nanoseconds == bench.now.wall.nanoseconds + 500_000_000)
    }

    @Test mutating func `that wants a retry is an error where no attempt is left`() throws {
        let retry = TaskOutcome.retry(failure, afterMilliseconds: 0, maxAttempts: 2)
        let id = try bench.runningTask(first)
        bench.push(id, first, retry)
        #expect(try bench.status(id) == .scheduled)
        bench.lease(id, second)
        bench.push(id, second, retry)
        let record = try #require(try bench.record(id))
        #expect(record.status == .error && record.failures == 2 && record.failure == failure)
    }

    @Test mutating func `is held to the limit that its add brought`() throws {
        var task = bench.submission()
        task.maxAttempts = 1
        let id = try bench.runningTask(first, task)
        bench.push(id, first, .retry(failure, afterMilliseconds: 0, maxAttempts: 9))
        #expect(try bench.status(id) == .error)
    }

    @Test mutating func `that finds no room is not answered and may come again`() throws {
        let id = try bench.runningTask(first)
        bench.log.refusal = .outOfSpace(bytes: 1, preparedBytesLeft: 0)
        bench.push(id, first)
        #expect(try bench.told().isEmpty)
        bench.log.refusal = nil
        bench.push(id, first)
        #expect(try bench.status(id) == .success)
    }
}

@Suite
struct `A release` {
    var bench = Bench()

    @Test mutating func `queues the task again at its old sequence (P4, P6)`() throws {
        let id = try bench.runningTask(first)
        bench.release(id, first, .notHeld)
        #expect(try bench.written() == [.released(3, .new, isSuspect: false)])
        let record = try #require(try bench.record(id))
        #expect(record.sequence == 1 && record.deaths == 0 && record.attempt == 1)
    }

    @Test mutating func `of a shared process makes a suspect and counts nothing (P4)`() throws {
        let id = try bench.runningTask(first)
        bench.release(id, first, .death, isShared: true, counts: false)
        #expect(try bench.written() == [.released(3, .new, isSuspect: true)])
        #expect(try bench.record(id)?.deaths == 0)
        guard case .queued(let run)? = try bench.snapshot().first else {
            Issue.record("no queued task")
            return
        }
        #expect(run.isSuspect && run.places == [bench.place(of: id)])
    }

    @Test mutating func `makes the task dead at its last counted death (P4)`() throws {
        let id = try bench.addedTask()
        for counter in UInt32(1)...3 {
            let lease = Lease(incarnation: 7, counter: counter)
            bench.lease(id, lease)
            bench.release(id, lease, .death, counts: true)
            let told = try bench.synced()
            #expect(told.last == .released(3, counter < 3 ? .new : .dead, isSuspect: false))
        }
        #expect(try bench.record(id)?.deaths == 3)
        // what the dead one still pushed comes too late
        bench.push(id, Lease(incarnation: 7, counter: 3))
        #expect(try bench.status(id) == .dead)
        #expect(bench.log.count(.stale) == 1)
    }

    @Test mutating func `is held to the deliveries that the add brought`() throws {
        var task = bench.submission()
        task.maxDeliveries = 1
        let id = try bench.runningTask(first, task)
        bench.release(id, first, .death, counts: true)
        #expect(try bench.status(id) == .dead)
    }

    @Test(arguments: [ReleaseCause.notHeld, .handedBack, .drain, .goneBefore, .silence])
    mutating func `that is no death counts for none (P4)`(cause: ReleaseCause) throws {
        let id = try bench.runningTask(first)
        bench.release(id, first, cause, counts: true)
        #expect(try bench.record(id)?.deaths == 0)
    }

    @Test mutating func `of a lease that no longer holds is told what holds (P5)`() throws {
        let id = try bench.runningTask(first)
        bench.release(id, second)
        #expect(try bench.told() == [.released(3, .process, isSuspect: false)])
        bench.push(id, first)
        _ = try bench.synced()
        bench.release(id, first)
        #expect(try bench.told() == [.released(3, .success, isSuspect: false)])
        bench.release(TaskID(high: 1, low: 1), first)
        #expect(try bench.told() == [.released(3, nil, isSuspect: false)])
        #expect(bench.log.count(.release) == 0)
    }

    @Test mutating func `waits for what was pushed before the death (P4)`() throws {
        let id = try bench.runningTask(first)
        bench.deliver([bench.releaseProposal(id, first, counts: true)])
        #expect(bench.state.hasReleases)
        bench.push(id, first)
        bench.state.decideReleases(now: bench.now, log: bench.log)
        #expect(
            try bench.synced() == [
                .finished(Holding(id: id, lease: first), .committed, .success, nil),
                .released(3, .success, isSuspect: false),
            ]
        )
    }
}
