// Part of QTasks. License: see LICENSE.
//
// `expires`: a task that nobody leases in time ends, whoever is there to ask for it.

import AppendLog
import QTasksModel
import QTasksWire
import Testing

@testable import QTasksStorage

private let first = Lease(incarnation: 7, counter: 1)
private let second = Lease(incarnation: 7, counter: 2)

@Suite
struct `A task that nobody leases in time` {
    var bench = Bench()

    private mutating func task(in seconds: Int64 = 10) -> TaskSubmission {
        var task = bench.submission()
        let wall = bench.now.wall.nanoseconds + seconds * 1_000_000_000
        task.expires = Timestamp(nanoseconds: wall)
        return task
    }

    private mutating func pass(_ seconds: Int64) {
        let wall = bench.now.wall.nanoseconds + seconds * 1_000_000_000
        bench.now.wall = Timestamp(nanoseconds: wall)
        bench.now.monotonic += UInt64(max(0, seconds)) * 1_000_000_000
    }

    /// A step of the keeper, as far as deadlines go.
    private mutating func keep() {
        _ = bench.state.endUnleased(atMost: 64, now: bench.now, log: bench.log)
    }

    @Test mutating func `ends as cancel, and the Broker takes it out of its line`() throws {
        let id = try bench.addedTask(task())
        let place = bench.place(of: id)
        pass(9)
        keep()
        #expect(try bench.status(id) == .new)
        pass(1)
        keep()
        #expect(try bench.written() == [], "it is told once it is durable")
        guard case .changed(0, .withdrawn(let placement, .none))? = try bench.synced().first else {
            Issue.record("the Broker isn't told")
            return
        }
        #expect(placement.place == place)
        let record = try #require(try bench.record(id))
        #expect(record.status == .cancel && record.outcome == .cancel(reason: "expired"))
        let deadline = bench.state.nextLeaseDeadline
        #expect(deadline == nil, "P8")
    }

    @Test mutating func `is told to whoever waits for it`() throws {
        let task = task()
        try bench.add(task, isWatched: true)
        _ = try bench.synced()
        pass(10)
        keep()
        guard case .final(task.id, let record)? = try bench.synced().last else {
            Issue.record("nobody is told")
            return
        }
        #expect(record?.outcome == .cancel(reason: "expired"))
    }

    @Test mutating func `ends while it waits for a later time`() throws {
        var task = task()
        task.start = .after(milliseconds: 3_600_000)
        let id = try bench.addedTask(task)
        let due = DueTime(boot: bench.now.monotonic + 3_600_000_000_000)
        pass(10)
        keep()
        guard case .changed(0, .withdrawn(_, due))? = try bench.synced().first else {
            Issue.record("the Broker isn't told")
            return
        }
        #expect(try bench.status(id) == .cancel)
    }

    @Test mutating func `is not leased once its time is over, also before its turn has come (P2)`()
        throws
    {
        let earlier = try bench.addedTask(task(in: 9))
        let id = try bench.addedTask(task())
        let place = bench.place(of: id)
        pass(10)
        bench.lease(place, first, number: 4)
        // the Broker hears first that the task is withdrawn, then that the lease doesn't hold
        let told = try bench.synced()
        #expect(told.count == 2)
        guard case .changed(0, .withdrawn(let placement, .none))? = told.first else {
            Issue.record("\(told)")
            return
        }
        #expect(placement.place == place && told.last == .stale(4, .cancel))
        #expect(try bench.status(earlier) == .new)
        keep()
        #expect(try bench.status(earlier) == .cancel)
    }

    @Test mutating func `is not leased with its add where its time is over then`() throws {
        let task = task(in: -1)
        try bench.add(task, lease: first)
        #expect(try bench.synced() == [.added(1, sequence: 1, leased: false, isDelayed: false)])
        keep()
        #expect(try bench.status(task.id) == .cancel)
    }

    @Test mutating func `is no task that was leased once, whatever came of that`() throws {
        let running = try bench.runningTask(first, task())
        let released = try bench.runningTask(second, task())
        bench.release(released, second)
        let third = Lease(incarnation: 7, counter: 3)
        let retrying = try bench.runningTask(third, task())
        let failure = TaskFailure(type: "E", message: "no")
        bench.push(retrying, third, .retry(failure, afterMilliseconds: 60_000, maxAttempts: 3))
        pass(100)
        keep()
        #expect(try bench.status(running) == .process)
        #expect(try bench.status(released) == .new)
        #expect(try bench.status(retrying) == .scheduled)
        let deadline = bench.state.nextLeaseDeadline
        #expect(deadline == nil, "P8")
    }

    @Test mutating func `may be queued again, and then has time`() throws {
        let id = try bench.addedTask(task())
        pass(10)
        keep()
        bench.requeue(id)
        _ = try bench.synced()
        pass(10)
        keep()
        #expect(try bench.status(id) == .new)
        bench.lease(id, first)
        #expect(try bench.status(id) == .process)
        try bench.reopen()
        keep()
        #expect(try bench.status(id) == .process)
    }

    @Test mutating func `is reckoned by the wall clock as it is`() throws {
        let id = try bench.addedTask(task())
        let moment = Timestamp(nanoseconds: bench.now.wall.nanoseconds + 10_000_000_000)
        let deadline = bench.state.nextLeaseDeadline
        #expect(deadline == moment)
        bench.now.wall = moment
        keep()
        #expect(try bench.status(id) == .cancel)
    }

    @Test mutating func `ends after a restart as it would have without`() throws {
        let id = try bench.addedTask(task())
        let leased = try bench.runningTask(first, task())
        try bench.reopen()
        pass(10)
        keep()
        #expect(try bench.status(id) == .cancel)
        #expect(try bench.status(leased) == .process)
        try bench.reopen()
        #expect(try bench.status(id) == .cancel)
        #expect(try bench.snapshot().count == 2, "the running one, and the end")
    }

    @Test mutating func `is one of many, which end a few at a time, the earliest first`() throws {
        var ids: [TaskID] = []
        for seconds: Int64 in [5, 3, 9, 1, 7] { ids.append(try bench.addedTask(task(in: seconds))) }
        pass(10)
        let first = bench.state.endUnleased(atMost: 2, now: bench.now, log: bench.log)
        #expect(first == false)
        #expect(try bench.status(ids[3]) == .cancel)
        #expect(try bench.status(ids[1]) == .cancel)
        #expect(try bench.status(ids[0]) == .new)
        let rest = bench.state.endUnleased(atMost: 9, now: bench.now, log: bench.log)
        #expect(rest == true)
        for id in ids { #expect(try bench.status(id) == .cancel) }
    }

    @Test mutating func `leaves no trace of those that were leased before`() throws {
        for number in 0..<2000 {
            _ = try bench.runningTask(Lease(incarnation: 7, counter: UInt32(number + 1)), task())
        }
        #expect(bench.state.tasks.deadlines.count < 8)
    }
}

@Suite
struct `Storage's timer for tasks that nobody leases` {
    private func add(_ task: TaskSubmission, to house: House) throws {
        var writer = WireWriter()
        try task.write(to: &writer)
        writer.bytes.withUnsafeBytes {
            house.propose(
                .add(
                    number: 1,
                    isWatched: false,
                    lease: .none,
                    worker: Bench.worker,
                    envelope: $0
                )
            )
        }
    }

    @Test func `is set to the next of them, without slack, and to nothing after`() throws {
        let house = try House()
        #expect(house.nextDeadline == nil)
        var task = TaskSubmission(name: "a", arguments: [])
        task.expires = Timestamp(nanoseconds: house.now.wall.nanoseconds + 10_000_000_000)
        try add(task, to: house)
        try house.settle()
        #expect(house.nextDeadline == house.now.monotonic + 10_000_000_000)
        house.pass(10)
        try house.settle()
        let index = house.state.tasks.index
        #expect(index.numbers.allSatisfy { index[$0].status == .cancel } && index.count == 1)
        let retention = try #require(house.nextDeadline)
        #expect(retention > house.now.monotonic + 500_000_000_000, "the finished task's retention")
    }

    @Test(arguments: [true, false])
    func `goes on after a restart, with a checkpoint and without`(withCheckpoint: Bool) throws {
        var plan = KeptStore.Plan()
        plan.keeping.checkpointBytes = 1 << 10
        let store = KeptStore(seed: 4, plan)
        try store.open()
        var ids: [TaskID] = []
        for number in 1...40 {
            var task = TaskSubmission(
                id: TaskID(high: 7, low: UInt64(number)),
                name: "a",
                arguments: []
            )
            task.expires = Timestamp(
                nanoseconds: store.now.wall.nanoseconds + Int64(number) * 1_000_000_000
            )
            try store.add(task)
            ids.append(task.id)
        }
        try store.settle()
        if !withCheckpoint {
            for path in try KeptStore.checkpoints(store.disk) { try store.disk.remove(path) }
        }
        store.kill()
        try store.open()
        #expect(withCheckpoint == (store.restored > 0))
        store.pass(20_000_000_000)
        try store.settle()
        let ended = ids.filter { id in
            store.state.tasks.index.number(of: id).map {
                store.state.tasks.index[$0].status == .cancel
            } ?? false
        }
        #expect(ended == Array(ids.prefix(20)))
        try store.compareLive()
    }
}
