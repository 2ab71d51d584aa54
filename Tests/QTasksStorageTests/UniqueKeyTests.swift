// Part of QTasks. License: see LICENSE.
//
// Unique keys: who holds one, for how long, and what whoever adds another task is told.

import AppendLog
import QTasksModel
import QTasksWire
import Testing

@testable import QTasksStorage

private let first = Lease(incarnation: 7, counter: 1)
private let second = Lease(incarnation: 7, counter: 2)

@Suite
struct `A unique key` {
    var bench = Bench()

    private mutating func task(_ unique: UniqueKey, _ name: String = "a.task") -> TaskSubmission {
        var task = bench.submission(name)
        task.unique = unique
        return task
    }

    /// Whether one more task with this key is added.
    private mutating func isFree(_ unique: UniqueKey) throws -> Bool {
        let probe = task(unique)
        try bench.add(probe)
        _ = try bench.synced()
        return bench.state.tasks.index.number(of: probe.id) != nil
    }

    @Test(arguments: [
        UniqueKey.whileQueued("k"), .whileUnfinished("k"), .window("k", .seconds(60)),
    ])
    mutating func `keeps a second task from being added, and tells the first one's ID (P3)`(
        unique: UniqueKey
    ) throws {
        let holder = task(unique)
        try bench.add(holder)
        _ = try bench.synced()
        try bench.add(task(unique), number: 9)
        #expect(try bench.told() == [.same(9, holder.id, sequence: 1, isSynced: true)])
        #expect(bench.state.tasks.index.count == 1)
        #expect(bench.log.count(.add) == 1)
    }

    @Test mutating func `is told no earlier than the first add could be (P1)`() throws {
        let holder = task(.whileQueued("k"))
        try bench.add(holder)
        var repetition = task(.whileQueued("k"))
        repetition.durability = .written
        try bench.add(repetition, number: 9)
        #expect(try bench.told() == [])
        let told = try bench.written()
        // the Broker waits until that record is durable
        #expect(told.contains(.same(9, holder.id, sequence: 1, isSynced: true)))
        #expect(bench.marks.durable == 0)
    }

    @Test mutating func `of a task told once written is synced for a repeat that asks for it`()
        throws
    {
        var holder = task(.whileQueued("k"))
        holder.durability = .written
        try bench.add(holder)
        _ = try bench.written()
        let before = bench.state.takeSyncWish()
        try bench.add(task(.whileQueued("k")), number: 9)
        let after = bench.state.takeSyncWish()
        #expect(!before && after)
        #expect(try bench.told() == [.same(9, holder.id, sequence: 1, isSynced: false)])
    }

    @Test mutating func `is another one under another name, or with other bytes`() throws {
        try bench.add(task(.whileUnfinished("k")))
        try bench.add(task(.whileUnfinished("k"), "b.task"))
        try bench.add(task(.whileUnfinished("k2")))
        // what stands before the key can't be taken for a part of it
        try bench.add(task(.whileUnfinished("kk"), "a.tas"))
        #expect(bench.state.tasks.index.count == 4)
    }

    @Test mutating func `leaves the same add what it is, a repeat of itself`() throws {
        let holder = task(.whileUnfinished("k"))
        try bench.add(holder)
        _ = try bench.synced()
        try bench.add(holder, number: 9)
        #expect(try bench.told() == [.exists(9, sequence: 1, .new)])
    }

    @Test mutating func `while queued is free once its task has started, and stays so`() throws {
        let id = try bench.runningTask(first, task(.whileQueued("k")))
        bench.release(id, first, counts: true)
        #expect(try bench.status(id) == .new)
        #expect(try isFree(.whileQueued("k")) == true)
        #expect(try isFree(.whileQueued("k")) == false)
    }

    @Test mutating func `while queued is held by a task that waits for its time`() throws {
        var delayed = task(.whileQueued("k"))
        delayed.start = .after(milliseconds: 1000)
        try bench.add(delayed)
        #expect(try isFree(.whileQueued("k")) == false)
    }

    @Test mutating func `while queued is free for an add that is leased with its add`() throws {
        try bench.add(task(.whileQueued("k")), lease: first)
        #expect(try isFree(.whileQueued("k")) == true)
    }

    @Test mutating func `while unfinished is free once its task has ended`() throws {
        let id = try bench.runningTask(first, task(.whileUnfinished("k")))
        #expect(try isFree(.whileUnfinished("k")) == false)
        let failure = TaskFailure(type: "E", message: "no")
        bench.push(id, first, .retry(failure, afterMilliseconds: 0, maxAttempts: 3))
        #expect(try isFree(.whileUnfinished("k")) == false)
        bench.lease(id, second)
        bench.push(id, second)
        #expect(try isFree(.whileUnfinished("k")) == true)
    }

    @Test(arguments: [UniqueKey.whileQueued("k"), .whileUnfinished("k")])
    mutating func `is free once its task was cancelled`(unique: UniqueKey) throws {
        let id = try bench.addedTask(task(unique))
        bench.cancel(id)
        #expect(try isFree(unique) == true)
    }

    @Test mutating func `with a window is held until that ends, whatever becomes of its task`()
        throws
    {
        let unique = UniqueKey.window("k", .seconds(60))
        let id = try bench.runningTask(first, task(unique))
        bench.push(id, first)
        _ = try bench.synced()
        bench.now.wall = Timestamp(nanoseconds: bench.now.wall.nanoseconds + 59_900_000_000)
        #expect(try isFree(unique) == false)
        bench.now.wall = Timestamp(nanoseconds: bench.now.wall.nanoseconds + 1_100_000_000)
        #expect(try isFree(unique) == true)
        // a clock that is set back opens no window again
        bench.now.wall = Timestamp(nanoseconds: bench.now.wall.nanoseconds - 30_000_000_000)
        #expect(try isFree(unique) == false)
        #expect(bench.state.tasks.index.count == 2)
    }

    // MARK: Requeue

    @Test(arguments: [UniqueKey.whileQueued("k"), .whileUnfinished("k")])
    mutating func `is taken again by a task that is queued again`(unique: UniqueKey) throws {
        let id = try bench.addedTask(task(unique))
        bench.cancel(id)
        bench.requeue(id)
        _ = try bench.synced()
        try bench.add(task(unique), number: 9)
        let told = try bench.synced()
        // as durable as that it was queued again
        #expect(told.contains(.same(9, id, sequence: 3, isSynced: true)), "\(told)")
        try bench.reopen()
        #expect(try isFree(unique) == false)
    }

    @Test mutating func `that another task holds keeps a task from being queued again`() throws {
        let id = try bench.addedTask(task(.whileUnfinished("k")))
        bench.cancel(id)
        let holder = try bench.addedTask(task(.whileUnfinished("k")))
        bench.requeue(id)
        guard case .changed(6, .refused(let refusal)) = try #require(try bench.synced().last) else {
            Issue.record("it was queued again")
            return
        }
        #expect(refusal.code == .conflict && refusal.message.contains("\(holder)"))
        #expect(try bench.status(id) == .cancel)
        bench.cancel(holder)
        bench.requeue(id)
        #expect(try bench.status(id) == .new)
        bench.requeue(holder)
        #expect(try bench.status(holder) == .cancel)
    }

    @Test mutating func `with a window doesn't keep its task from being queued again`() throws {
        let unique = UniqueKey.window("k", .seconds(60))
        let id = try bench.addedTask(task(unique))
        bench.cancel(id)
        bench.now.wall = Timestamp(nanoseconds: bench.now.wall.nanoseconds + 70_000_000_000)
        let holder = try bench.addedTask(task(unique))
        bench.requeue(id)
        #expect(try bench.status(id) == .new)
        #expect(try bench.status(holder) == .new)
        #expect(try isFree(unique) == false)
    }

    // MARK: After a restart

    @Test mutating func `is held after a restart by whoever held it`() throws {
        let waiting = try bench.addedTask(task(.whileQueued("queued")))
        let running = try bench.runningTask(first, task(.whileUnfinished("unfinished")))
        let started = try bench.runningTask(second, task(.whileQueued("started")))
        let ended = try bench.addedTask(task(.window("window", .seconds(60))))
        bench.cancel(ended)
        _ = try bench.synced()
        try bench.reopen()
        for (key, holder) in [("queued", waiting), ("unfinished", running), ("window", ended)] {
            try bench.add(task(.whileUnfinished(key)), number: 9)
            let told = try bench.synced()
            guard case .same(9, holder, _, _)? = told.last else {
                Issue.record("\(key): \(told)")
                continue
            }
        }
        #expect(try isFree(.whileQueued("started")) == true)
        #expect(try bench.status(started) == .process)
    }

    @Test mutating func `takes no more memory than the keys that are held`() throws {
        for number in 0..<2000 {
            let lease = Lease(incarnation: 7, counter: UInt32(number + 1))
            let id = try bench.runningTask(lease, task(.whileUnfinished("k\(number)")))
            bench.push(id, lease)
        }
        #expect(bench.state.tasks.uniqueKeys.count < 8)
    }

    @Test mutating func `that can't be is refused`() throws {
        #expect(throws: QTasksError.self) { try bench.add(task(.whileQueued(""))) }
        let long = String(repeating: "k", count: 1025)
        #expect(throws: QTasksError.self) { try bench.add(task(.whileQueued(long))) }
        #expect(throws: QTasksError.self) { try bench.add(task(.window("k", .zero))) }
        let longest = String(repeating: "k", count: 1024)
        #expect(try isFree(.whileQueued(longest)) == true)
        #expect(try isFree(.whileQueued(longest)) == false)
    }
}

@Suite
struct `A unique key in a store that keeps house` {
    /// A store of one segment after the other, with checkpoints all the time.
    private static func store() throws -> KeptStore {
        var plan = KeptStore.Plan()
        plan.keeping.checkpointBytes = 4 << 10
        plan.config.retention.standard = Retention(seconds: 600, failureSeconds: 600) ?? .standard
        let store = KeptStore(seed: 4, plan)
        try store.open()
        return store
    }

    private static func task(_ number: UInt64, _ unique: UniqueKey? = nil) -> TaskSubmission {
        var task = TaskSubmission(
            id: TaskID(high: 7, low: number),
            name: "a",
            arguments: Array(repeating: 1, count: 900)
        )
        task.unique = unique
        return task
    }

    /// What passes through until the first segments are gone.
    private static func passThrough(_ store: KeptStore, _ first: UInt64) throws {
        for number in first..<first + 120 {
            let lease = Lease(incarnation: UInt32(store.openings), counter: UInt32(number))
            try store.add(task(number), first: (lease, Bench.worker))
            store.push(
                task(number).id,
                lease,
                .success(result: [], contentType: nil),
                from: Bench.worker
            )
            // the second half finds the first one's tasks forgotten
            guard number == first + 60 else { continue }
            try store.settle()
            store.pass(700_000_000_000)
            try store.settle()
        }
        try store.settle()
    }

    /// What an opening finds, with checkpoints or without, as `log verify` compares it.
    private static func fold(of store: KeptStore, _ withCheckpoints: Bool) throws -> TaskFold {
        let copy = store.disk.copy()
        for path in try KeptStore.checkpoints(copy) where !withCheckpoints { try copy.remove(path) }
        let opened = try OpenedStore(
            store.settings,
            options: store.plan.options,
            keeping: store.plan.keeping,
            now: store.now,
            files: copy,
            driver: .manual
        )
        #expect(withCheckpoints == (opened.log.recovery.checkpoint != nil))
        return opened.state.tasks
    }

    @Test func `that a checkpoint doesn't know of is a difference for log verify`() throws {
        let store = try Self.store()
        var task = Self.task(1, .whileUnfinished("k"))
        task.expires = Timestamp(nanoseconds: store.now.wall.nanoseconds + 60_000_000_000)
        try store.add(task)
        try store.settle()
        let fold = try Self.fold(of: store, false)
        var other = fold
        other.deadlines = TimedTasks()
        #expect(fold.differences(from: other) == [task.id])
        other = fold
        other.uniqueKeys.begin(fold.uniqueKeys.seed)
        #expect(other.differences(from: fold) == [task.id])
        #expect(fold.differences(from: fold).isEmpty)
    }

    @Test(arguments: [true, false])
    func `is held after compaction and a restart by whoever held it`(
        withCheckpoints: Bool
    ) throws {
        let store = try Self.store()
        let holders: [(UInt64, UniqueKey)] = [
            (1, .whileQueued("queued")), (2, .whileUnfinished("unfinished")),
            (3, .window("window", .seconds(3600))), (4, .whileQueued("again")),
        ]
        for (number, unique) in holders { try store.add(Self.task(number, unique)) }
        store.lease(Self.task(2).id, Lease(incarnation: 1, counter: 1), to: Bench.worker)
        for number: UInt64 in [3, 4] {
            store.propose(.change(number: 1, .cancel, id: Self.task(number).id, reason: ""))
        }
        store.propose(.change(number: 1, .requeue, id: Self.task(4).id, reason: ""))
        try Self.passThrough(store, 1000)
        let oldest = try #require(store.log?.kept.segments.first).index
        #expect(oldest > 1, "the first segment is compacted")
        try store.compareLive()
        try store.compareCopy(withoutCheckpoints: !withCheckpoints)
        let byCheckpoint = try Self.fold(of: store, true)
        #expect(try byCheckpoint.differences(from: Self.fold(of: store, false)).isEmpty)
        if !withCheckpoints {
            for path in try KeptStore.checkpoints(store.disk) { try store.disk.remove(path) }
        }
        store.kill()
        try store.open()
        #expect(withCheckpoints == (store.restored > 0))
        for (index, (number, unique)) in holders.enumerated() {
            let repetition = Self.task(5000 + UInt64(index), unique)
            try store.add(repetition)
            #expect(store.state.tasks.index.number(of: repetition.id) == nil, "\(unique)")
            #expect(store.state.tasks.index.number(of: Self.task(number).id) != nil)
        }
    }

    @Test func `with a window keeps its dead task from being purged, which changes nothing`() throws
    {
        let store = try Self.store()
        var task = Self.task(1, .window("k", .seconds(60)))
        task.maxDeliveries = 1
        try store.add(task)
        let lease = Lease(incarnation: 1, counter: 1)
        store.lease(task.id, lease, to: Bench.worker)
        store.propose(
            .release(
                number: 1,
                holding: Holding(id: task.id, lease: lease),
                cause: .death,
                isShared: false,
                counts: true
            )
        )
        try store.settle()
        let number = try #require(store.state.known(task.id))
        #expect(store.state.tasks.index[number].status == .dead)
        store.propose(.change(number: 2, .forget, id: task.id, reason: ""))
        try store.settle()
        store.pass(120_000_000_000)
        try store.settle()
        #expect(store.state.known(task.id) != nil, "its retention is longer than the window")
    }

    @Test func `with a window keeps its finished task until that ends`() throws {
        let store = try Self.store()
        let task = Self.task(1, .window("k", .seconds(3600)))
        try store.add(task)
        store.propose(.change(number: 1, .cancel, id: task.id, reason: ""))
        try store.settle()
        store.pass(3_500_000_000_000)
        try store.settle()
        #expect(store.state.known(task.id) != nil, "the retention of 600 s is long over")
        try store.close()
        try store.open()
        try store.settle()
        #expect(store.state.known(task.id) != nil)
        let deadline = store.keeper.nextDeadline(&store.state, now: store.now)
        let wakes = try #require(deadline)
        let left = wakes - store.now.monotonic
        #expect((100_000_000_000...115_000_000_000).contains(left), "\(left)")
        store.pass(115_000_000_000)
        try store.settle()
        #expect(store.state.known(task.id) == nil)
        let next = store.keeper.nextDeadline(&store.state, now: store.now)
        #expect(next == nil, "P8")
    }
}

@Suite
struct `The hash of a key` {
    @Test func `is SipHash-2-4 of 128 bits, by its authors' vectors`() {
        // the key 00 01 ... 0f, the input 00 01 ... 0e: an empty name stands before it as its length
        let seed = KeyHash.Seed(one: 0x0706_0504_0302_0100, other: 0x0f0e_0d0c_0b0a_0908)
        let key: [UInt8] = (1..<15).map { UInt8($0) }
        let hash = key.withUnsafeBytes { bytes in
            KeyHash(name: UnsafeRawBufferPointer(start: nil, count: 0), key: bytes, seed: seed)
        }
        // 54 93 e9 99 33 b0 a8 11 7e 08 ec 0f 97 cf c3 d9
        #expect(hash.low == 0x11a8_b033_99e9_9354)
        #expect(hash.high == 0xd9c3_cf97_0fec_087e)
    }
}
