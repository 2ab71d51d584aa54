// Part of QTasks. License: see LICENSE.
//
// When delayed tasks are due where the wall clock is set meanwhile, and what says so.

import AppendLog
import QTasksModel
import QTasksWire
import Testing

@testable import QTasksStorage

private let second: Int64 = 1_000_000_000

/// A store in which tasks wait for hours, some for their first attempt and some for the second, while others
/// come and go around them.
private struct WaitingStore {
    /// How long they wait.
    static let wait = 20_000 * second

    let store: KeptStore
    private var generator = TaskIDGenerator(seed: (4, 2))
    private var leases: UInt32 = 0
    /// By the wall clock as it was set when their waits began, when they are due.
    private(set) var dues: [TaskID: Int64] = [:]

    init() throws {
        var plan = KeptStore.Plan()
        plan.config.retention.standard = Retention(seconds: 600, failureSeconds: 600) ?? .standard
        plan.keeping.checkpointBytes = 8 << 10
        store = KeptStore(seed: 7, plan)
        try store.open()
    }

    private mutating func submission() -> TaskSubmission {
        TaskSubmission(
            id: generator.next(milliseconds: 1_000),
            name: "a",
            arguments: Array(repeating: 1, count: 400)
        )
    }

    /// One task, which its worker ends like this.
    private mutating func run(_ outcome: TaskOutcome) throws -> TaskID {
        let task = submission()
        leases += 1
        let lease = Lease(incarnation: store.log?.incarnation ?? 0, counter: leases)
        try store.add(task, first: (lease, Bench.worker))
        store.push(task.id, lease, outcome, from: Bench.worker)
        return task.id
    }

    mutating func beginToWait() throws {
        var task = submission()
        task.start = .after(milliseconds: UInt64(Self.wait / 1_000_000))
        try store.add(task)
        dues[task.id] = store.now.wall.nanoseconds + Self.wait
        let failure = TaskFailure(type: "Again", message: "later")
        let wait = UInt64(Self.wait / 1_000_000)
        let retried = try run(.retry(failure, afterMilliseconds: wait, maxAttempts: 9))
        dues[retried] = store.now.wall.nanoseconds + Self.wait
    }

    /// Others come, end and are forgotten, until what waits has been carried forward.
    mutating func passTime() throws {
        for _ in 0..<8 {
            for _ in 0..<40 { _ = try run(.success(result: [], contentType: nil)) }
            store.pass(700 * second)
            try store.settle()
        }
    }

    /// When each is due by the wall clock, as the store has it.
    func found() -> [TaskID: Int64] {
        var found: [TaskID: Int64] = [:]
        for id in dues.keys {
            guard let number = store.state.tasks.index.number(of: id) else { continue }
            let entry = store.state.tasks.index[number]
            found[id] =
                store.now.wall.nanoseconds + Int64(entry.due.rawValue) - Int64(store.now.monotonic)
        }
        return found
    }
}

@Suite
struct `A delay` {
    /// Never early, and no more than a few milliseconds late.
    private static func expect(
        _ found: [TaskID: Int64],
        _ waiting: WaitingStore,
        _ what: Comment
    ) {
        for (id, due) in waiting.dues {
            let late = (found[id] ?? 0) - due
            #expect(late >= 0 && late <= 3_000_000, "\(what): \(late) ns late")
        }
    }

    @Test(arguments: [-2_291 * second, 2_291 * second, 700, -700])
    func `ends after a restart of the host by the wall clock as it was set when it began`(
        step: Int64
    ) throws {
        var waiting = try WaitingStore()
        let store = waiting.store
        try waiting.beginToWait()
        store.setClock(by: step)
        try waiting.beginToWait()
        try waiting.passTime()
        #expect(store.log?.kept.segments.first.map { $0.index > 1 } == true, "nothing was carried")
        store.setClock(by: 4_500_000_000)
        try store.settle()
        store.losePower()
        try store.open()
        #expect(store.restored > 0)
        Self.expect(waiting.found(), waiting, "from a checkpoint")
        try store.compareCopy(withoutCheckpoints: true)
        // and once more in this boot, by another setting
        store.setClock(by: -step)
        try store.settle()
        store.kill()
        try store.open()
        Self.expect(waiting.found(), waiting, "in a later process")
        try store.compareCopy(withoutCheckpoints: true)
    }

    @Test func `is as long as it was asked for, whatever the wall clock is set to meanwhile`()
        throws
    {
        var waiting = try WaitingStore()
        let store = waiting.store
        let end = store.now.monotonic + UInt64(WaitingStore.wait)
        try waiting.beginToWait()
        store.setClock(by: -2_291 * second)
        try waiting.passTime()
        for _ in 0..<2 {
            for id in waiting.dues.keys {
                let number = try #require(store.state.tasks.index.number(of: id))
                #expect(store.state.tasks.index[number].due == DueTime(boot: end))
            }
            store.setClock(by: 3_000 * second)
            store.kill()
            try store.open()
        }
    }
}
