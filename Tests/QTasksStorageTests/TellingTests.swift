// Part of QTasks. License: see LICENSE.
//
// Nothing is told before it is as durable as it has to be.

import AppendLog
import QTasksModel
import QTasksStorage
import QTasksWire
import Testing

private let first = Lease(incarnation: 7, counter: 1)

@Suite
struct `The order of durability` {
    var bench = Bench()

    @Test mutating func `an add is told once written, and its mark once durable (P1)`() throws {
        try bench.add(bench.submission(), lease: first)
        #expect(try bench.told().isEmpty)
        #expect(try bench.written().count == 1)
        #expect(bench.marks == (2, 0))
        #expect(try bench.synced().isEmpty)
        #expect(bench.marks == (2, 2))
    }

    @Test mutating func `a repeated add is told no earlier than the first (P1)`() throws {
        let task = bench.submission()
        try bench.add(task)
        try bench.add(task, number: 2)
        #expect(try bench.told().isEmpty)
        #expect(try bench.written().count == 2)
    }

    @Test mutating func `a lease is told once written, a suspect's once durable`() throws {
        let (plain, suspect) = (try bench.addedTask(), try bench.addedTask())
        bench.lease(plain, first, number: 5)
        bench.lease(suspect, Lease(incarnation: 7, counter: 2), number: 6, synced: true)
        #expect(try bench.told().isEmpty)
        #expect(try bench.written().count == 1)
        #expect(try bench.synced().count == 1)
    }

    @Test mutating func `a result is told once durable, also when it is repeated (P2)`() throws {
        let id = try bench.runningTask(first)
        bench.push(id, first)
        bench.push(id, first)
        #expect(try bench.written().isEmpty)
        #expect(try bench.synced().count == 2)
    }

    @Test mutating func `what was asked before an end tells of it no earlier than it may (P2)`()
        throws
    {
        let id = try bench.addedTask()
        bench.lease(id, first)
        bench.propose(.read(number: 7, id: id, isWhole: false))
        bench.push(id, first)
        let told = try bench.written()
        #expect(!told.contains { if case .record = $0 { true } else { false } })
        guard case .record(7, let record?) = try bench.synced().last else {
            Issue.record("not told")
            return
        }
        #expect(record.status == .success)
    }

    @Test mutating func `a result is told once written where its task asked for no more`() throws {
        var task = bench.submission()
        task.durability = .written
        let id = try bench.runningTask(first, task)
        bench.push(id, first)
        #expect(try bench.told().isEmpty)
        #expect(try bench.written().count == 1)
    }

    @Test mutating func `the system's durability holds where the add says nothing`() throws {
        var config = QueueConfig()
        config.durability = .written
        bench = Bench(config)
        let id = try bench.runningTask(first)
        _ = bench.state.takeSyncWish()
        bench.push(id, first)
        let wantsSync = bench.state.takeSyncWish()
        #expect(!wantsSync)
        #expect(try bench.written().count == 1)
    }

    @Test mutating func `a wait for a task that has ended is answered once durable (P2)`() throws {
        let id = try bench.runningTask(first)
        bench.push(id, first)
        bench.propose(.watch(id: id))
        bench.propose(.read(number: 8, id: id, isWhole: false))
        #expect(try bench.written().isEmpty)
        let told = try bench.synced()
        #expect(told.count == 3)
        guard case .final(id, let record) = told[1] else {
            Issue.record("\(told)")
            return
        }
        #expect(record?.status == .success)
    }

    @Test mutating func `a lost lease of an untold result is told after the result`() throws {
        let id = try bench.runningTask(first)
        bench.push(
            id,
            first,
            .retry(.init(type: "E", message: ""), afterMilliseconds: 0, maxAttempts: 2)
        )
        bench.release(id, first)
        #expect(try bench.written().isEmpty)
        let told = try bench.synced()
        #expect(told.last == .released(3, .scheduled, isSuspect: false))
        #expect(told.count == 2)
    }

    @Test mutating func `watermarks go out alone where there is nothing else`() throws {
        _ = try bench.addedTask()
        #expect(try bench.synced().isEmpty)
        #expect(bench.marks.durable == 1)
        let further = bench.state.flush()
        #expect(further.isEmpty)
    }
}

@Suite
struct `Waiting for a task's end` {
    var bench = Bench()

    @Test mutating func `brings the record with the result's word`() throws {
        let task = bench.submission()
        try bench.add(task, isWatched: true, lease: first)
        _ = try bench.synced()
        bench.push(task.id, first)
        guard case .finished(_, .committed, .success, let record)? = try bench.synced().first else {
            Issue.record("no result")
            return
        }
        #expect(record?.result == [0x31] && record?.submission == task)
        bench.push(task.id, first)
        let holding = Holding(id: task.id, lease: first)
        #expect(try bench.told() == [.finished(holding, .committed, .success, nil)])
    }

    @Test mutating func `goes on over retries`() throws {
        let id = try bench.runningTask(first)
        bench.propose(.watch(id: id))
        let failure = TaskFailure(type: "E", message: "")
        bench.push(id, first, .retry(failure, afterMilliseconds: 0, maxAttempts: 2))
        let holding = Holding(id: id, lease: first)
        #expect(try bench.synced() == [.finished(holding, .committed, .scheduled, nil)])
        let second = Lease(incarnation: 7, counter: 2)
        bench.lease(id, second)
        bench.push(id, second)
        guard case .finished(_, _, .success, let record)? = try bench.synced().last else {
            Issue.record("no result")
            return
        }
        #expect(record?.attempt == 2)
    }

    @Test mutating func `of one that its workers died of is told too`() throws {
        var task = bench.submission()
        task.maxDeliveries = 1
        let id = try bench.runningTask(first, task)
        bench.propose(.watch(id: id))
        bench.release(id, first, .death, counts: true)
        #expect(try bench.written() == [.released(3, .dead, isSuspect: false)])
        guard case .final(id, let record)? = try bench.synced().first else {
            Issue.record("not told")
            return
        }
        #expect(record?.status == .dead)
    }

    @Test mutating func `of one that isn't there is answered at once`() throws {
        let id = bench.newID()
        bench.propose(.watch(id: id), .read(number: 5, id: id, isWhole: false))
        #expect(try bench.told() == [.final(id, nil), .record(5, nil)])
    }
}

@Suite
struct `A log that fails` {
    var bench = Bench()

    @Test mutating func `is told to the Broker, and nothing is decided from then on (P9)`() throws {
        let id = try bench.runningTask(first)
        bench.log.refusal = .system(call: "pwrite", path: "/x", errno: 5)
        bench.push(id, first)
        let messages = bench.state.flush().toBroker
        #expect(messages.count == 1 && messages[0][3] == Command.storageFailed.rawValue)
        #expect(bench.state.failure != nil)
        bench.log.refusal = nil
        bench.push(id, first)
        try bench.add(bench.submission())
        #expect(try bench.synced().isEmpty)
        #expect(bench.log.count(.finish) == 0 && bench.log.count(.add) == 1)
    }
}
