// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire
import Testing

@testable import QTasksStorage

@Suite
struct `The table of workers` {
    private static func id(_ number: Int) -> WorkerID { WorkerID(high: 5, low: UInt64(number)) }

    private static let process = WorkerProcess(pid: 5, startTime: 6, bootID: Bench.bootID)

    @Test func `forgets a worker that has ended once no task speaks of it`() {
        var table = WorkerTable()
        let number = table.retain(Self.id(1))
        table.set(Self.process, of: Self.id(1))
        #expect(table.retain(Self.id(1)) == number)
        table.hasEnded(number)
        table.release(number)
        #expect(table[number].id == Self.id(1), "one still does")
        table.release(number)
        #expect(table.count == 0 && table.process(of: Self.id(1)) == nil)
        #expect(table.retain(Self.id(2)) == number, "the number is another's now")
        #expect(table[number].id == Self.id(2) && table[number].process == nil)
    }

    @Test func `keeps a worker that may live, and what is known of it (P5)`() {
        var table = WorkerTable()
        table.set(Self.process, of: Self.id(1))
        let number = table.retain(Self.id(1))
        table.release(number)
        #expect(table.process(of: Self.id(1)) == Self.process)
        #expect(table.retain(Self.id(1)) == number)
    }

    @Test func `grows no further however many workers come and go`() {
        var table = WorkerTable()
        let busy = table.retain(Self.id(0))
        for number in 1...2 * WorkerTable.idleMax {
            table.set(Self.process, of: Self.id(number))
            // the one that is idle for longest goes; this one says hello again and again
            if number.isMultiple(of: 1000) { table.set(Self.process, of: Self.id(1)) }
        }
        #expect(table.endNumber <= WorkerTable.idleMax + 2)
        #expect(table[busy].id == Self.id(0))
        #expect(table.process(of: Self.id(1)) != nil && table.process(of: Self.id(2)) == nil)
    }
}

@Suite
struct `A task that is removed` {
    @Test func `leaves neither a count nor a worker behind`() throws {
        var bench = Bench()
        let lease = Lease(incarnation: 7, counter: 1)
        let id = try bench.runningTask(lease)
        let kept = try bench.addedTask()
        bench.propose(.watch(id: id))
        bench.release(id, lease, .death, counts: true)
        _ = try bench.synced()
        #expect(bench.state.tasks.workers.count == 1)
        let number = try #require(bench.state.tasks.index.number(of: id))
        bench.state.tasks.remove(number)
        #expect(bench.state.tasks.workers.count == 0)
        #expect(bench.state.tasks.index.number(of: id) == nil)
        #expect(try bench.status(kept) == .new)
        bench.propose(.count(number: 5))
        guard case .counts(5, let lanes)? = try bench.told().last else {
            Issue.record("no counts")
            return
        }
        #expect(lanes.map { $0.byStatus.reduce(0, +) } == [1])
        // nobody is left that is watched
        bench.state.tasks.unwatchAll()
    }

    @Test func `is leased no more, nor is the task that got its number`() throws {
        var bench = Bench()
        let old = try bench.addedTask()
        let place = bench.place(of: old)
        bench.state.tasks.remove(place.handle)
        let lease = Lease(incarnation: 7, counter: 1)
        bench.lease(place, lease)
        #expect(try bench.told() == [.stale(2, nil)])
        let new = try bench.addedTask()
        #expect(bench.place(of: new).handle == place.handle)
        bench.lease(place, lease)
        #expect(try bench.told() == [.stale(2, nil)])
        #expect(try bench.status(new) == .new)
    }
}
