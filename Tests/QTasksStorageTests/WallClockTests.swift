// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksStorage
import QTasksWire
import Testing

@Suite
struct `A task that is added for a moment of the wall clock` {
    private var bench = Bench()
    private let lease = Lease(incarnation: 7, counter: 1)

    private var moment: Timestamp { Timestamp(nanoseconds: 1_010_000_000_000) }

    private mutating func set(_ wall: Int64) {
        bench.now.wall = Timestamp(nanoseconds: wall)
    }

    private mutating func added() throws -> TaskID {
        var task = bench.submission()
        task.start = .at(moment)
        try bench.add(task)
        #expect(try bench.written() == [.added(1, sequence: 1, leased: false, isDelayed: true)])
        return task.id
    }

    private mutating func leased(_ id: TaskID) throws -> Bool {
        bench.lease(id, lease, number: 7)
        let told = try bench.written()
        guard told != [.early(7, DueTime(wall: moment))] else { return false }
        guard case .leased(7, _, _)? = told.first else {
            Issue.record("neither leased nor early: \(told)")
            return false
        }
        return true
    }

    @Test mutating func `is leased once that clock is set to it, and not a nanosecond earlier`()
        throws
    {
        let id = try added()
        #expect(try !leased(id))
        set(moment.nanoseconds - 1)
        #expect(try !leased(id))
        set(moment.nanoseconds)
        #expect(try leased(id))
        #expect(try bench.status(id) == .process)
    }

    @Test mutating func `waits again when that clock is set back, however long`() throws {
        let id = try added()
        set(moment.nanoseconds + 5)
        set(moment.nanoseconds - 3_600_000_000_000)
        bench.now.monotonic += 3_599_999_999_999
        #expect(try !leased(id))
        set(moment.nanoseconds)
        #expect(try leased(id))
    }

    @Test mutating func `waits for the same moment after a restart, wherever the clocks are then`()
        throws
    {
        _ = try added()
        var settings = Bench.settings()
        settings.bootID = TaskID(high: 8, low: 8)
        let later = Timestamp(nanoseconds: moment.nanoseconds + 77)
        for wall in [Timestamp(nanoseconds: 1), later] {
            var replayed = StorageState(settings: settings, now: Now(wall: wall, monotonic: 9))
            try bench.log.replay(into: &replayed)
            #expect(replayed.tasks.entries[0].due == DueTime(wall: moment))
        }
    }

    @Test mutating func `has its moment in the record, as it was asked for`() throws {
        let id = try added()
        set(5)
        #expect(try bench.record(id)?.notBefore == moment)
    }

    @Test mutating func `is unlike a delay, which no step moves`() throws {
        var task = bench.submission()
        task.start = .after(milliseconds: 10_000)
        try bench.add(task)
        _ = try bench.written()
        let due = DueTime(boot: bench.now.monotonic + 10_000_000_000)
        set(moment.nanoseconds * 2)
        bench.now.monotonic += 9_999_999_999
        bench.lease(task.id, lease, number: 7)
        #expect(try bench.written() == [.early(7, due)])
        set(1)
        bench.now.monotonic += 1
        bench.lease(task.id, lease, number: 8)
        guard case .leased(8, _, _)? = try bench.written().first else {
            Issue.record("a delay is over when its time has passed")
            return
        }
    }
}
