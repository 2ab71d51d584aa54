// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire
import Testing

@testable import QTasksWorker

@Suite
struct `A worker's session` {
    @Test func `begins with HELLO, which says who it is, what it can run and how much`() throws {
        var bench = Bench(handlers: [Bench.handler("resize"), Bench.handler("crop")], slots: 3)
        #expect(bench.state.nextDeadline == nil)
        try bench.welcome()
        let hello = try #require(bench.hello)
        #expect(hello.worker == Bench.identity.worker)
        #expect(hello.process == Bench.identity.process)
        #expect(hello.parentPid == 41)
        #expect(hello.names == ["resize", "crop"])
        #expect((hello.slots, hello.window) == (3, 3))
        #expect(hello.running.isEmpty && hello.done.isEmpty)
        #expect(bench.said.count == 1)
    }

    @Test func `takes nothing from a Broker that has not greeted it`() throws {
        var bench = Bench()
        try bench.work([1])
        #expect(bench.started.isEmpty && bench.said.isEmpty)
    }

    @Test func `lists in each HELLO what runs, what waits and what is done (P5)`() throws {
        var bench = try Bench.inSession(slots: 2)
        try bench.work([1, 2, 3])
        try bench.finish(1)
        #expect(bench.started == [1, 2, 3].map(Bench.lease))
        try bench.work([4])
        try bench.welcome(incarnation: 2)
        let hello = try #require(bench.hello)
        #expect(Set(hello.running) == Set([2, 3, 4].map(Bench.holding)))
        #expect(hello.done == [Bench.holding(1)])
        #expect(hello.window == 0)
    }

    @Test func `goes on running what the Broker says to keep (P5)`() throws {
        var bench = try Bench.inSession()
        try bench.work([1])
        try bench.welcome(incarnation: 2)
        try bench.reconcile([(Bench.lease(1), .keep)])
        #expect(bench.started == [Bench.lease(1)])
        #expect(bench.cancelled.isEmpty)
        try bench.finish(1)
        #expect(bench.pushed.map(\.lease) == [Bench.lease(1)])
    }

    @Test func `sends a result again, or forgets it, as the Broker says (P2)`() throws {
        var bench = try Bench.inSession()
        try bench.work([1, 2])
        try bench.finish(1)
        try bench.finish(2)
        bench.pushed = []
        try bench.welcome(incarnation: 2)
        try bench.reconcile([(Bench.lease(1), .sendAgain), (Bench.lease(2), .acknowledged)])
        #expect(bench.pushed.map(\.lease) == [Bench.lease(1)])
        try bench.welcome(incarnation: 3)
        #expect(bench.hello?.done == [Bench.holding(1)])
    }

    @Test func `cancels an abandoned task and drops its result, but frees its slot late (P2)`()
        throws
    {
        var bench = try Bench.inSession(slots: 1)
        try bench.work([1])
        try bench.welcome(incarnation: 2)
        try bench.reconcile([(Bench.lease(1), .abandon)])
        #expect(bench.cancelled == [Bench.lease(1)])
        #expect(bench.state.inHand == 1)
        try bench.welcome(incarnation: 3)
        #expect(bench.hello?.running == [])
        try bench.finish(1)
        #expect(bench.pushed.isEmpty)
        #expect(bench.state.inHand == 0)
        #expect(bench.state.nextDeadline == nil)
    }

    @Test func `forgets an abandoned result and an abandoned task that hasn't begun`() throws {
        var bench = try Bench.inSession(slots: 1)
        try bench.work([1, 2, 3])
        try bench.finish(1)
        try bench.welcome(incarnation: 2)
        try bench.reconcile([1, 3].map { (Bench.lease($0), .abandon) })
        try bench.finish(2)
        #expect(bench.started == [1, 2].map(Bench.lease))
        #expect(bench.state.inHand == 0)
        try bench.welcome(incarnation: 3)
        #expect(bench.hello?.done == [Bench.holding(2)])
    }

    @Test func `says of whatever it was to abandon when it holds no slot any more`() throws {
        var bench = try Bench.inSession(slots: 1)
        try bench.work([1, 2])
        try bench.reconcile([1, 2, 7].map { (Bench.lease($0), .abandon) })
        #expect(bench.reports == [2, 7].map { RunningAttempt(returned: Bench.lease($0)) })
        try bench.finish(1)
        #expect(bench.reports.last == RunningAttempt(returned: Bench.lease(1)))
        #expect(bench.reports.count == 3 && bench.pushed.isEmpty)
    }

    @Test func `ignores a task that it holds already, running or done`() throws {
        var bench = try Bench.inSession(slots: 1)
        try bench.work([1, 2])
        try bench.work([1, 2])
        #expect(bench.state.inHand == 2)
        try bench.finish(1)
        try bench.work([1])
        try bench.finish(2)
        #expect(bench.started == [1, 2].map(Bench.lease))
        #expect(bench.pushed.map(\.lease) == [1, 2].map(Bench.lease))
    }

    @Test func `hands back a task whose name it does not know`() throws {
        var bench = try Bench.inSession()
        try bench.work([1], name: "other")
        #expect(bench.handedBack == [Bench.holding(1)])
        #expect(bench.notes == [.unknownName("other")])
        #expect(bench.started.isEmpty && bench.state.inHand == 0)
        #expect(bench.state.nextDeadline == nil)
    }

    @Test func `passes on what the Broker refuses, for the log`() throws {
        var bench = try Bench.inSession()
        let refusal = Refusal(.unsupportedVersion, "version 9")
        try bench.hear(ErrorMessage.encoded(refusal, number: 0))
        #expect(bench.notes == [.refusedByBroker(refusal)])
    }
}

@Suite
struct `A worker's credit` {
    @Test func `is its slots and the buffer ahead, less what is in hand`() throws {
        var bench = try Bench.inSession(slots: 4)
        #expect(bench.windows == [4])
        try bench.work([1, 2, 3, 4])
        #expect(bench.windows == [4])
        // long tasks: no buffer
        try bench.pass(Bench.second)
        try bench.finish(1)
        #expect(bench.windows == [4, 5])
    }

    @Test func `waits for RECONCILED before it grows`() throws {
        var bench = Bench(slots: 2)
        try bench.welcome()
        bench.state.setSlots(8)
        try bench.turn()
        #expect(bench.windows == [2])
        try bench.work([1])
        try bench.reconcile([])
        #expect(bench.windows == [2, 8])
    }

    @Test func `counts from zero in each session`() throws {
        var bench = try Bench.inSession(slots: 2)
        try bench.work([1, 2])
        try bench.finish(1)
        try bench.welcome()
        #expect(bench.windows == [1])
    }

    @Test(arguments: 0..<20)
    func `never shrinks within a session, whatever happens`(seed: UInt64) throws {
        var random = TestRandom(state: seed)
        var bench = try Bench.inSession(slots: 5)
        var next: UInt32 = 1
        var running: [UInt32] = []
        for _ in 0..<400 {
            switch UInt64.random(in: 0..<6, using: &random) {
            case 0, 1:
                let room = UInt32((bench.windows.last ?? 0) - UInt64(next - 1))
                let count = UInt32.random(in: 0...min(room, 20), using: &random)
                try bench.work(next..<next + count)
                running += next..<next + count
                next += count
            case 2, 3:
                let started = running.filter { bench.started.contains(Bench.lease($0)) }
                guard let number = started.randomElement(using: &random) else { continue }
                running.removeAll { $0 == number }
                try bench.finish(number)
            case 4: try bench.pass(.random(in: 0...20_000_000, using: &random))
            default:
                bench.state.setSlots(.random(in: 1...9, using: &random))
                try bench.turn()
            }
            let windows = bench.windows
            #expect(windows == windows.sorted(), "seed \(seed)")
            running.removeAll { bench.handedBack.contains(Bench.holding($0)) }
        }
        #expect(next > 20, "seed \(seed)")
    }

    @Test func `grows to about 2 ms of work ahead for short tasks`() throws {
        var bench = try Bench.inSession(slots: 10)
        for number in 1...300 as ClosedRange<UInt32> {
            try bench.work([number])
            try bench.pass(100_000)
            try bench.finish(number)
            try bench.acknowledge([Bench.lease(number)])
        }
        // 10 slots at 0.1 ms a task: 200 tasks in 2 ms
        let ahead = try #require(bench.windows.last) - 300
        #expect(ahead > 150 && ahead <= 210)
    }

    @Test func `stops growing while too many results are unacknowledged (P7)`() throws {
        var bench = try Bench.inSession(slots: 10)
        var next: UInt32 = 1
        while let window = bench.windows.last, UInt64(next) <= window {
            let batch = next..<UInt32(window) + 1
            try bench.work(batch)
            for number in batch { try bench.finish(number) }
            next = batch.upperBound
        }
        #expect(Int(next) - 1 == Outbox.countMax)
        try bench.acknowledge((1...100).map(Bench.lease))
        #expect(bench.windows.last == UInt64(Outbox.countMax) + 100)
    }

    @Test func `stops growing while the unacknowledged results are too large (P7)`() throws {
        var bench = try Bench.inSession(slots: 2)
        var next: UInt32 = 1
        let large = TaskOutcome.success(
            result: [UInt8](repeating: 1, count: 8 << 20),
            contentType: nil
        )
        while let window = bench.windows.last, UInt64(next) <= window, next < 100 {
            try bench.work([next])
            try bench.pass(10 * Bench.millisecond)
            try bench.finish(next, large)
            next += 1
        }
        #expect(next <= 10)
        try bench.acknowledge((1...8).map(Bench.lease))
        #expect(try #require(bench.windows.last) > UInt64(next - 1))
    }

    @Test func `follows a change of slots at run time`() throws {
        var bench = try Bench.inSession(slots: 1)
        try bench.work([1, 2, 3])
        #expect(bench.started == [Bench.lease(1)])
        bench.state.setSlots(3)
        try bench.turn()
        #expect(bench.started == [1, 2, 3].map(Bench.lease))
        bench.state.setSlots(1)
        try bench.pass(Bench.second)
        try bench.finish(1)
        try bench.finish(2)
        #expect(bench.windows.last == 3)
        try bench.finish(3)
        #expect(bench.windows.last == 4)
    }

    @Test func `is not spent on a queue that stands still: others may be free`() throws {
        var bench = try Bench.inSession(slots: 1)
        try bench.work([1, 2, 3])
        #expect(bench.state.nextDeadline != nil)
        try bench.pass(WorkerState.stallNanoseconds)
        #expect(bench.handedBack == [2, 3].map(Bench.holding))
        #expect(bench.notes == [.stalled(2)])
        #expect(bench.state.inHand == 1)
        #expect(bench.state.nextDeadline == nil)
    }
}

/// SplitMix64: a seed that is printed with a failure replays it.
struct TestRandom: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
        return mixed ^ mixed >> 31
    }
}
