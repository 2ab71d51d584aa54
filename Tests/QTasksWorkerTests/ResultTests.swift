// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire
import Testing

@testable import QTasksWorker

@Suite
struct `A worker's results` {
    @Test func `are kept and sent again until they are acknowledged (P2)`() throws {
        var bench = try Bench.inSession()
        try bench.work([1])
        try bench.finish(1)
        #expect(bench.pushed.count == 1)
        try bench.pass(Outbox.waitMin)
        #expect(bench.pushed.count == 2)
        #expect(bench.pushed[0] == bench.pushed[1])
        try bench.acknowledge([Bench.lease(1)])
        try bench.pass(100 * Bench.second)
        #expect(bench.pushed.count == 2)
        #expect(bench.state.nextDeadline == nil)
    }

    @Test func `are sent again after 1 s, doubling to 10 s`() throws {
        var bench = try Bench.inSession()
        try bench.work([1])
        try bench.finish(1)
        var waits: [UInt64] = []
        for _ in 0..<6 {
            let deadline = try #require(bench.state.nextDeadline)
            waits.append((deadline - bench.now.monotonic) / Bench.second)
            try bench.pass(deadline - bench.now.monotonic)
        }
        #expect(waits == [1, 2, 4, 8, 10, 10])
        #expect(bench.pushed.count == 7)
    }

    @Test func `set no timer while none is unacknowledged (P8)`() throws {
        var bench = try Bench.inSession()
        #expect(bench.state.nextDeadline == nil)
        try bench.work([1])
        #expect(bench.state.nextDeadline == nil)
        try bench.finish(1)
        #expect(bench.state.nextDeadline != nil)
        try bench.acknowledge([Bench.lease(1)])
        #expect(bench.state.nextDeadline == nil)
    }

    @Test func `that were just sent are not sent again with older ones`() throws {
        var bench = try Bench.inSession()
        try bench.work([1, 2])
        try bench.finish(1)
        try bench.pass(Outbox.waitMin - 1)
        try bench.finish(2)
        try bench.pass(1)
        #expect(bench.pushed.map(\.lease) == [1, 2, 1].map(Bench.lease))
    }

    @Test func `all go again at once when Storage was opened anew (P1)`() throws {
        var bench = try Bench.inSession()
        try bench.work([1, 2])
        try bench.finish(1)
        try bench.finish(2)
        bench.pushed = []
        try bench.notice()
        #expect(Set(bench.pushed.map(\.lease)) == Set([1, 2].map(Bench.lease)))
        #expect(bench.state.nextDeadline == bench.now.monotonic + Outbox.waitMin)
    }

    @Test func `all go again when Storage can be reached after a send failed`() throws {
        var bench = try Bench.inSession()
        try bench.work([1])
        try bench.finish(1)
        bench.state.storageIsBack()
        try bench.turn()
        #expect(bench.pushed.map(\.lease) == [1, 1].map(Bench.lease))
    }

    @Test func `of one turn go as one message`() throws {
        var bench = try Bench.inSession(slots: 3)
        try bench.work([1, 2, 3])
        for number in 1...3 as ClosedRange<UInt32> {
            let end = AttemptEnd(
                lease: Bench.lease(number),
                outcome: .cancel(reason: "r"),
                startedAt: bench.now.wall,
                finishedAt: bench.now.wall
            )
            bench.state.finished(end, now: bench.now)
        }
        try bench.turn()
        #expect(bench.pushed.count == 3)
        #expect(bench.pushedBytes.count == 1)
    }

    @Test func `are split into messages of about 1 MiB`() throws {
        var bench = try Bench.inSession(slots: 8)
        try bench.work(1...8)
        for number in 1...8 as ClosedRange<UInt32> {
            let end = AttemptEnd(
                lease: Bench.lease(number),
                outcome: .success(result: [UInt8](repeating: 3, count: 400_000), contentType: nil),
                startedAt: bench.now.wall,
                finishedAt: bench.now.wall
            )
            bench.state.finished(end, now: bench.now)
        }
        try bench.turn()
        #expect(bench.pushed.map(\.lease) == (1...8).map(Bench.lease))
        #expect(bench.pushedBytes.count == 4)
        #expect(bench.pushedBytes.allSatisfy { $0 <= ResultPacker.messageBytes })
    }

    @Test func `over the limit become an error`() throws {
        var bench = Bench()
        try bench.welcome(maxPayload: 1000)
        try bench.work([1, 2])
        let fits = TaskOutcome.success(result: [UInt8](repeating: 0, count: 1000), contentType: nil)
        let tooLarge = TaskOutcome.success(
            result: [UInt8](repeating: 0, count: 1001),
            contentType: nil
        )
        try bench.finish(1, fits)
        try bench.finish(2, tooLarge)
        #expect(bench.pushed[0].outcome == fits)
        #expect(bench.pushed[1].outcome.failureType == "ResultTooLarge")
    }

    @Test func `carry when the handler began and ended`() throws {
        var bench = try Bench.inSession()
        try bench.work([1])
        let end = AttemptEnd(
            lease: Bench.lease(1),
            outcome: .cancel(reason: "r"),
            startedAt: Timestamp(nanoseconds: 11),
            finishedAt: Timestamp(nanoseconds: 22)
        )
        bench.state.finished(end, now: bench.now)
        try bench.turn()
        let entry = try #require(bench.pushed.first)
        #expect(entry.id == Bench.id(1))
        #expect((entry.startedAt.nanoseconds, entry.finishedAt.nanoseconds) == (11, 22))
    }
}

@Suite
struct `A time limit` {
    private static let policy = RetryPolicy.fixed(maxAttempts: 3, delay: .seconds(7))

    @Test func `is recorded at the deadline, and the slot is free only when the handler returns`()
        throws
    {
        var bench = try Bench.inSession(
            handlers: [Bench.handler("work", timeLimit: .seconds(5))],
            slots: 1
        )
        try bench.work([1])
        try bench.pass(5 * Bench.second - 1)
        #expect(bench.pushed.isEmpty)
        let began = bench.now.wall.nanoseconds
        try bench.pass(1)
        let entry = try #require(bench.pushed.first)
        #expect(entry.outcome.failureType == TaskFailure.timeLimitType)
        #expect(entry.finishedAt.nanoseconds == began + 1)
        #expect(bench.cancelled == [Bench.lease(1)])
        // the slot
        try bench.acknowledge([Bench.lease(1)])
        try bench.work([2])
        #expect(bench.started == [Bench.lease(1)])
        // the handler's own word comes too late
        try bench.finish(1)
        #expect(bench.pushed.count == 1)
        #expect(bench.started == [1, 2].map(Bench.lease))
    }

    @Test func `is told to the Broker as the attempt begins, and when its handler has returned`()
        throws
    {
        var bench = try Bench.inSession(
            handlers: [
                Bench.handler("work", retry: Self.policy, timeLimit: .seconds(5)),
                Bench.handler("endless"),
            ],
            slots: 2
        )
        try bench.work([1])
        let report = RunningAttempt(
            lease: Bench.lease(1),
            deadline: bench.now.monotonic + 5 * Bench.second,
            startedAt: bench.now.wall,
            retryMilliseconds: 7000,
            maxAttempts: 3
        )
        #expect(bench.reports == [report])
        // the handler goes on past its limit
        try bench.pass(5 * Bench.second)
        #expect(bench.reports == [report])
        // to another Broker all is told anew
        try bench.welcome(incarnation: 2)
        #expect(bench.hello?.running == [] && bench.hello?.reportsRunning == true)
        #expect(bench.reports == [report, report])
        try bench.reconcile([])
        try bench.finish(1)
        #expect(bench.reports == [report, report, RunningAttempt(returned: Bench.lease(1))])
    }

    @Test func `of the add goes before the handler's`() throws {
        var bench = try Bench.inSession(handlers: [Bench.handler("work", timeLimit: .seconds(5))])
        try bench.work([1], timeLimitMilliseconds: 1500)
        #expect(bench.state.nextDeadline == bench.now.monotonic + 1500 * Bench.millisecond)
    }

    @Test func `leads to another attempt while the policy has one`() throws {
        var bench = try Bench.inSession(
            handlers: [Bench.handler("work", retry: Self.policy, timeLimit: .seconds(1))]
        )
        try bench.work([1], failures: 0)
        try bench.work([2], failures: 2)
        try bench.pass(Bench.second)
        let outcomes = Dictionary(uniqueKeysWithValues: bench.pushed.map { ($0.lease, $0.outcome) })
        guard case .retry(_, 7000, 3) = outcomes[Bench.lease(1)] else {
            Issue.record("\(outcomes)")
            return
        }
        guard case .error = outcomes[Bench.lease(2)] else {
            Issue.record("\(outcomes)")
            return
        }
    }

    @Test func `leads to none where retryIf says that it is not worth it`() throws {
        var bench = try Bench.inSession(
            handlers: [
                Bench.handler(
                    "work",
                    retry: Self.policy,
                    retryIf: { !($0 is TimeLimitError) },
                    timeLimit: .seconds(1)
                )
            ]
        )
        try bench.work([1])
        try bench.pass(Bench.second)
        guard case .error = bench.pushed.first?.outcome else {
            Issue.record("\(bench.pushed)")
            return
        }
    }

    @Test func `sets no timer once nothing that has one runs (P8)`() throws {
        var bench = try Bench.inSession(handlers: [Bench.handler("work", timeLimit: .seconds(5))])
        try bench.work([1, 2])
        try bench.finish(1)
        try bench.acknowledge([Bench.lease(1)])
        #expect(bench.state.nextDeadline != nil)
        try bench.finish(2)
        try bench.acknowledge([Bench.lease(2)])
        #expect(bench.state.nextDeadline == nil)
    }

    @Test func `of a later task is met after an earlier one's was not needed`() throws {
        var bench = try Bench.inSession(handlers: [Bench.handler("work", timeLimit: .seconds(5))])
        try bench.work([1])
        try bench.pass(2 * Bench.second)
        try bench.work([2])
        try bench.finish(1)
        try bench.acknowledge([Bench.lease(1)])
        try bench.pass(5 * Bench.second - 1)
        #expect(bench.pushed.map(\.lease) == [Bench.lease(1)])
        try bench.pass(1)
        #expect(bench.pushed.map(\.lease) == [1, 2].map(Bench.lease))
    }

    @Test func `does not count while the task waits for a slot`() throws {
        var bench = try Bench.inSession(
            handlers: [Bench.handler("work", timeLimit: .milliseconds(60))],
            slots: 1
        )
        try bench.work([1, 2])
        try bench.pass(50 * Bench.millisecond)
        try bench.finish(1)
        #expect(bench.started == [1, 2].map(Bench.lease))
        try bench.pass(59 * Bench.millisecond)
        #expect(bench.pushed.map(\.lease) == [Bench.lease(1)])
    }
}
