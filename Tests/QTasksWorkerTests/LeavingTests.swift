// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire
import Testing

@testable import QTasksWorker

@Suite
struct `A worker that leaves` {
    @Test func `is finished at once when idle, also without a Broker`() throws {
        var bench = Bench()
        #expect(!bench.state.isFinished)
        bench.state.leave()
        try bench.turn()
        #expect(bench.state.isFinished)
    }

    @Test func `hands back what hasn't started, and finishes what runs`() throws {
        var bench = try Bench.inSession(slots: 1)
        try bench.work([1, 2, 3])
        bench.said = []
        try bench.hear(WireWriter(.retire).bytes)
        #expect(bench.said == [.handBack([2, 3].map(Bench.holding)), .goodbye])
        #expect(!bench.state.isFinished)
        try bench.finish(1)
        #expect(!bench.state.isFinished)
        try bench.acknowledge([Bench.lease(1)])
        #expect(bench.state.isFinished)
        #expect(bench.started == [Bench.lease(1)])
        #expect(bench.state.nextDeadline == nil)
    }

    @Test func `hands back what still comes, and gives no more credit`() throws {
        var bench = try Bench.inSession()
        try bench.work([1])
        bench.state.leave()
        try bench.turn()
        let windows = bench.windows
        try bench.work([2])
        #expect(bench.handedBack == [Bench.holding(2)])
        try bench.finish(1)
        #expect(bench.windows == windows)
    }

    @Test func `says so again to the next Broker`() throws {
        var bench = try Bench.inSession()
        try bench.work([1])
        bench.state.leave()
        try bench.turn()
        bench.said = []
        try bench.welcome(incarnation: 2)
        #expect(bench.hello?.window == 0)
        #expect(bench.hello?.running == [Bench.holding(1)])
        #expect(bench.said.last == .goodbye)
    }

    @Test func `does not wait for a handler whose outcome is decided`() throws {
        var bench = try Bench.inSession(handlers: [Bench.handler("work", timeLimit: .seconds(1))])
        try bench.work([1])
        try bench.pass(Bench.second)
        bench.state.leave()
        try bench.turn()
        #expect(!bench.state.isFinished)
        try bench.acknowledge([Bench.lease(1)])
        #expect(bench.state.isFinished)
    }

    @Test func `gives back a task that ends by a soft cancel: neither an error nor a result`()
        throws
    {
        var bench = try Bench.inSession(slots: 2)
        try bench.work([1, 2, 3, 4])
        try bench.softCancel([1, 2, 3, 99].map(Bench.lease))
        #expect(bench.cancelled == [1, 2].map(Bench.lease))
        #expect(bench.handedBack == [Bench.holding(3)])
        let failure = TaskFailure(type: "CancellationError", message: "CancellationError()")
        try bench.finish(1, .error(failure))
        try bench.finish(2)
        #expect(bench.handedBack == [3, 1].map(Bench.holding))
        #expect(bench.pushed.map(\.lease) == [Bench.lease(2)])
    }

    @Test func `a cancellation that nobody asked for is the handler's own error`() throws {
        var bench = try Bench.inSession()
        try bench.work([1])
        let failure = TaskFailure(type: "CancellationError", message: "CancellationError()")
        try bench.finish(1, .error(failure))
        #expect(bench.pushed.map(\.outcome) == [.error(failure)])
    }
}

@Suite
struct `What a Broker may never cause (P7)` {
    @Test func `a message that cannot be read is counted and changes nothing`() throws {
        var bench = try Bench.inSession()
        try bench.hear([])
        #expect(bench.state.malformedCount == 0)
        for bytes in [
            [1, 2, 3], Array("QT".utf8), WireWriter(.hello).bytes, WireWriter(.work).bytes,
        ] {
            try bench.hear(bytes)
        }
        #expect(bench.state.malformedCount == 4)
        try bench.work([1])
        #expect(bench.started == [Bench.lease(1)])
    }

    @Test func `a count beyond the message's end allocates nothing`() throws {
        var bench = try Bench.inSession()
        for command in [Command.work, .softCancel] {
            var writer = WireWriter(command)
            writer.integer(UInt32.max)
            try bench.hear(writer.bytes)
        }
        #expect(bench.state.malformedCount == 2)
    }

    @Test func `options that cannot be read are the task's last word`() throws {
        var bench = try Bench.inSession()
        var submission = TaskSubmission(id: Bench.id(1), name: "work", arguments: [])
        submission.maxAttempts = 3
        var envelope = WireWriter()
        try submission.write(to: &envelope)
        var bytes = envelope.bytes
        bytes[bytes.count - 7] = 99  // the option's tag
        let task = LeasedTask(
            lease: Bench.lease(1),
            attempt: 1,
            failures: 0,
            epoch: 0,
            isSuspect: false,
            addedAt: bench.now.wall
        )
        var writer = Bench.beginWork()
        bytes.withUnsafeBytes { task.write(envelope: $0, to: &writer) }
        try bench.hear(writer.bytes)
        #expect(bench.pushed.first?.outcome.failureType == "BadOption")
    }

    @Test(arguments: 0..<16)
    func `random bytes never stop a worker`(seed: UInt64) throws {
        var random = TestRandom(state: seed)
        var bench = try Bench.inSession(slots: 3)
        var samples: [[UInt8]] = []
        samples.append(try Self.workMessage())
        samples.append(WireWriter(.retire).bytes)
        let commands: [Command] = [.welcome, .reconciled, .work, .softCancel, .notice, .error]
        for _ in 0..<200 {
            var bytes: [UInt8]
            if Bool.random(using: &random), let sample = samples.first {
                bytes = sample
                for _ in 0..<Int.random(in: 1...4, using: &random) {
                    bytes[Int.random(in: 0..<bytes.count, using: &random)] = .random(
                        in: 0...255,
                        using: &random
                    )
                }
                bytes.removeLast(Int.random(in: 0..<bytes.count, using: &random) / 4)
            } else {
                var writer = WireWriter(commands.randomElement(using: &random) ?? .work)
                for _ in 0..<Int.random(in: 0...60, using: &random) {
                    writer.u8(.random(in: 0...255, using: &random))
                }
                bytes = writer.bytes
            }
            try bench.hear(bytes)
            try bench.pass(.random(in: 0...50_000_000, using: &random))
            #expect(bench.notes.count <= 16 * 1000, "seed \(seed)")
        }
        try bench.welcome()
        #expect(bench.hello != nil, "seed \(seed)")
    }

    private static func workMessage() throws -> [UInt8] {
        var writer = Bench.beginWork(acknowledging: [Bench.lease(77)])
        for number in 1...3 as ClosedRange<UInt32> {
            var submission = TaskSubmission(
                id: Bench.id(number),
                name: "work",
                arguments: [1, 2, 3]
            )
            submission.queue = "other"
            submission.timeLimitMilliseconds = 20
            submission.headers = [.init(name: "traceparent", value: "00-1")]
            try Bench.write(submission, lease: Bench.lease(number), to: &writer)
        }
        return writer.bytes
    }
}
