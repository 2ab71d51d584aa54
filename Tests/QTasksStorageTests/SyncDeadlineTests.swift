// Part of QTasks. License: see LICENSE.
//
// When what was told, or may wait for company, has to be durable.

import QTasksModel
import QTasksStorage
import QTasksWire
import Testing

private let first = Lease(incarnation: 7, counter: 1)
private let millisecond: UInt64 = 1_000_000

@Suite
struct `The time by which a sync is due` {
    var bench = Bench()

    /// A task that is synced so many milliseconds later at the latest.
    private mutating func task(interval milliseconds: UInt32) -> TaskSubmission {
        var task = bench.submission()
        task.durability = .interval(milliseconds: milliseconds)
        return task
    }

    private mutating func wantsSync() -> Bool {
        bench.state.takeSyncWish(now: bench.now.monotonic)
    }

    private mutating func pass(_ milliseconds: UInt64) {
        bench.now.monotonic += milliseconds * millisecond
        bench.now.wall = Timestamp(
            nanoseconds: bench.now.wall.nanoseconds + Int64(milliseconds * millisecond)
        )
    }

    private var wait: UInt64? {
        bench.state.syncDeadline.map { ($0 - bench.now.monotonic) / millisecond }
    }

    @Test mutating func `an add whose client waits for its end has company within 2 ms`() throws {
        try bench.add(bench.submission(), isWatched: true)
        #expect(wait == 2)
        #expect(!wantsSync())
        pass(1)
        try bench.add(bench.submission(), isWatched: true)
        #expect(wait == 1, "the second doesn't put the first off")
        #expect(!wantsSync())
        pass(1)
        #expect(wantsSync())
        #expect(wait == nil && !wantsSync())
    }

    @Test mutating func `such an add goes with the sync of its own result`() throws {
        let task = bench.submission()
        try bench.add(task, isWatched: true, lease: first)
        bench.push(task.id, first)
        #expect(wantsSync())
        #expect(wait == nil)
    }

    @Test mutating func `an add that nobody waits with is synced at once`() throws {
        try bench.add(bench.submission())
        #expect(wait == nil)
        #expect(wantsSync())
    }

    @Test mutating func `an add with an interval is told once written, and synced by its end (P1)`()
        throws
    {
        try bench.add(task(interval: 50))
        #expect(try bench.written().count == 1)
        #expect(wait == 50)
        pass(49)
        #expect(!wantsSync())
        pass(1)
        #expect(wantsSync())
    }

    @Test mutating func `a result is told and synced by the interval that its add asked for (P2)`()
        throws
    {
        var config = QueueConfig()
        config.durability = .interval(milliseconds: 5000)
        bench = Bench(config)
        let id = try bench.runningTask(first, task(interval: 50))
        #expect(wait == nil, "all of it is durable")
        bench.push(id, first)
        #expect(try bench.written().count == 1)
        #expect(wait == 50)
    }

    @Test mutating func `the system's interval holds where the add says nothing`() throws {
        var config = QueueConfig()
        config.durability = .interval(milliseconds: 30)
        bench = Bench(config)
        let id = try bench.runningTask(first)
        bench.push(id, first)
        #expect(wait == 30)
    }

    @Test mutating func `the end of a task that its workers died of has the interval too`() throws {
        var poison = task(interval: 40)
        poison.maxDeliveries = 1
        let id = try bench.runningTask(first, poison)
        bench.propose(.watch(id: id))
        bench.release(id, first, counts: true)
        #expect(try bench.written().count == 2)
        #expect(wait == 40)
    }

    @Test mutating func `the earliest of several counts, and one sync serves all`() throws {
        try bench.add(task(interval: 1000))
        #expect(wait == 1000)
        try bench.add(task(interval: 20))
        #expect(wait == 20)
        try bench.add(task(interval: 500))
        #expect(wait == 20)
        try bench.add(bench.submission())
        #expect(wantsSync())
        #expect(wait == nil)
    }

    @Test mutating func `none is due any more once all is durable (P8)`() throws {
        try bench.add(task(interval: 1000))
        _ = try bench.written()
        #expect(wait == 1000)
        _ = try bench.synced()
        #expect(wait == nil)
    }

    @Test mutating func `what suffices as written is never due`() throws {
        var task = bench.submission()
        task.durability = .written
        let id = try bench.runningTask(first, task)
        bench.push(id, first)
        _ = try bench.written()
        #expect(wait == nil && !wantsSync())
    }

    @Test mutating func `an interval outlives a restart of Storage`() throws {
        var task = task(interval: 70)
        task.start = .after(milliseconds: 1)
        let id = try bench.addedTask(task)
        try bench.reopen()
        pass(2)
        bench.lease(id, first)
        _ = try bench.synced()
        #expect(try bench.record(id)?.submission == task)
        bench.push(id, first)
        #expect(wait == 70)
    }
}
