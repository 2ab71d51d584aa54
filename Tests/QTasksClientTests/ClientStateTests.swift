// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire
import Testing

@testable import QTasksClient

/// What a client says and hears, in virtual time.
@Suite
struct `A client` {
    private var client = ClientUnderTest()
    private let task = submission()

    @Test mutating func `says nothing before the Broker's welcome`() throws {
        client.begin(1, .add(try batch([task]), wait: false))
        #expect(client.turn().isEmpty)
        let sent = client.welcome()
        #expect(sent.map(\.command) == [.add])
        #expect(sent.first?.ids == [task.id])
    }

    @Test mutating func `sends the adds of one turn as one message`() throws {
        _ = client.welcome()
        let tasks = (0..<100).map { _ in submission() }
        for (index, task) in tasks.enumerated() {
            client.begin(UInt64(index + 1), .add(try batch([task]), wait: false))
        }
        let sent = client.turn()
        #expect(sent.count == 1)
        #expect(sent.first?.ids == tasks.map(\.id))
    }

    @Test mutating func `splits adds by count and by bytes`() throws {
        _ = client.welcome(window: 100_000)
        client.begin(1, .add(try batch((0..<5000).map { _ in submission() }), wait: false))
        #expect(client.turn().map(\.ids.count) == [4096, 904])
        let large = (0..<4).map { _ in submission(bytes: 600 << 10) }
        client.begin(2, .add(try batch(large), wait: false))
        #expect(client.turn().map(\.ids.count) == [1, 1, 1, 1])
    }

    @Test mutating func `says every unanswered add again in a new session, with the same IDs`()
        throws
    {
        _ = client.welcome()
        let tasks = (0..<10).map { _ in submission() }
        client.begin(1, .add(try batch(tasks), wait: false))
        _ = client.turn()
        _ = client.receipt([tasks[3].id])
        client.state.disconnected()
        #expect(client.turn().isEmpty)
        let again = client.welcome()
        #expect(again.flatMap(\.ids) == tasks.map(\.id).filter { $0 != tasks[3].id })
        _ = client.receipt(tasks.map(\.id), .exists)
        #expect(client.addFailures(of: 1)?.isEmpty == true)
    }

    @Test mutating func `asks for the end of an add that went out before anybody wanted it`() throws
    {
        _ = client.welcome()
        client.begin(1, .add(try batch([task]), wait: false))
        _ = client.turn()
        client.begin(2, .add(try batch([task]), wait: true))
        #expect(client.turn().isEmpty)
        let asked = client.receipt([task.id])
        #expect(asked.map(\.command) == [.get])
        #expect(asked.first?.options == .wait)
        #expect(asked.first?.ids == [task.id])
    }

    @Test mutating func `is told of the task that holds the unique key of one that isn't added`()
        throws
    {
        _ = client.welcome()
        let (other, holder) = (submission(), TaskID())
        client.begin(1, .add(try batch([task, other]), wait: false))
        _ = client.turn()
        _ = client.receipt([other.id])
        _ = client.receipt([task.id], .same(holder))
        #expect(client.addFailures(of: 1)?.isEmpty == true)
        #expect(client.ids(of: 1) == [holder, other.id])
    }

    @Test mutating func `waits for the end of the task that holds the key, without asking again`()
        throws
    {
        _ = client.welcome()
        let (other, holding) = (submission(), submission())
        let holder = holding.id
        client.begin(1, .add(try batch([task, other]), wait: true), seconds: 60)
        _ = client.turn()
        // both are repeats of one
        #expect(client.receipt([task.id, other.id], .same(holder)).isEmpty)
        #expect(client.record(holder, .found, finished(holding)).isEmpty)
        #expect(client.reports(of: 1)?.count == 2)
        #expect(client.ids(of: 1) == [holder, holder])
        #expect(client.state.nextDeadline == nil, "P8")
    }

    @Test mutating func `asks a new session for the end of the task that holds the key`() throws {
        _ = client.welcome()
        let holder = TaskID()
        client.begin(1, .add(try batch([task]), wait: true))
        _ = client.turn()
        _ = client.receipt([task.id], .same(holder))
        client.state.disconnected()
        let again = client.welcome()
        #expect(again.map(\.command) == [.get])
        #expect(again.flatMap(\.ids) == [holder])
        client.state.forget(1)
        #expect(client.state.waits.isEmpty && client.state.adds.isEmpty)
    }

    @Test mutating func `matches receipts by task, whatever message they answer`() throws {
        _ = client.welcome()
        let other = submission()
        client.begin(1, .add(try batch([task]), wait: false))
        _ = client.turn()
        client.begin(2, .add(try batch([other]), wait: false))
        _ = client.turn()
        _ = client.receipt([other.id])
        #expect(client.results.keys.sorted() == [2])
        _ = client.receipt([task.id], .refused(Refusal(.badOption, "no")))
        #expect(client.addFailures(of: 1)?[0]?.code == .badOption)
    }

    @Test mutating func `keeps what the window has no room for`() throws {
        _ = client.welcome(window: 3)
        let tasks = (0..<5).map { _ in submission() }
        client.begin(1, .add(try batch(tasks), wait: false))
        #expect(client.turn().flatMap(\.ids) == tasks[..<3].map(\.id))
        #expect(client.receipt([tasks[0].id]).flatMap(\.ids) == [tasks[3].id])
        #expect(client.receipt(tasks[1...3].map(\.id)).flatMap(\.ids) == [tasks[4].id])
    }

    @Test mutating func `repeats an unanswered add after 1 s, doubling to 10 s`() throws {
        _ = client.welcome()
        client.begin(1, .add(try batch([task]), wait: false))
        _ = client.turn()
        var times: [UInt64] = []
        let start = client.now
        while times.count < 7 {
            let deadline = try #require(client.state.nextDeadline)
            client.now = deadline
            client.state.timer(now: deadline)
            if !client.turn().isEmpty { times.append((deadline - start) / 1_000_000_000) }
        }
        #expect(times == [1, 3, 7, 15, 25, 35, 45])
        _ = client.receipt([task.id])
        #expect(client.state.nextDeadline == nil)
    }

    @Test mutating func `has no timer where nothing is awaited`() throws {
        #expect(client.state.nextDeadline == nil)
        _ = client.welcome()
        client.begin(1, .add(try batch([task]), wait: true), seconds: 60)
        client.begin(2, .ping, seconds: 1)
        _ = client.turn()
        #expect(client.state.nextDeadline != nil)
        _ = client.receipt([task.id])
        _ = client.record(task.id, .found, finished(task))
        client.state.forget(2)
        #expect(client.state.nextDeadline == nil)
        #expect(client.state.callCount == 0)
        #expect(client.state.adds.isEmpty && client.state.waits.isEmpty)
        #expect(client.state.exchanges.isEmpty)
    }

    @Test mutating func `asks no more while it only waits for a result`() throws {
        _ = client.welcome()
        client.begin(1, .wait([task.id]))
        #expect(client.turn().map(\.waitMilliseconds) == [0])
        #expect(client.state.nextDeadline == nil)
        _ = client.welcome()
        #expect(client.pass(seconds: 3600).isEmpty)
    }

    @Test mutating func `tries a transient refusal again until the call's time is over`() throws {
        _ = client.welcome()
        client.begin(1, .add(try batch([task]), wait: false), seconds: 5)
        _ = client.turn()
        var tries = 0
        while client.results[1] == nil {
            _ = client.receipt([task.id], .refused(Refusal(.overloaded, "full (--max-queued)")))
            let next = try #require(client.state.nextDeadline)
            client.now = next
            client.state.timer(now: next)
            tries += client.turn().filter { $0.command == .add }.count
        }
        // after 50 ms, doubling to 2 s
        #expect(tries == 6)
        let failure = try #require(client.addFailures(of: 1)?[0])
        #expect(failure.code == .overloaded)
        #expect(failure.message.contains("--max-queued"))
        #expect(client.state.nextDeadline == nil)
    }

    @Test mutating func `takes an add once the refusal is over`() throws {
        _ = client.welcome()
        client.begin(1, .add(try batch([task]), wait: false), seconds: 5)
        _ = client.turn()
        _ = client.receipt([task.id], .refused(Refusal(.stopping, "being stopped")))
        #expect(client.pass(seconds: 0.06).flatMap(\.ids) == [task.id])
        _ = client.receipt([task.id])
        #expect(client.addFailures(of: 1)?.isEmpty == true)
    }

    @Test
    mutating func `asks again for a wait that was refused with an add which was there already`()
        throws
    {
        _ = client.welcome()
        client.begin(1, .add(try batch([task]), wait: false), seconds: 5)
        _ = client.turn()
        client.begin(2, .add(try batch([task]), wait: true), seconds: 50)
        // unanswered for long: it is sent once more, and with it the wait
        #expect(client.pass(seconds: 1.5).contains { $0.options.contains(.wait) })
        // the first is taken; the second finds the queue full
        _ = client.receipt([task.id])
        _ = client.receipt([task.id], .refused(Refusal(.overloaded, "full")))
        let asked = client.pass(seconds: 1)
        #expect(asked.contains { $0.command == .get && $0.ids == [task.id] })
    }

    @Test mutating func `says that nobody was there`() throws {
        client.begin(1, .add(try batch([task]), wait: false), seconds: 2)
        client.begin(2, .ping, seconds: 1)
        client.begin(3, .wait([task.id]), seconds: 1)
        _ = client.turn()
        _ = client.pass(seconds: 3)
        #expect(client.addFailures(of: 1)?[0]?.code == .brokerUnreachable)
        #expect(client.error(of: 2)?.code == .brokerUnreachable)
        guard case .failed(let error)? = client.reports(of: 3)?.first else {
            Issue.record("the wait did not fail")
            return
        }
        #expect(error.code == .brokerUnreachable)
        #expect(error.message.contains("1 s"))
    }

    @Test mutating func `tells the last record where a wait's time is over`() throws {
        _ = client.welcome()
        client.begin(1, .wait([task.id]), seconds: 1)
        let asked = try #require(client.turn().first)
        #expect((1000...1020).contains(asked.waitMilliseconds))
        client.now += UInt64(asked.waitMilliseconds) * 1_000_000
        client.state.timer(now: client.now)
        #expect(client.turn().isEmpty)
        #expect(client.results.isEmpty, "the Broker has 100 ms for its last word")
        _ = client.record(task.id, .timedOut, queued(task, unroutable: true))
        guard case .timedOut(let last?)? = client.reports(of: 1)?.first else {
            Issue.record("no time-out with a record")
            return
        }
        #expect(last.isUnroutable)
        #expect(try last.decoded().name == "count")
        #expect(client.state.nextDeadline == nil)
    }

    @Test mutating func `ends a wait by itself where the Broker says nothing`() throws {
        _ = client.welcome()
        client.begin(1, .wait([task.id]), seconds: 1)
        _ = client.turn()
        _ = client.pass(seconds: 1.2)
        guard case .timedOut(nil)? = client.reports(of: 1)?.first else {
            Issue.record("no time-out")
            return
        }
    }

    @Test mutating func `waits on for a caller with more time`() throws {
        _ = client.welcome()
        client.begin(1, .wait([task.id]), seconds: 1)
        _ = client.turn()
        client.begin(2, .wait([task.id]), seconds: 10)
        #expect(client.turn().count == 1, "asked again, for longer")
        client.now += 1_050_000_000
        _ = client.record(task.id, .timedOut, queued(task, unroutable: false))
        #expect(client.results.keys.sorted() == [1])
        _ = client.record(task.id, .found, finished(task))
        guard case .record(let record)? = client.reports(of: 2)?.first else {
            Issue.record("no record")
            return
        }
        #expect(try record.outcome() == .success(result: [1, 2], contentType: nil))
    }

    @Test mutating func `waits for the end of what it adds with one message`() throws {
        _ = client.welcome()
        client.begin(1, .add(try batch([task]), wait: true), seconds: 10)
        let sent = client.turn()
        #expect(sent.map(\.options) == [.wait])
        #expect(client.receipt([task.id]).isEmpty)
        // the session breaks: the receipt was there, so only the wait is repeated
        let again = client.welcome()
        #expect(again.map(\.command) == [.get])
        #expect(again.map(\.options) == [.wait])
        _ = client.record(task.id, .found, finished(task))
        #expect(client.reports(of: 1)?.count == 1)
    }

    @Test mutating func `takes a record that isn't final for no end`() throws {
        _ = client.welcome()
        client.begin(1, .wait([task.id]))
        client.begin(2, .get([task.id]))
        #expect(client.turn().count == 2)
        _ = client.record(task.id, .found, queued(task, unroutable: false))
        #expect(client.results.keys.sorted() == [2])
    }

    @Test mutating func `asks the next system where the Broker stops`() throws {
        _ = client.welcome()
        client.begin(1, .wait([task.id]))
        _ = client.turn()
        #expect(client.record(task.id, .stopping).isEmpty)
        #expect(client.pass(seconds: 0.06).map(\.command) == [.get])
        _ = client.record(task.id, .notFound)
        guard case .notFound? = client.reports(of: 1)?.first else {
            Issue.record("no report")
            return
        }
    }

    @Test mutating func `asks anew for the end of its add where an earlier task is gone`()
        throws
    {
        _ = client.welcome()
        client.begin(1, .add(try batch([task]), wait: true))
        _ = client.turn()
        // what somebody else asked about the task that was forgotten
        #expect(client.record(task.id, .notFound).isEmpty)
        #expect(client.receipt([task.id], .exists).map(\.command) == [.get])
        #expect(client.reports(of: 1) == nil)
    }

    @Test mutating func `refuses arguments over the limit without sending them`() throws {
        _ = client.welcome(maxPayload: 100)
        client.begin(1, .add(try batch([submission(bytes: 101), task]), wait: false))
        #expect(client.turn().flatMap(\.ids) == [task.id])
        _ = client.receipt([task.id])
        let failure = try #require(client.addFailures(of: 1)?[0])
        #expect(failure.code == .payloadTooLarge)
        #expect(failure.message.contains("101 bytes") && failure.message.contains("100"))
    }

    @Test mutating func `gives up what broke three sessions and is large`() throws {
        let large = submission(bytes: 90)
        client.begin(1, .add(try batch([large]), wait: false))
        client.begin(2, .add(try batch([task]), wait: false))
        for _ in 0..<4 { _ = client.welcome(maxPayload: 100) }
        #expect(client.addFailures(of: 1)?[0]?.code == .connectionLost)
        #expect(client.results[2] == nil)
    }

    @Test mutating func `stops repeating an add before the repetition could be another task`()
        throws
    {
        _ = client.welcome()
        client.begin(1, .add(try batch([task]), wait: false))
        _ = client.turn()
        _ = client.pass(seconds: 320)
        #expect(client.addFailures(of: 1)?[0]?.code == .timeout)
        #expect(client.state.nextDeadline == nil)
    }

    @Test mutating func `forgets a cancelled call`() throws {
        _ = client.welcome()
        client.begin(1, .add(try batch([task]), wait: false))
        client.begin(2, .wait([task.id]))
        _ = client.turn()
        client.state.forget(1)
        client.state.forget(2)
        #expect(client.state.nextDeadline == nil)
        #expect(client.welcome().isEmpty)
        _ = client.receipt([task.id])
        #expect(client.results.isEmpty)
    }

    @Test mutating func `refuses two contents under one ID`() throws {
        var other = task
        other.arguments = [9]
        client.begin(1, .add(try batch([task]), wait: false))
        client.begin(2, .add(try batch([other]), wait: false))
        client.begin(3, .add(try batch([task]), wait: false))
        _ = client.turn()
        #expect(client.addFailures(of: 2)?[0]?.code == .conflict)
        #expect(client.welcome().flatMap(\.ids) == [task.id])
        _ = client.receipt([task.id])
        #expect(client.results.keys.sorted() == [1, 2, 3])
    }

    @Test mutating func `fails what an ERROR names`() throws {
        _ = client.welcome()
        client.begin(1, .add(try batch([task]), wait: false))
        client.begin(2, .inspect("nonsense"))
        client.begin(3, .wait([task.id]))
        for message in client.turn() {
            let error = ErrorMessage.encoded(
                Refusal(.unknownCommand, "no such thing"),
                number: message.number
            )
            _ = client.hear(error)
        }
        #expect(client.addFailures(of: 1)?[0]?.code == .unknownCommand)
        guard case .failed(let error)? = client.reports(of: 3)?.first else {
            Issue.record("the wait did not fail")
            return
        }
        #expect(error.code == .unknownCommand)
    }

    @Test(arguments: 0..<20)
    mutating func `survives any bytes`(seed: UInt64) throws {
        var random = SplitMix(state: seed)
        _ = client.welcome()
        client.begin(1, .add(try batch([task]), wait: true))
        let whole = recordsMessage(task.id, .found, finished(task))
        for _ in 0..<500 {
            var bytes = whole
            for _ in 0...random.next() % 4 {
                bytes[Int(random.next() % UInt64(bytes.count))] = UInt8(
                    truncatingIfNeeded: random.next()
                )
            }
            bytes.removeLast(Int(random.next() % UInt64(bytes.count)))
            if random.next() % 8 == 0 { bytes[0...] = bytes[(bytes.count / 2)...] }
            _ = client.hear(bytes)
        }
        #expect(client.state.malformedCount > 0, "seed \(seed)")
    }
}

private struct SplitMix {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
        return mixed ^ mixed >> 31
    }
}
