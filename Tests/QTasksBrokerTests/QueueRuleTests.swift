// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire
import Testing
import ZeroMQ

@testable import QTasksBroker

private let one = Session([0, 0, 0, 0, 1])
private let millisecond: UInt64 = 1_000_000

/// What holds a queue's tasks back, and what that does to others.
@Suite
struct `A queue's rules` {
    /// The worker has done these tasks.
    private static func finish(
        _ tasks: [(id: TaskID, lease: Lease)],
        _ worker: WorkerID,
        in bench: inout BrokerBench
    ) throws {
        for task in tasks {
            try bench.finish(Holding(id: task.id, lease: task.lease), worker)
        }
    }

    private static func started(_ bench: inout BrokerBench) throws -> [(id: TaskID, lease: Lease)] {
        // adds first, then the leases on those that had to wait for their verdict
        for _ in 0..<3 { try bench.grantAll() }
        let tasks = try bench.takeTasks().map { (id: $0.id, lease: $0.lease) }
        bench.toWorkers = []
        return tasks
    }

    @Test func `a paused queue starts nothing, holds up no other, and goes on where it was (P6)`()
        throws
    {
        var bench = try BrokerBench()
        let worker = bench.join(session: one)
        try bench.change { $0.setPaused(true) }
        let first = try bench.add()
        let second = try bench.add()
        let other = try bench.add { $0.queue = "other" }
        #expect(try Self.started(&bench).map(\.id) == [other])
        #expect(bench.broker.nextDeadline == nil, "P8")
        try bench.change { $0.setPaused(false) }
        #expect(try Self.started(&bench).map(\.id) == [first, second])
        _ = worker
    }

    @Test func `no more run at once than its concurrency, and the next starts when one ends`()
        throws
    {
        var bench = try BrokerBench()
        let worker = bench.join(session: one)
        try bench.change { $0.setConcurrency(2) }
        var ids: [TaskID] = []
        for _ in 0..<5 { ids.append(try bench.add()) }
        let other = try bench.add { $0.queue = "other" }
        let running = try Self.started(&bench)
        #expect(running.map(\.id) == [ids[0], ids[1], other])
        try Self.finish([running[1]], worker, in: &bench)
        #expect(try Self.started(&bench).map(\.id) == [ids[2]])
        try bench.change { $0.setConcurrency(nil) }
        #expect(try Self.started(&bench).map(\.id) == [ids[3], ids[4]])
    }

    @Test
    func `starts are spaced by its rate, to the nanosecond, and a timer exists only then (P8)`()
        throws
    {
        var bench = try BrokerBench()
        bench.join(session: one)
        try bench.change { $0.setRate(StartRate(100, perMilliseconds: 1000)) }
        #expect(bench.broker.nextDeadline == nil)
        var ids: [TaskID] = []
        for _ in 0..<4 { ids.append(try bench.add()) }
        #expect(try Self.started(&bench).map(\.id) == [ids[0]])
        let due = try #require(bench.broker.nextDeadline)
        #expect(due == bench.now.monotonic + 10 * millisecond)
        bench.pass(10 * millisecond - 1)
        #expect(try Self.started(&bench).isEmpty)
        bench.pass(1)
        #expect(try Self.started(&bench).map(\.id) == [ids[1]])
        // what wasn't used is lost: a burst is what was asked for
        bench.pass(25 * millisecond)
        #expect(try Self.started(&bench).map(\.id) == [ids[2]])
        bench.pass(10 * millisecond)
        #expect(try Self.started(&bench).map(\.id) == [ids[3]])
        #expect(bench.broker.nextDeadline == nil)
    }

    @Test func `a burst starts at once after a pause`() throws {
        var bench = try BrokerBench()
        bench.join(session: one)
        try bench.change { $0.setRate(StartRate(100, perMilliseconds: 1000, burst: 3)) }
        var ids: [TaskID] = []
        for _ in 0..<5 { ids.append(try bench.add()) }
        #expect(try Self.started(&bench).map(\.id) == Array(ids[..<3]))
        bench.pass(10 * millisecond)
        #expect(try Self.started(&bench).map(\.id) == [ids[3]])
    }

    @Test func `a key's tasks wait for each other, and hold up no other key's (P6)`() throws {
        var bench = try BrokerBench()
        let worker = bench.join(session: one)
        try bench.change { $0.setKeyConcurrency(1) }
        let a = try (0..<3).map { _ in try bench.add { $0.key = Array("a".utf8) } }
        let b = try (0..<2).map { _ in try bench.add { $0.key = Array("b".utf8) } }
        let plain = try bench.add()
        let running = try Self.started(&bench)
        #expect(running.map(\.id) == [a[0], b[0], plain])
        try Self.finish([running[0]], worker, in: &bench)
        #expect(try Self.started(&bench).map(\.id) == [a[1]])
        try Self.finish([running[1]], worker, in: &bench)
        #expect(try Self.started(&bench).map(\.id) == [b[1]])
    }

    @Test func `a key's rate holds whatever the names of its tasks`() throws {
        var bench = try BrokerBench()
        bench.join(session: one, names: ["work", "play"])
        try bench.change { $0.setKeyRate(StartRate(1, perMilliseconds: 1000)) }
        let key = Array("a".utf8)
        let first = try bench.add { $0.key = key }
        let second = try bench.add(name: "play") { $0.key = key }
        let other = try bench.add { $0.key = Array("b".utf8) }
        #expect(try Self.started(&bench).map(\.id) == [first, other])
        bench.pass(1000 * millisecond)
        #expect(try Self.started(&bench).map(\.id) == [second])
    }

    @Test func `a key that is gone is remembered as long as its rate says, and no longer (P7)`()
        throws
    {
        var bench = try BrokerBench()
        let worker = bench.join(session: one, window: 1000)
        try bench.change { $0.setKeyRate(StartRate(1, perMilliseconds: 1000)) }
        let first = try bench.add { $0.key = Array("a".utf8) }
        let running = try Self.started(&bench)
        #expect(running.map(\.id) == [first])
        try Self.finish(running, worker, in: &bench)
        let second = try bench.add { $0.key = Array("a".utf8) }
        #expect(try Self.started(&bench).isEmpty)
        bench.pass(1000 * millisecond)
        try Self.finish(try Self.started(&bench), worker, in: &bench)
        _ = second
        for number in 0..<100 {
            bench.pass(1000 * millisecond)
            try bench.add { $0.key = Array("\(number)".utf8) }
            try Self.finish(try Self.started(&bench), worker, in: &bench)
        }
        #expect(bench.broker.lanes.groupCount <= 3)
        for _ in 0..<100 {
            bench.pass(1000 * millisecond)
            try bench.add { $0.key = Array("a".utf8) }
            try Self.finish(try Self.started(&bench), worker, in: &bench)
        }
        #expect(bench.broker.lanes.groupCount <= 3)
        #expect(bench.broker.lanes.coolingCount <= bench.broker.lanes.groupCount)
    }

    @Test func `limits hold across a restart, with what runs and what had started`() throws {
        var bench = try BrokerBench(opened: false)
        let worker = WorkerID()
        let running = BrokerBench.Stored(id: TaskID(), sequence: 1)
        let lease = Lease(incarnation: 1, counter: 1)
        var rules = QueueRules()
        rules.concurrency = 1
        var rated = QueueRules()
        rated.rate = StartRate(1, perMilliseconds: 1000)
        let waiting = BrokerBench.Stored(id: TaskID(), sequence: 2)
        let slow = BrokerBench.Stored(id: TaskID(), sequence: 3, queue: "rated")
        try bench.open(
            incarnation: 2,
            [
                .queue("default", rules), .queue("rated", rated),
                .worker(id: worker, process: BrokerBench.process),
                .running(running, lease: lease, worker: worker),
                .queued(waiting), .queued(slow),
            ]
        )
        bench.join(worker, session: one, running: [Holding(id: running.id, lease: lease)])
        #expect(try Self.started(&bench).isEmpty, "nobody knows when the last one started")
        bench.pass(1000 * millisecond)
        #expect(try Self.started(&bench).map(\.id) == [slow.id])
        try bench.finish(Holding(id: running.id, lease: lease), worker)
        #expect(try Self.started(&bench).map(\.id) == [waiting.id])
    }

    @Test
    func `a full queue refuses adds as overloaded, and takes them again when it has room (P7)`()
        throws
    {
        var bench = try BrokerBench()
        try bench.change { $0.setMaxQueued(2) }
        bench.toClients = []
        for _ in 0..<2 { try bench.add() }
        try bench.grantAll()
        try bench.makeDurable()
        _ = try bench.takeReceipts()
        try bench.add()
        let other = try bench.add { $0.queue = "other" }
        try bench.grantAll()
        try bench.makeDurable()
        let receipts = try bench.takeReceipts()
        guard case .refused(let refusal) = try #require(receipts.first).verdict else {
            Issue.record("\(receipts)")
            return
        }
        #expect(refusal.code == .overloaded && receipts.last?.id == other)
        bench.join(session: one)
        _ = try Self.started(&bench)
        bench.proposals = []
        try bench.add()
        #expect(bench.proposals.count == 1)
    }

    @Test func `with ageing a task is overtaken by so many later ones at most`() throws {
        var bench = try BrokerBench()
        try bench.change { $0.setAgeing(10) }
        let low = try bench.add()
        var high: [TaskID] = []
        for _ in 0..<30 { high.append(try bench.add { $0.priority = 1 }) }
        try bench.grantAll()
        bench.join(session: one, slots: 40, window: 40)
        let order = try Self.started(&bench).map(\.id)
        #expect(order.count == 31)
        let place = try #require(order.firstIndex(of: low))
        #expect((8...10).contains(place), "place \(place)")
        #expect(order.filter { $0 != low } == high)
    }

    @Test func `a session with Storage that breaks in a store's first life gives no fresh burst`()
        throws
    {
        var bench = try BrokerBench()
        bench.join(session: one)
        try bench.change { $0.setRate(StartRate(1, perMilliseconds: 1000)) }
        let first = try bench.add()
        #expect(try Self.started(&bench).map(\.id) == [first])
        var rules = QueueRules()
        rules.rate = StartRate(1, perMilliseconds: 1000)
        let waiting = BrokerBench.Stored(id: TaskID(), sequence: 2)
        try bench.open(incarnation: 1, [.queue("default", rules), .queued(waiting)])
        #expect(try Self.started(&bench).isEmpty)
        bench.pass(1000 * millisecond)
        #expect(try Self.started(&bench).map(\.id) == [waiting.id])
    }

    @Test func `a queue that had rates goes on when its last old key is forgotten for a new one`()
        throws
    {
        var bench = try BrokerBench()
        let worker = bench.join(session: one)
        try bench.change { $0.setKeyRate(StartRate(1, perMilliseconds: 1000)) }
        try bench.add { $0.key = Array("a".utf8) }
        try Self.finish(try Self.started(&bench), worker, in: &bench)
        try bench.change { $0.setKeyRate(nil) }
        bench.pass(2000 * millisecond)
        let next = try bench.add { $0.key = Array("b".utf8) }
        #expect(try Self.started(&bench).map(\.id) == [next])
    }

    @Test func `where one may start it is the first, whichever worker can run it (P6)`() throws {
        var bench = try BrokerBench()
        try bench.change { $0.setPaused(true) }
        bench.join(session: one, names: ["play"])
        bench.join(session: Session([0, 0, 0, 0, 2]), names: ["play", "work"])
        let first = try bench.add(name: "work")
        try bench.add(name: "play")
        try bench.grantAll()
        try bench.change {
            $0.setConcurrency(1)
            $0.setPaused(false)
        }
        #expect(try Self.started(&bench).map(\.id) == [first])
    }

    @Test func `ageing counts among suspects as well`() throws {
        var bench = try BrokerBench()
        var rules = QueueRules()
        rules.ageing = 1
        let low = BrokerBench.Stored(id: TaskID(), sequence: 1, isSuspect: true)
        let high = BrokerBench.Stored(id: TaskID(), sequence: 9, priority: 1, isSuspect: true)
        let items: [BrokerBench.StoredItem] = [.queued(high), .queued(low)]
        try bench.open(incarnation: 2, [.queue("default", rules)] + items)
        bench.join(session: one)
        #expect(try Self.started(&bench).map(\.id) == [low.id])
    }

    @Test func `changes that Storage hasn't answered are asked for again in their order`() throws {
        var bench = try BrokerBench()
        for isPaused in [true, false, true, false, true, false] {
            var message = QueueMessage(queue: "default", change: QueueChange())
            message.change.setPaused(isPaused)
            bench.client(message.encoded(number: 1))
        }
        let asked = bench.takeProposals()
        try bench.open(incarnation: 2, [])
        #expect(bench.proposals == asked)
    }

    @Test func `a suspect of a paused queue keeps no worker free for it (P4)`() throws {
        var bench = try BrokerBench()
        var rules = QueueRules()
        rules.isPaused = true
        let suspect = BrokerBench.Stored(id: TaskID(), sequence: 1, isSuspect: true)
        try bench.open(incarnation: 2, [.queue("default", rules), .queued(suspect)])
        bench.join(session: one)
        let other = try bench.add { $0.queue = "other" }
        let next = try bench.add { $0.queue = "other" }
        #expect(try Self.started(&bench).map(\.id) == [other, next])
        #expect(bench.broker.suspectHolder == nil)
    }
}

/// The order over all lanes, compared with a look at each of them.
@Suite
struct `All lanes together` {
    private struct Model {
        var tasks: [(task: QueuedTask, lane: Lanes.Number, key: Lane.Key)] = []
        var rules: [String: QueueRules] = [:]
        var running: [Lane.Key: Int] = [:]

        func isOpen(_ key: Lane.Key) -> Bool {
            let rules = rules[key.queue] ?? QueueRules()
            if rules.isPaused { return false }
            let ofQueue = running.filter { $0.key.queue == key.queue }
            if let most = rules.concurrency, ofQueue.values.reduce(0, +) >= most { return false }
            guard !key.key.isEmpty, let most = rules.keyConcurrency else { return true }
            return ofQueue.filter { $0.key.key == key.key }.values.reduce(0, +) < most
        }

        func best(_ names: Set<String>) -> QueuedTask? {
            tasks.filter { names.contains($0.key.name) && isOpen($0.key) }.map(\.task).min()
        }
    }

    @Test(arguments: 1...6)
    func `the best one is the one that a look at each would find (P6)`(seed: UInt64) throws {
        var random = Seeded(state: seed)
        var lanes = Lanes()
        var model = Model()
        let kinds: [Set<String>] = [["a"], ["a", "b"], ["b", "c"]]
        let numbers = kinds.map { lanes.join($0) }
        var sequence: UInt64 = 0
        for _ in 0..<800 {
            switch Int.random(in: 0..<10, using: &random) {
            case 0..<5:
                sequence += 1
                let key = Lane.Key(
                    queue: ["x", "y"].randomElement(using: &random) ?? "x",
                    name: ["a", "b", "c"].randomElement(using: &random) ?? "a",
                    key: Bool.random(using: &random) ? [] : [.random(in: 0..<3, using: &random)]
                )
                let task = QueuedTask(
                    QueuedPlace(sequence: sequence, handle: 0),
                    priority: .random(in: 0...2, using: &random)
                )
                let lane = lanes.number(for: key)
                lanes.push(task, isSuspect: false, to: lane)
                model.tasks.append((task, lane, key))
            case 5..<7:
                let kind = Int.random(in: 0..<3, using: &random)
                guard let lane = lanes.best(for: numbers[kind]) else { continue }
                let popped = lanes.popHead(of: lane, isSuspect: false)
                let task = try #require(popped)
                let place = try #require(model.tasks.firstIndex { $0.task == task })
                lanes.beginLease(in: lane, isStart: true)
                model.running[model.tasks[place].key, default: 0] += 1
                model.tasks.remove(at: place)
            case 7..<9:
                guard
                    let key = model.running.keys.filter({ model.running[$0] ?? 0 > 0 })
                        .min(by: { "\($0)" < "\($1)" })
                else { continue }
                model.running[key, default: 0] -= 1
                let lane = lanes.number(for: key)
                lanes.endLease(in: lane)
                _ = lanes.closeIfUnused(lane)
            default:
                let queue = ["x", "y"].randomElement(using: &random) ?? "x"
                var rules = QueueRules()
                rules.isPaused = Int.random(in: 0..<4, using: &random) == 0
                rules.concurrency =
                    Bool.random(using: &random) ? .random(in: 1...8, using: &random) : nil
                rules.keyConcurrency = Bool.random(using: &random) ? 2 : nil
                lanes.set(rules, of: queue)
                model.rules[queue] = rules
            }
            for (kind, names) in zip(numbers, kinds) {
                let head = lanes.best(for: kind).flatMap { lanes[$0].queued.first }
                #expect(head == model.best(names))
            }
        }
    }

    private struct Seeded: RandomNumberGenerator {
        var state: UInt64

        mutating func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return (state ^ state >> 29) &* 0x9E37_79B9_7F4A_7C15
        }
    }
}
