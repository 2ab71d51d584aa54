// Part of QTasks. License: see LICENSE.

import AppendLog
import Glibc
import QTasksModel
import QTasksWire
import Testing

@testable import QTasksStorage

/// Random work on a store that is compacted, checkpointed, closed and broken all the time.
private struct KeepingWork {
    let store: KeptStore
    private var known: [TaskSubmission] = []
    private var generator: TaskIDGenerator
    private var leases: UInt32 = 0
    private let stepsClock: Bool
    private var isShort = false
    private var workers = (1...5).map { WorkerID(high: $0, low: 9) }
    private var lives: UInt64 = 9
    /// Adds whose unique key was held.
    private(set) var repeats = 0

    init(seed: UInt64) {
        var random = SeededGenerator(seed: seed &* 0x9E37_79B9)
        var plan = KeptStore.Plan()
        plan.options = LogOptions(
            segmentBytes: Int.random(in: 8...16, using: &random) << 10,
            recordBytesMax: 4 << 10,
            zeroFillAheadBytes: Bool.random(using: &random) ? 0 : 4 << 10,
            zeroFillChunkBytes: 2 << 10
        )
        plan.keeping.checkpointBytes = Int.random(in: 2...16, using: &random) << 10
        if Bool.random(using: &random) {
            plan.keeping.history =
                HistoryWindow(
                    seconds: UInt64.random(in: 1...3600, using: &random),
                    bytes: UInt64.random(in: 4...64, using: &random) << 10
                ) ?? .none
        }
        let counts: [Int?] = [nil, 0, 3]
        let standard = Retention(
            seconds: UInt64.random(in: 600...3000, using: &random),
            failureSeconds: UInt64.random(in: 600...9000, using: &random),
            count: counts.randomElement(using: &random) ?? nil
        )
        plan.config.retention.standard = standard ?? .standard
        plan.config.retention.byName["b"] = Retention(
            seconds: 600,
            failureSeconds: 5000,
            count: 5
        )
        plan.config.history = plan.keeping.history
        plan.config.maxDeliveries = UInt32.random(in: 1...3, using: &random)
        stepsClock = Int.random(in: 0..<4, using: &random) == 0
        generator = TaskIDGenerator(seed: (seed, 12))
        store = KeptStore(seed: seed, plan)
    }

    private mutating func below(_ limit: Int) -> Int {
        Int.random(in: 0..<limit, using: &store.random)
    }

    private mutating func flip() -> Bool { Bool.random(using: &store.random) }

    mutating func run(_ steps: Int) throws {
        try store.open()
        for _ in 0..<steps { try step() }
        try finish()
    }

    /// All of it once more from its last state, with checkpoints and without.
    private mutating func finish() throws {
        lift()
        if store.state.failure != nil { try reopen() }
        try store.settle()
        try store.compareLive()
        if store.state.failure == nil {
            let overdue = store.model.overdue(at: store.state.tasks.stamp(store.now))
            guard overdue.isEmpty else {
                throw KeptModel.Complaint("nobody forgets \(overdue)")
            }
            let unleased = store.model.tasks.filter { _, task in
                task.awaitsStart && task.expires.map { $0 <= store.now.wall } ?? false
            }
            guard unleased.isEmpty else {
                throw KeptModel.Complaint("nobody ends \(unleased)")
            }
        }
        try store.compareCopy(withoutCheckpoints: true)
        try store.compareCopy(withoutCheckpoints: false)
        try store.close()
        try store.open()
        try store.close()
    }

    private mutating func step() throws {
        store.pass(Int64(below(200_000_000)))
        switch below(100) {
        case ..<26: try add()
        case ..<46: lease()
        case ..<66: finishOne()
        case ..<72: release()
        case ..<73: explain()
        case ..<77: tellOfWorker(randomWorker())
        case ..<80: ask()
        case ..<81: try unknown()
        case ..<85: change()
        case ..<86: changeQueue()
        case ..<88: purge()
        case ..<93: try passTime()
        case ..<95: try look()
        default: try disturb()
        }
        try store.turn(
            jobs: below(7),
            keeps: below(4) > 0,
            looks: below(3)
        )
        if store.state.failure != nil { try reopen() }
    }

    // MARK: Events

    private mutating func add() throws {
        if let task = known.randomElement(using: &store.random), below(3) == 0 {
            return try store.add(task, isWatched: flip())
        }
        let size = below(10) == 0 ? 2000 : 150
        var task = TaskSubmission(
            id: generator.next(milliseconds: UInt64(known.count)),
            name: ["a", "b", "c"].randomElement(using: &store.random) ?? "a",
            arguments: (0..<below(size)).map { _ in UInt8.random(in: 0...9, using: &store.random) }
        )
        if flip() { task.queue = "other" }
        if below(3) == 0 { task.key = [UInt8(below(5))] }
        task.priority = Int16(below(4) - 2)
        let levels: [Durability?] = [.written, .interval(milliseconds: 40), nil, nil]
        task.durability = levels.randomElement(using: &store.random) ?? nil
        if below(4) == 0 { task.retentionSeconds = UInt64(600 + below(4000)) }
        if below(4) == 0 { task.maxAttempts = UInt32(1 + below(4)) }
        if below(4) == 0 { task.maxDeliveries = UInt32(1 + below(3)) }
        switch below(8) {
        case 0: task.start = .after(milliseconds: UInt64(below(3_600_000)))
        case 1:
            let wait = Int64(below(7_200_000)) * 1_000_000
            task.start = .at(Timestamp(nanoseconds: store.now.wall.nanoseconds + wait))
        default: break
        }
        if below(4) == 0 {
            let wait = Int64(below(3_600_000) - 60_000) * 1_000_000
            task.expires = Timestamp(nanoseconds: store.now.wall.nanoseconds + wait)
        }
        if below(3) == 0 { task.unique = randomKey() }
        known.append(task)
        let first = below(3) == 0 ? (newLease(), randomWorker()) : nil
        try addOnce(task, isWatched: flip(), first: first)
    }

    private mutating func randomKey() -> UniqueKey {
        let scopes: [UniqueKey.Scope] = [
            .whileQueued, .whileUnfinished, .window(seconds: UInt32(1 + below(10_000))),
        ]
        return UniqueKey(
            Array("k\(below(6))".utf8),
            scopes.randomElement(using: &store.random) ?? .whileQueued
        )
    }

    /// A new task, which is there afterwards unless another one holds its key.
    private mutating func addOnce(
        _ task: TaskSubmission,
        isWatched: Bool,
        first: (Lease, WorkerID)?
    ) throws {
        try store.drain()
        func holder(_ time: Int64) -> TaskID? {
            let moment = store.state.tasks.stamp(store.now).nanoseconds + time
            return task.unique.flatMap {
                let moment = Timestamp(nanoseconds: moment)
                return store.model.holder(of: $0.bytes, named: task.name, at: moment)
            }
        }
        // a window ends up to a second later than it could
        let (isHeld, mayBeHeld) = (holder(0) != nil, holder(-1_000_000_000) != nil)
        let canAdd = store.log?.kept.hasRoom == true && store.state.failure == nil
        try store.add(task, isWatched: isWatched, first: first)
        guard store.state.failure == nil else { return }
        let isThere = store.state.tasks.index.number(of: task.id) != nil
        guard !isThere || !isHeld else {
            throw KeptModel.Complaint("P3: \(task.id) is there, and its key is held")
        }
        guard isThere || mayBeHeld || !canAdd else {
            throw KeptModel.Complaint("\(task.id) isn't added, and nobody holds its key")
        }
        if isHeld { repeats += 1 }
    }

    private mutating func newLease() -> Lease {
        leases += 1
        return Lease(incarnation: UInt32(store.openings), counter: leases)
    }

    private mutating func randomWorker() -> WorkerID {
        let index = below(workers.count)
        // who has ended never comes back under its name
        if store.model.ended.contains(workers[index]) {
            lives += 1
            workers[index] = WorkerID(high: UInt64(index), low: lives)
        }
        return workers[index]
    }

    /// A task in one of these states, if there is any; of the first few, so that seeds replay.
    private mutating func task(_ states: Set<TaskStatus>) -> TaskID? {
        let start = below(known.count + 1)
        for task in known[start...] + known[..<start] {
            guard let found = store.model.tasks[task.id] else { continue }
            if states.contains(found.status) { return task.id }
        }
        return nil
    }

    private mutating func lease() {
        let states: Set<TaskStatus> =
            below(10) == 0 ? Set(TaskStatus.allCases) : [.new, .scheduled]
        guard let id = task(states) else { return }
        let worker = randomWorker()
        if below(4) > 0 { tellOfWorker(worker) }
        store.lease(id, newLease(), to: worker, synced: flip())
    }

    private mutating func holding() -> (TaskID, Lease, WorkerID)? {
        let states: Set<TaskStatus> = below(8) == 0 ? Set(TaskStatus.allCases) : [.process]
        guard let id = task(states), let task = store.model.tasks[id] else { return nil }
        let lease = below(10) == 0 ? Lease(incarnation: 1, counter: 1) : task.lease
        return (id, lease, task.worker ?? Bench.worker)
    }

    private mutating func finishOne() {
        guard let (id, lease, worker) = holding() else { return }
        let failure = TaskFailure(type: "E", message: "m", trace: "t")
        let size = below(12) == 0 ? 2500 : 60
        let outcomes: [TaskOutcome] = [
            .success(result: Array(repeating: 7, count: below(size)), contentType: "x/y"),
            .success(result: Array(repeating: 8, count: below(size)), contentType: nil),
            .success(result: [], contentType: nil),
            .error(failure), .cancel(reason: "r"),
            .retry(failure, afterMilliseconds: UInt64(below(5_000_000)), maxAttempts: 3),
            .retry(failure, afterMilliseconds: 0, maxAttempts: 9),
        ]
        store.push(
            id,
            lease,
            outcomes.randomElement(using: &store.random) ?? outcomes[0],
            from: worker
        )
        if below(10) == 0 { store.push(id, lease, outcomes[0], from: worker) }
    }

    private mutating func release() {
        guard let (id, lease, _) = holding() else { return }
        let causes: [ReleaseCause] = [
            .death, .death, .death, .notHeld, .handedBack, .drain, .goneBefore,
        ]
        store.propose(
            .release(
                number: 3,
                holding: Holding(id: id, lease: lease),
                cause: causes.randomElement(using: &store.random) ?? .death,
                isShared: below(3) == 0,
                counts: flip()
            )
        )
        explain()
        if below(3) == 0 { purge() }
    }

    /// The Starter tells how processes ended, and sometimes tells it again.
    private mutating func explain() {
        for pid in 1...Int32(2) where below(4) > 0 { explain(pid) }
    }

    private mutating func explain(_ pid: Int32) {
        let size = below(12) == 0 ? 2000 : 40
        let exit = ExitMessage(
            pid: pid,
            startTime: 4,
            wasSignal: flip(),
            code: Int32(below(64)),
            maxResidentBytes: 1 << 20,
            userMicroseconds: 5,
            systemMicroseconds: 6,
            errorTail: (0..<below(size)).map { UInt8($0 & 127) }
        )
        for _ in 0...below(2) { store.propose(.evidence(number: 12, exit)) }
    }

    private mutating func purge() {
        guard let id = task(below(4) == 0 ? Set(TaskStatus.allCases) : [.dead]) else { return }
        store.purge(id)
    }

    private mutating func change() {
        if below(5) == 0 { return purge() }
        let isCancel = flip()
        let states: Set<TaskStatus> =
            below(6) == 0
            ? Set(TaskStatus.allCases)
            : isCancel ? [.new, .scheduled, .process] : [.error, .dead, .cancel]
        guard let id = task(states) else { return }
        let reason = String(repeating: "r", count: below(below(12) == 0 ? 2500 : 20))
        store.propose(
            .change(number: 8, isCancel ? .cancel : .requeue, id: id, reason: reason)
        )
    }

    private mutating func changeQueue() {
        var change = QueueChange()
        if flip() { change.setPaused(flip()) }
        if flip() { change.setConcurrency(flip() ? UInt32(1 + below(9)) : nil) }
        if flip() { change.setKeyRate(flip() ? StartRate(UInt32(1 + below(9))) : nil) }
        let queue = ["default", "other", "third"].randomElement(using: &store.random) ?? "other"
        store.propose(.queue(number: 9, QueueMessage(queue: queue, change: change)))
    }

    private mutating func tellOfWorker(_ worker: WorkerID) {
        let process = WorkerProcess(
            pid: Int32(1 + below(2)),
            startTime: 4,
            bootID: store.settings.bootID
        )
        store.propose(.worker(id: worker, process: process))
    }

    private mutating func ask() {
        guard let id = known.randomElement(using: &store.random)?.id else { return }
        store.propose(flip() ? .read(number: 7, id: id, isWhole: false) : .watch(id: id))
    }

    private mutating func unknown() throws {
        guard let log = store.log, log.kept.hasRoom else { return }
        try? log.appendUnknown((0..<below(90)).map { UInt8($0) })
    }

    // MARK: Time and faults

    private mutating func passTime() throws {
        if below(3) > 0 { try store.settle() }
        let minutes = Int64(below(100) < 70 ? below(30) : below(600))
        store.pass(minutes * 60_000_000_000)
        guard stepsClock, flip() else { return }
        store.setClock(by: Int64(below(7200) - 3600) * 1_000_000_000)
    }

    private mutating func look() throws {
        if flip() {
            try store.compareLive()
        } else {
            try store.compareCopy(withoutCheckpoints: flip())
        }
    }

    private mutating func disturb() throws {
        switch below(12) {
        case 0, 1, 2: try store.close()
        case 3, 4: store.kill()
        case 5, 6: store.losePower()
        case 7: return store.disk.failSync(after: below(6), errno: EIO)
        case 8: return store.disk.failWrite(after: below(6), errno: EIO)
        case 9: return store.disk.losePower(after: below(40))
        case 10:
            isShort = true
            return store.disk.setCapacity(store.disk.bytesUsed + below(12 << 10))
        default: return lift()
        }
        try spoilAndOpen()
    }

    private mutating func lift() {
        guard isShort else { return }
        isShort = false
        store.disk.setCapacity(.max)
        store.log?.kept.retrySpace()
    }

    /// The log has failed: Storage ends, and is started again.
    private mutating func reopen() throws {
        lift()
        flip() ? store.kill() : store.losePower()
        try spoilAndOpen()
    }

    /// A checkpoint is a cache: it may be lost, or rot.
    private mutating func spoilAndOpen() throws {
        lift()
        guard store.log == nil else { return }
        for path in try KeptStore.checkpoints(store.disk).sorted() where below(6) == 0 {
            guard var bytes = store.disk.contents(of: path), !bytes.isEmpty, flip() else {
                try? store.disk.remove(path)
                continue
            }
            bytes[below(bytes.count)] ^= UInt8(1 + below(255))
            store.disk.setContents(of: path, to: bytes)
        }
        if below(6) == 0 { store.disk.losePower(after: below(20)) }
        try store.open()
    }
}

/// How much the environment asks for.
private enum Length {
    static let isLong = getenv("QTASKS_LONG") != nil
    static let chunks = 8
    static let seeds: UInt64 = isLong ? 5_000 : 160
    static let steps = 220

    static func seeds(of chunk: Int) -> [UInt64] {
        if let text = getenv("QTASKS_TEST_SEED"), let seed = UInt64(String(cString: text)) {
            return chunk == 0 ? [seed] : []
        }
        return (1...seeds).filter { $0 % UInt64(chunks) == UInt64(chunk) }
    }
}

@Suite
struct `Keeping house` {
    @Test(arguments: 0..<Length.chunks)
    func `leaves every task as its records say, whatever happens (P1, P2, P3, P5, P9)`(
        chunk: Int
    ) {
        var total = (
            openings: 0, restored: 0, expiries: 0, broken: 0, cancels: 0, requeues: 0, explained: 0,
            purges: 0
        )
        var standing = (unleased: 0, repeats: 0)
        let seeds = Length.seeds(of: chunk)
        for seed in seeds {
            var work = KeepingWork(seed: seed)
            do {
                try work.run(Length.steps)
            } catch {
                total.broken += 1
                if total.broken <= 3 {
                    Issue.record("QTASKS_TEST_SEED=\(seed): \(error)")
                }
            }
            total.openings += work.store.openings
            total.restored += work.store.restored
            total.expiries += work.store.model.expiries
            total.cancels += work.store.model.cancels
            total.requeues += work.store.model.requeues
            total.explained += work.store.model.explained
            total.purges += work.store.model.purges
            standing.unleased += work.store.model.unleased
            standing.repeats += work.repeats
        }
        guard total.broken == 0, seeds.count >= 20 else { return }
        // work in which nothing happens proves nothing
        #expect(total.openings > 5 * seeds.count)
        #expect(total.restored > seeds.count)
        #expect(total.expiries > 10 * seeds.count)
        #expect(total.cancels > seeds.count && total.requeues > seeds.count / 2)
        #expect(total.explained > seeds.count)
        #expect(total.purges > 0)
        #expect(standing.unleased > seeds.count && standing.repeats > seeds.count)
    }
}
