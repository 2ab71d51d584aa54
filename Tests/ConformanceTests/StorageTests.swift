// Part of QTasks. License: see LICENSE.

import QTasks
import Testing

private let someone = WorkerID()
private let failure = TaskFailure(type: "E", message: "no")

extension AttemptResult {
    fileprivate init(
        _ task: TaskHandover,
        _ outcome: TaskOutcome = .success(result: [1], contentType: nil)
    ) {
        self.init(
            id: task.task.id,
            lease: task.lease,
            worker: someone,
            startedAt: Timestamp(nanoseconds: 1),
            finishedAt: Timestamp(nanoseconds: 2),
            outcome: outcome
        )
    }
}

extension Storage {
    /// A task of that kind under its next lease.
    fileprivate func leased(
        _ task: TaskSubmission = TaskSubmission(name: "t", arguments: [7])
    ) async throws -> TaskHandover {
        try await add(task)
        return try #require(try await lease(task.id, to: someone))
    }

    fileprivate func status(of task: TaskHandover) async throws -> TaskStatus? {
        try await record(of: task.task.id)?.status
    }
}

/// What every Storage must do, whatever it is made of (the table of recovery.md, chapter 4).
@Suite(.timeLimit(.minutes(1)))
struct `A Storage` {
    @Test(arguments: StorageUnderTest.allCases)
    func `keeps a task as it was added`(_ engine: StorageUnderTest) async throws {
        try await engine.use { storage in
            var task = TaskSubmission(name: "t", arguments: [1, 2, 3])
            task.priority = -3
            task.queue = "other"
            task.headers = [.init(name: "traceparent", value: "00")]
            #expect(try await storage.add(task) == .new)
            let record = try #require(try await storage.record(of: task.id))
            #expect(record.submission == task)
            #expect(record.status == .new && record.attempt == 0 && record.lease == nil)
        }
    }

    @Test(arguments: StorageUnderTest.allCases)
    func `takes tasks and results of every durability`(_ engine: StorageUnderTest) async throws {
        try await engine.use { storage in
            let levels: [Durability] = [
                .synced, .written, .interval(milliseconds: 1), .interval(milliseconds: 3_600_000),
            ]
            for level in levels {
                var task = TaskSubmission(name: "t", arguments: [1])
                task.durability = level
                let leased = try await storage.leased(task)
                #expect(leased.task == task)
                #expect(try await storage.save(AttemptResult(leased)) == .committed)
                #expect(try await storage.record(of: task.id)?.status == .success)
            }
        }
    }

    @Test(arguments: StorageUnderTest.allCases)
    func `takes the same task again for the same`(_ engine: StorageUnderTest) async throws {
        try await engine.use { storage in
            let task = TaskSubmission(name: "t", arguments: [1])
            #expect(try await storage.add(task) == .new)
            let first = try await storage.record(of: task.id)
            #expect(try await storage.add(task) == .new)
            #expect(try await storage.record(of: task.id) == first)
            let leased = try #require(try await storage.lease(task.id, to: someone))
            #expect(try await storage.add(task) == .process)
            _ = try await storage.save(AttemptResult(leased))
            #expect(try await storage.add(task) == .success)
        }
    }

    @Test(arguments: StorageUnderTest.allCases)
    func `adds no task whose key another one holds, and names that`(
        _ engine: StorageUnderTest
    ) async throws {
        try await engine.use { storage in
            for unique in [UniqueKey.whileQueued("q"), .whileUnfinished("u")] {
                var holder = TaskSubmission(name: "t", arguments: [1])
                holder.unique = unique
                #expect(try await storage.add(holder) == .new)
                #expect(try await storage.add(holder) == .new, "a repeat of itself")
                var other = TaskSubmission(name: "t", arguments: [2])
                other.unique = unique
                let error = await #expect(throws: QTasksError.self) {
                    try await storage.add(other)
                }
                #expect(error?.code == .conflict)
                #expect((error?.cause as? HeldKey)?.holder == holder.id)
                #expect(try await storage.record(of: other.id) == nil)
                var elsewhere = TaskSubmission(name: "other", arguments: [2])
                elsewhere.unique = unique
                #expect(try await storage.add(elsewhere) == .new)
                let leased = try #require(try await storage.lease(holder.id, to: someone))
                if unique.scope == .whileUnfinished {
                    _ = try await storage.save(AttemptResult(leased))
                }
                #expect(try await storage.add(other) == .new)
            }
        }
    }

    @Test(arguments: StorageUnderTest.allCases)
    func `leases no task whose time to start by is over`(
        _ engine: StorageUnderTest
    ) async throws {
        try await engine.use { storage in
            var task = TaskSubmission(name: "t", arguments: [1])
            task.expires = Timestamp(nanoseconds: Timestamp.now.nanoseconds - 1_000_000)
            try await storage.add(task)
            #expect(try await storage.lease(task.id, to: someone) == nil)
            let record = try #require(try await storage.record(of: task.id))
            #expect(record.status == .cancel && record.outcome == .cancel(reason: "expired"))
        }
    }

    @Test(arguments: StorageUnderTest.allCases)
    func `refuses another content under a known ID`(_ engine: StorageUnderTest) async throws {
        try await engine.use { storage in
            var task = TaskSubmission(name: "t", arguments: [1])
            try await storage.add(task)
            let first = try await storage.record(of: task.id)
            task.arguments = [2]
            let error = await #expect(throws: QTasksError.self) { try await storage.add(task) }
            #expect(error?.code == .conflict)
            #expect(try await storage.record(of: task.id) == first)
        }
    }

    @Test(arguments: StorageUnderTest.allCases)
    func `refuses a name that isn't one`(_ engine: StorageUnderTest) async throws {
        try await engine.use { storage in
            let task = TaskSubmission(name: "a\u{1}", arguments: [])
            let error = await #expect(throws: QTasksError.self) { try await storage.add(task) }
            #expect(error?.code == .badName)
            let record = try await storage.record(of: task.id)
            #expect(record == nil)
        }
    }

    @Test(arguments: StorageUnderTest.allCases)
    func `leases a task to one worker`(_ engine: StorageUnderTest) async throws {
        try await engine.use { storage in
            let task = TaskSubmission(name: "t", arguments: [1])
            let leased = try await storage.leased(task)
            #expect(leased.task == task && leased.attempt == 1 && leased.failures == 0)
            #expect(leased.lease != .none)
            #expect(try await storage.lease(task.id, to: WorkerID()) == nil)
            let record = try #require(try await storage.record(of: task.id))
            #expect(record.status == .process && record.attempt == 1)
            #expect(record.lease == leased.lease && record.worker == someone)
            #expect(leased.addedAt == record.addedAt)
        }
    }

    @Test(arguments: StorageUnderTest.allCases)
    func `gives a released task out again and counts the attempt`(
        _ engine: StorageUnderTest
    ) async throws {
        try await engine.use { storage in
            let first = try await storage.leased()
            let id = first.task.id
            let sequence = try await storage.record(of: id)?.sequence
            #expect(try await storage.release(id, lease: first.lease, because: .handedBack) == .new)
            let second = try #require(try await storage.lease(id, to: someone))
            #expect(second.attempt == 2 && second.failures == 0)
            #expect(second.lease != first.lease)
            #expect(second.task == first.task)
            #expect(try await storage.record(of: id)?.sequence == sequence)
            // the first one's end again: it isn't the holder's any more
            let late = try await storage.release(id, lease: first.lease, because: .handedBack)
            #expect(late == .process)
            #expect(try await storage.record(of: id)?.lease == second.lease)
        }
    }

    @Test(arguments: StorageUnderTest.allCases)
    func `refuses a result under a lease that is over (P2)`(
        _ engine: StorageUnderTest
    ) async throws {
        try await engine.use { storage in
            let first = try await storage.leased()
            let id = first.task.id
            try await storage.release(id, lease: first.lease, because: .handedBack)
            #expect(try await storage.save(AttemptResult(first)) == .stale)
            #expect(try await storage.status(of: first) == .new)
            let second = try #require(try await storage.lease(id, to: WorkerID()))
            #expect(try await storage.save(AttemptResult(first)) == .stale)
            #expect(try await storage.status(of: first) == .process)
            let other = AttemptResult(second, .success(result: [2], contentType: "text/plain"))
            #expect(try await storage.save(other) == .committed)
            #expect(try await storage.save(AttemptResult(first)) == .stale)
            #expect(try await storage.record(of: id)?.outcome == other.outcome)
        }
    }

    @Test(arguments: StorageUnderTest.allCases)
    func `acknowledges a repeated result again (P2)`(_ engine: StorageUnderTest) async throws {
        try await engine.use { storage in
            let leased = try await storage.leased()
            let result = AttemptResult(leased)
            #expect(try await storage.save(result) == .committed)
            let record = try #require(try await storage.record(of: result.id))
            #expect(record.status == .success && record.outcome == result.outcome)
            #expect(record.startedAt == result.startedAt)
            #expect(record.finishedAt == result.finishedAt)
            #expect(try await storage.save(result) == .committed)
            #expect(try await storage.record(of: result.id) == record)
        }
    }

    @Test(
        arguments: StorageUnderTest.allCases,
        [
            TaskOutcome.success(result: [], contentType: nil), .error(failure),
            .cancel(reason: "no"),
        ]
    )
    func `leaves a final task final (P2)`(
        _ engine: StorageUnderTest,
        _ outcome: TaskOutcome
    ) async throws {
        try await engine.use { storage in
            let leased = try await storage.leased()
            let id = leased.task.id
            #expect(try await storage.save(AttemptResult(leased, outcome)) == .committed)
            let record = try #require(try await storage.record(of: id))
            #expect(record.status.isFinal && record.outcome == outcome)
            let after = try await storage.release(
                id,
                lease: leased.lease,
                because: .workerDied(wasAlone: true)
            )
            #expect(after == record.status)
            #expect(try await storage.lease(id, to: someone) == nil)
            #expect(try await storage.record(of: id) == record)
        }
    }

    @Test(arguments: StorageUnderTest.allCases)
    func `gives a retry out again once it is due, until no attempt is left`(
        _ engine: StorageUnderTest
    ) async throws {
        try await engine.use { storage in
            let retry = TaskOutcome.retry(failure, afterMilliseconds: 0, maxAttempts: 2)
            let first = try await storage.leased()
            #expect(try await storage.save(AttemptResult(first, retry)) == .committed)
            #expect(try await storage.save(AttemptResult(first, retry)) == .committed)
            #expect(try await storage.status(of: first) == .scheduled)
            let second = try #require(try await storage.lease(first.task.id, to: someone))
            #expect(second.attempt == 2 && second.failures == 1)
            #expect(try await storage.save(AttemptResult(second, retry)) == .committed)
            #expect(try await storage.status(of: second) == .error)
            #expect(try await storage.record(of: first.task.id)?.failures == 2)
        }
    }

    @Test(arguments: StorageUnderTest.allCases)
    func `holds back what isn't due`(_ engine: StorageUnderTest) async throws {
        try await engine.use { storage in
            var delayed = TaskSubmission(name: "t", arguments: [])
            delayed.start = .after(milliseconds: 3_600_000)
            #expect(try await storage.add(delayed) == .scheduled)
            #expect(try await storage.lease(delayed.id, to: someone) == nil)
            #expect(try await storage.record(of: delayed.id)?.notBefore != nil)

            let leased = try await storage.leased()
            let retry = TaskOutcome.retry(failure, afterMilliseconds: 3_600_000, maxAttempts: 9)
            #expect(try await storage.save(AttemptResult(leased, retry)) == .committed)
            #expect(try await storage.lease(leased.task.id, to: someone) == nil)
            #expect(try await storage.status(of: leased) == .scheduled)
        }
    }

    @Test(arguments: StorageUnderTest.allCases)
    func `gives up what killed its workers alone (P4)`(_ engine: StorageUnderTest) async throws {
        try await engine.use { storage in
            var task = TaskSubmission(name: "t", arguments: [])
            task.maxDeliveries = 2
            try await storage.add(task)
            let deaths: [(ReleaseReason, TaskStatus)] = [
                (.workerDied(wasAlone: false), .new), (.workerDied(wasAlone: true), .new),
                (.handedBack, .new), (.workerDied(wasAlone: true), .dead),
            ]
            for (reason, status) in deaths {
                let leased = try #require(try await storage.lease(task.id, to: someone))
                let after = try await storage.release(
                    task.id,
                    lease: leased.lease,
                    because: reason
                )
                #expect(after == status)
            }
            let record = try #require(try await storage.record(of: task.id))
            #expect(record.status == .dead && record.deaths == 2 && record.outcome == nil)
            #expect(try await storage.lease(task.id, to: someone) == nil)
        }
    }

    @Test(arguments: StorageUnderTest.allCases)
    func `says so where there is no such task`(_ engine: StorageUnderTest) async throws {
        try await engine.use { storage in
            let task = try await storage.leased()
            var stranger = AttemptResult(task)
            stranger.id = TaskID()
            #expect(try await storage.record(of: stranger.id) == nil)
            #expect(try await storage.lease(stranger.id, to: someone) == nil)
            #expect(try await storage.save(stranger) == .gone)
            let released = try await storage.release(
                stranger.id,
                lease: task.lease,
                because: .handedBack
            )
            #expect(released == nil)
        }
    }

    @Test(arguments: StorageUnderTest.allCases)
    func `tells a Broker what isn't done, in order and in parts (P6)`(
        _ engine: StorageUnderTest
    ) async throws {
        try await engine.use { storage in
            var tasks: [TaskSubmission] = []
            for number in 0..<7 {
                tasks.append(TaskSubmission(name: "t", arguments: [UInt8(number)]))
                try await storage.add(tasks[number])
            }
            for number in [1, 4, 6] {
                let leased = try #require(try await storage.lease(tasks[number].id, to: someone))
                if number != 4 { _ = try await storage.save(AttemptResult(leased)) }
            }
            var found: [TaskRecord] = []
            while true {
                let after = found.last?.sequence ?? 0
                let part = try await storage.unfinished(after: after, atMost: 2)
                #expect(part.count <= 2)
                if part.isEmpty { break }
                found += part
            }
            #expect(found.map(\.submission.arguments) == [[0], [2], [3], [4], [5]])
            #expect(found.map(\.status) == [.new, .new, .new, .process, .new])
        }
    }

    @Test(arguments: StorageUnderTest.allCases)
    func `is asked from everywhere at once and gives each task to one`(
        _ engine: StorageUnderTest
    ) async throws {
        try await engine.use { storage in
            let tasks = (0..<100).map { TaskSubmission(name: "t", arguments: [UInt8($0)]) }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for task in tasks + tasks { group.addTask { try await storage.add(task) } }
                try await group.waitForAll()
            }
            let leases = try await withThrowingTaskGroup(of: Lease?.self) { group in
                for task in tasks + tasks + tasks {
                    group.addTask {
                        guard let leased = try await storage.lease(task.id, to: someone) else {
                            return nil
                        }
                        #expect(try await storage.save(AttemptResult(leased)) == .committed)
                        return leased.lease
                    }
                }
                return try await group.reduce(into: []) { $0 += $1.map { [$0] } ?? [] }
            }
            #expect(leases.count == tasks.count && Set(leases).count == tasks.count)
            for task in tasks {
                #expect(try await storage.record(of: task.id)?.status == .success)
            }
            #expect(try await storage.unfinished(after: 0, atMost: 1).isEmpty)
        }
    }
}

/// What only a Storage that outlives its process can do.
@Suite(.timeLimit(.minutes(1)))
struct `An append log's Storage` {
    @Test func `has everything again when it is opened anew (P1, P5)`() async throws {
        try await withFolder { folder in
            let storage = try await AppendLogStorage(at: folder + "/store")
            let done = try await storage.leased()
            _ = try await storage.save(AttemptResult(done))
            let running = try await storage.leased()
            try await storage.close()

            let again = try await AppendLogStorage(at: folder + "/store")
            #expect(try await again.status(of: done) == .success)
            #expect(try await again.unfinished(after: 0, atMost: 9).map(\.lease) == [running.lease])
            let fresh = try await again.leased()
            #expect(![done.lease, running.lease].contains(fresh.lease))
            // a lease outlives the process that gave it
            #expect(try await again.save(AttemptResult(running)) == .committed)
            #expect(try await again.save(AttemptResult(done)) == .committed)
            try await again.close()
        }
    }

    @Test func `has one owner at a time, and none after its end`() async throws {
        try await withFolder { folder in
            let storage = try await AppendLogStorage(at: folder + "/store")
            let error = await #expect(throws: QTasksError.self) {
                _ = try await AppendLogStorage(at: folder + "/store")
            }
            #expect(error?.code == .badHome)
            try await storage.close()
            try await storage.close()
            let late = await #expect(throws: QTasksError.self) {
                try await storage.record(of: TaskID())
            }
            #expect(late?.code == .storageUnavailable)
        }
    }

    @Test func `says why it can't be opened`() async throws {
        let error = await #expect(throws: QTasksError.self) {
            _ = try await AppendLogStorage(at: "/proc/no/such/store")
        }
        #expect(error?.code == .storageUnavailable)
    }
}
