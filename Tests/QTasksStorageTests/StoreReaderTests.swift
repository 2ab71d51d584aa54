// Part of QTasks. License: see LICENSE.

import AppendLog
import QTasksModel
import QTasksStorage
import QTasksWire
import Testing

@Suite
struct `A store that is read` {
    private struct Seen {
        var time: Timestamp
        var depths: [TaskCounts]
        var tasks: Int
    }

    /// A log with checkpoints, compaction and expiry, and what held after each step.
    private static func live(
        seed: UInt64,
        steps: Int,
        history: HistoryWindow,
        retentionSeconds: UInt64? = nil
    ) throws -> (StoryStore, [Seen]) {
        var chance = SimulatedDisk.Chance(seed: seed)
        var kept = try StoryStore(
            SimulatedDisk(seed: seed),
            history: history,
            checkpointBytes: 6 << 10,
            retentionSeconds: retentionSeconds
        )
        var seen: [Seen] = []
        for step in 0..<steps {
            try kept.live(&chance)
            if step % 97 == 96 { kept.pass(milliseconds: 700_000) }
            try kept.settle()
            seen.append(
                Seen(
                    time: kept.now.wall,
                    depths: kept.state.tasks.depths,
                    tasks: kept.state.tasks.index.count
                )
            )
        }
        return (kept, seen)
    }

    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func `tells what held at every moment, from where its history begins`(seed: UInt64) throws {
        let window =
            seed % 2 == 0
            ? HistoryWindow.standard : try #require(HistoryWindow(seconds: 3000, bytes: 40 << 10))
        let (kept, seen) = try Self.live(
            seed: seed,
            steps: 500,
            history: window,
            retentionSeconds: 600
        )
        let reader = try StoryStore.read(kept.disk)
        var isTold = false
        for moment in seen {
            do {
                let state = try reader.moment(moment.time)
                isTold = true
                #expect(state.tasks.depths == moment.depths, "at \(moment.time)")
                #expect(state.tasks.index.count == moment.tasks)
            } catch let error as BeforeHistory {
                #expect(!isTold, "what comes after is told as well")
                #expect(error.begin == (try reader.historyBegin()))
                guard case .at(let begin) = error.begin else {
                    Issue.record("no beginning: \(error)")
                    continue
                }
                #expect(begin > moment.time)
            }
        }
        #expect(isTold)
        if window == .standard {
            #expect(try reader.moment(Timestamp(nanoseconds: 1)).tasks.index.count == 0)
        } else {
            #expect(reader.log.firstSequence > 1, "the window was left")
        }
        #expect(try StoryStore.verify(kept.disk).isOK)
        let statistics = try StoreStatistics(reader)
        #expect(statistics.tasks == seen.last?.tasks)
        for segment in statistics.segments {
            #expect(segment.liveBytes == kept.state.tasks.usage[segment.index])
        }
    }

    @Test func `knows no history where none is kept`() throws {
        var kept = try StoryStore(history: .none)
        for _ in 0..<200 {
            let id = try kept.add(bytes: 200)
            kept.pass(milliseconds: 1)
            kept.push(id, kept.lease(id))
            try kept.settle()
        }
        kept.propose(.compact(number: 5))
        try kept.settle()
        let reader = try StoryStore.read(kept.disk)
        #expect(reader.log.firstSequence > 1)
        #expect(throws: BeforeHistory.self) { try reader.moment(Timestamp(nanoseconds: 1)) }
    }

    @Test func `compacts when the Broker asks, and says what it came to`() throws {
        var kept = try StoryStore()
        for _ in 0..<150 {
            let id = try kept.add(bytes: 200)
            kept.push(id, kept.lease(id))
            try kept.settle()
        }
        let (segments, before) = (kept.log.segments.count, kept.log.bytesUsed)
        let records = try StoryStore.records(kept.disk)
        #expect(segments > 3)
        kept.propose(.compact(number: 5))
        try kept.settle()
        guard case .compacted(5, let compacted)? = kept.told.last else {
            Issue.record("it isn't over: \(kept.told.suffix(3))")
            return
        }
        #expect(compacted.bytesBefore == UInt64(before))
        #expect(compacted.bytesAfter == UInt64(kept.log.bytesUsed))
        #expect(kept.log.segments.first?.index ?? 0 >= UInt32(segments))
        #expect(try StoryStore.records(kept.disk) == records)
        #expect(try StoryStore.verify(kept.disk).isOK)
    }

    private static func words(_ history: TaskHistory) -> [String] {
        history.events.map { event in
            switch event.what {
            case .added(let submission, _): "added \(submission.name)"
            case .leased(let lease, _): "leased \(lease)"
            case .ended(let result, let status, _, _): "ended \(result.lease) \(status)"
            case .released(let lease, let cause, _, _, let counts):
                "released \(lease) \(cause) \(counts)"
            case .died(let evidence): "died \(evidence.holding.lease) \(evidence.exit.code)"
            case .refused(let lease, _, _, _): "refused \(lease)"
            case .cancelled(let reason, let lease):
                "cancelled \(reason) \(lease.map { "\($0)" } ?? "-")"
            case .requeued(let epoch): "requeued \(epoch)"
            case .forgotten: "forgotten"
            }
        }
    }

    @Test func `explains how the workers of a task ended, also after a salvage (P4)`() throws {
        var kept = try StoryStore()
        let process = WorkerProcess(pid: 50, startTime: 7, bootID: Bench.bootID)
        kept.propose(.worker(id: Bench.worker, process: process))
        let id = try kept.add("told")
        let lease = kept.lease(id)
        kept.release(id, lease, .death, counts: true)
        let exit = ExitMessage(
            pid: 50,
            startTime: 7,
            wasSignal: true,
            code: 11,
            maxResidentBytes: 1 << 20,
            userMicroseconds: 5,
            systemMicroseconds: 6,
            errorTail: Array("last words".utf8)
        )
        kept.propose(.evidence(number: 12, exit))
        try kept.settle()
        let history = try #require(try StoryStore.read(kept.disk).history(of: id))
        #expect(
            Self.words(history) == [
                "added told", "leased \(lease)", "released \(lease) death true", "died \(lease) 11",
            ]
        )
        guard case .died(let evidence)? = history.events.last?.what else { return }
        #expect(evidence.exit == exit && evidence.worker == Bench.worker)
        #expect(try StoryStore.verify(kept.disk).isOK)

        _ = try StoreSalvage(
            from: StoryStore.directory,
            to: "/q/new",
            files: kept.disk,
            driver: .manual
        )
        let salvaged = try #require(try StoryStore.read(kept.disk, "/q/new").history(of: id))
        #expect(Self.words(salvaged) == ["added told", "died \(lease) 11"])
        #expect(try StoryStore.verify(kept.disk, "/q/new").isOK)
    }

    @Test func `explains who ended a task from outside, and its epochs`() throws {
        var kept = try StoryStore()
        let id = try kept.add("told")
        kept.propose(.change(number: 5, .cancel, id: id, reason: "no need"))
        kept.propose(.change(number: 6, .requeue, id: id, reason: ""))
        let lease = kept.lease(id)
        kept.propose(.change(number: 7, .cancel, id: id, reason: "too late"))
        kept.push(id, lease)
        try kept.settle()
        let history = try #require(try StoryStore.read(kept.disk).history(of: id))
        #expect(
            Self.words(history) == [
                "added told", "cancelled no need -", "requeued 1", "leased \(lease)",
                "cancelled too late \(lease)", "refused \(lease)",
            ]
        )
        #expect(history.record?.status == .cancel && history.record?.epoch == 1)
        #expect(history.record?.outcome == .cancel(reason: "too late"))
        #expect(history.record?.startedAt == nil && history.record?.attempt == 1)
    }

    @Test func `explains all of a task's life`() throws {
        var kept = try StoryStore(retentionSeconds: 600)
        let process = WorkerProcess(pid: 4711, startTime: 5, bootID: Bench.bootID)
        kept.propose(.worker(id: Bench.worker, process: process))
        let id = try kept.add("told")
        let other = try kept.add("another")
        let first = kept.lease(id)
        kept.pass(milliseconds: 10)
        kept.release(id, first, .death, counts: true)
        let second = kept.lease(id)
        kept.pass(milliseconds: 10)
        kept.push(
            id,
            second,
            .retry(
                TaskFailure(type: "NoLuck", message: "once more"),
                afterMilliseconds: 5,
                maxAttempts: 3
            )
        )
        kept.pass(milliseconds: 10)
        let third = kept.lease(id)
        kept.push(id, first)
        kept.push(id, third)
        try kept.settle()

        let history = try #require(try StoryStore.read(kept.disk).history(of: id))
        #expect(history.compacted == nil && !history.isForgotten)
        #expect(history.record?.status == .success && history.record?.attempt == 3)
        #expect(history.workers[Bench.worker] == process)
        #expect(
            Self.words(history) == [
                "added told", "leased \(first)", "released \(first) death true",
                "leased \(second)", "ended \(second) scheduled", "leased \(third)",
                "refused \(first)", "ended \(third) success",
            ]
        )
        #expect(try StoryStore.read(kept.disk).history(of: TaskID(high: 1, low: 1)) == nil)

        kept.pass(milliseconds: 700_000)
        try kept.settle()
        #expect(kept.entry(id) == nil && kept.entry(other) != nil)
        let after = try #require(try StoryStore.read(kept.disk).history(of: id))
        #expect(after.isForgotten && after.events.count == 9)
        #expect(after.record?.status == .success)
    }

    @Test func `says what of a task's life was compacted`() throws {
        var kept = try StoryStore(history: .none)
        let id = try kept.add("told")
        let first = kept.lease(id)
        kept.push(
            id,
            first,
            .retry(TaskFailure(type: "A", message: ""), afterMilliseconds: 1, maxAttempts: 9)
        )
        kept.pass(milliseconds: 10)
        let second = kept.lease(id)
        kept.release(id, second, .handedBack, counts: false)
        for _ in 0..<100 {
            let other = try kept.add(bytes: 200)
            kept.push(other, kept.lease(other))
            try kept.settle()
        }
        kept.propose(.compact(number: 5))
        try kept.settle()
        let third = kept.lease(id)
        kept.push(id, third)
        try kept.settle()
        let history = try #require(try StoryStore.read(kept.disk).history(of: id))
        #expect(
            history.compacted == TaskHistory.Compacted(attempts: 2, failures: 0, deaths: 0)
        )
        // the newest result was kept, and with it the failure
        #expect(history.events.count == 4)
        #expect(history.record?.status == .success && history.record?.attempt == 3)
    }
}
