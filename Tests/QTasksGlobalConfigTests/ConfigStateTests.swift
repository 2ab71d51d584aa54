// Part of QTasks. License: see LICENSE.

import QTasksGlobalConfig
import QTasksWire
import Testing
import ZeroMQ

@Suite struct `GlobalConfig deciding about changes` {
    @Test func `a change is answered, shown and published only once it is on disk`() throws {
        var core = CoreHarness()
        core.set("mail.sender", "a@example.org", number: 7)
        #expect(core.records.map(\.sequence) == [1])
        #expect(core.replies.isEmpty && core.publications.isEmpty)
        #expect(core.state.values.isEmpty && core.state.sequence == 0)
        core.sync()
        let reply = try #require(core.replies.first.flatMap { Message($0.message) })
        #expect(reply.command == .configDone && reply.number == 7)
        let update = try #require(core.publications.first.flatMap { Message($0) })
        #expect(update.number == 1)
        #expect(update.entry == ConfigEntry(key: "mail.sender", value: Array("a@example.org".utf8)))
        #expect(core.state.values["mail.sender"] == Array("a@example.org".utf8))
    }

    @Test func `numbers have no gaps and follow the order of the requests`() {
        var core = CoreHarness()
        for number in 1...5 { core.set("key", "\(number)", number: UInt64(number)) }
        core.sync()
        #expect(core.publications.compactMap { Message($0)?.number } == [1, 2, 3, 4, 5])
        #expect(core.replies.compactMap { Message($0.message)?.number } == [1, 2, 3, 4, 5])
        #expect(core.state.values["key"] == Array("5".utf8))
    }

    @Test func `a repeated change writes nothing and still waits for the disk`() {
        var core = CoreHarness()
        core.set("key", "v", number: 1)
        core.set("key", "v", number: 2)
        #expect(core.records.count == 1 && core.replies.isEmpty)
        core.sync()
        #expect(core.replies.compactMap { Message($0.message)?.number } == [1, 2])
        core.set("key", "v", number: 3)
        #expect(core.records.count == 1 && core.replies.count == 3)
        #expect(core.publications.count == 1)
    }

    @Test func `what was restored is there, and the next change gets the next number`() {
        var core = CoreHarness()
        core.state.restore(
            ConfigRecord(sequence: 1, entry: ConfigEntry(key: "a", value: [1]))
        )
        core.state.restore(
            ConfigRecord(sequence: 2, entry: ConfigEntry(key: "b", value: [2]))
        )
        core.state.restore(ConfigRecord(sequence: 3, entry: ConfigEntry(key: "a", value: nil)))
        #expect(core.state.values == ["b": [2]] && core.state.sequence == 3)
        core.set("a", "x")
        #expect(core.records.map(\.sequence) == [4])
    }

    @Test func `without a disk, those who wait and those who come later are told`() {
        var core = CoreHarness()
        core.set("key", "v", number: 1)
        core.state.logFailed("the disk is gone")
        core.set("key", "w", number: 2)
        #expect(core.refusals.map(\.code) == [.storageUnavailable, .storageUnavailable])
        #expect(core.state.values.isEmpty)
    }

    @Test func `patterns choose keys, and a snapshot has them all`() throws {
        var core = CoreHarness()
        core.set("mail.host", "h")
        core.set("mail.port", "25")
        core.set("log.level", "debug")
        core.sync()
        core.replies = []
        core.send(ConfigGetMessage.encoded(pattern: "mail.*", number: 1))
        core.send(ConfigGetMessage.encoded(pattern: "mail.host", number: 2))
        core.send(ConfigGetMessage.snapshot(number: 3))
        let values = try core.replies.map { try #require(Message($0.message)?.values) }
        #expect(
            values.map { $0.values.keys.sorted() } == [
                ["mail.host", "mail.port"], ["mail.host"], ["log.level", "mail.host", "mail.port"],
            ]
        )
        #expect(values.allSatisfy { $0.sequence == 3 })
    }
}

@Suite struct `GlobalConfig refusing` {
    @Test(arguments: [
        ("log.level", "loud", "trace, debug, info, notice, warning, error, critical"),
        ("worker.slots", "0", "1 to 10000"),
        ("worker.slots", "10001", "1 to 10000"),
        ("worker.slots", "many", "1 to 10000"),
    ])
    func `a bad value of a live key is refused by name`(key: String, value: String, allowed: String)
    {
        var core = CoreHarness()
        core.set(key, value)
        #expect(core.records.isEmpty)
        #expect(core.refusals.map(\.code) == [.badOption])
        #expect(core.refusals.first?.message.contains("'\(key)'") == true)
        #expect(core.refusals.first?.message.contains(allowed) == true)
    }

    @Test(arguments: ["", "a\nb", "a\u{7F}", "a\u{85}", String(repeating: "k", count: 256)])
    func `a key that can't be is refused`(key: String) {
        var core = CoreHarness()
        core.set(key, "v")
        core.set(key, nil)
        #expect(core.refusals.map(\.code) == [.badOption, .badOption])
    }

    @Test func `the longest key and value are taken, one byte more isn't`() {
        var core = CoreHarness()
        core.set(
            String(repeating: "k", count: 255),
            String(repeating: "v", count: ConfigKey.valueBytesMax)
        )
        #expect(core.records.count == 1)
        core.set("key", String(repeating: "v", count: ConfigKey.valueBytesMax + 1))
        #expect(core.refusals.map(\.code) == [.badOption])
    }

    @Test func `all values together stay within one message`() {
        var core = CoreHarness()
        let value = String(repeating: "v", count: ConfigKey.valueBytesMax)
        for number in 0..<300 {
            core.set("key\(number)", value)
            core.sync()
        }
        #expect(core.refusals.first?.code == .payloadTooLarge)
        #expect(core.records.count < 256)
        // Taking one away makes room for another.
        core.set("key0", nil)
        core.replies = []
        core.set("other", value)
        #expect(core.refusals.isEmpty)
    }

    @Test func `more changes than can wait for the disk are refused`() {
        var core = CoreHarness()
        for number in 0..<1025 { core.set("key", "\(number)") }
        #expect(core.refusals.map(\.code) == [.overloaded])
    }

    @Test func `unknown commands, other versions and no messages at all are answered`() {
        var core = CoreHarness()
        core.send(WireWriter(.ping, number: 5).bytes)
        var unknown = WireWriter(.ping, number: 6).bytes
        unknown[3] = 0xEE
        core.send(unknown)
        var newer = WireWriter(.configGet, number: 7).bytes
        newer[2] = 9
        core.send(newer)
        core.send([1, 2, 3])
        core.send(WireWriter(.configSet, number: 8).bytes)
        let codes: [RefusalCode] = [
            .unknownCommand, .unknownCommand, .unsupportedVersion, .malformed, .malformed,
        ]
        #expect(core.refusals.map(\.code) == codes)
        #expect(core.replies.compactMap { Message($0.message)?.number } == [5, 6, 7, 0, 8])
        #expect(core.state.malformed == 2)
    }

    @Test func `only the parent stops it, and pending changes come to disk first`() {
        var core = CoreHarness()
        core.send(WireWriter(.configStop, number: 1).bytes)
        #expect(core.refusals.count == 1 && !core.isStopping)
        core.set("key", "v")
        core.send(WireWriter(.configStop, number: 2).bytes, isParent: true)
        #expect(!core.isStopping)
        core.set("key", "w")
        #expect(core.refusals.last?.code == .stopping)
        core.sync()
        #expect(core.isStopping)
    }

    @Test(arguments: [UInt64(1), 2, 3])
    func `bytes of any kind do no harm`(seed: UInt64) {
        var numbers = SeededNumbers(seed: seed)
        var core = CoreHarness()
        var watch = ConfigWatchState()
        watch.start(now: 0)
        let commands: [Command] = [
            .configSet, .configGet, .configSnapshot, .configUpdate, .configValues, .configHead,
            .error,
        ]
        for _ in 0..<2000 {
            var bytes = WireWriter(
                commands.randomElement(using: &numbers) ?? .ping,
                number: numbers.next() % 4
            ).bytes
            let count = Int.random(in: 0...40, using: &numbers)
            bytes += (0..<count).map { _ in UInt8.random(in: 0...9, using: &numbers) }
            if Bool.random(using: &numbers) {
                bytes.removeLast(Int.random(in: 0...8, using: &numbers))
            }
            core.send(bytes)
            bytes.withUnsafeBytes { bytes in
                watch.published(bytes, now: 0)
                watch.replied(bytes, now: 0)
                core.state.subscription(bytes)
            }
        }
        #expect(core.state.malformed > 0, "seed \(seed)")
        #expect(watch.malformed > 0, "seed \(seed)")
    }
}

@Suite struct `GlobalConfig telling where the stream stands` {
    @Test func `each subscription and each new connection hears the newest number`() {
        var core = CoreHarness()
        core.set("key", "v")
        core.sync()
        core.publications = []
        core.replies = []
        core.subscribe()
        core.send([])
        #expect(core.publications == [ConfigPublication.head(1)])
        #expect(core.replies.map(\.message) == [ConfigPublication.head(1)])
    }

    @Test func `many subscriptions in one turn are told once, and an end of one not at all`() {
        var core = CoreHarness()
        for frame in [[UInt8]([1]), [1], [0], [1]] {
            frame.withUnsafeBytes { core.state.subscription($0) }
        }
        core.collect()
        #expect(core.publications == [ConfigPublication.head(0)])
    }

    @Test func `one second after the last change it is told once more, and then never`() {
        var core = CoreHarness()
        #expect(core.state.nextDeadline == nil)
        core.set("key", "1")
        core.sync(now: 10 * second)
        core.set("key", "2")
        core.sync(now: 10 * second + 400_000_000)
        #expect(core.state.nextDeadline == 11 * second + 400_000_000)
        core.publications = []
        core.timer(now: 11 * second)
        #expect(core.publications.isEmpty)
        core.timer(now: 11 * second + 400_000_000)
        #expect(core.publications == [ConfigPublication.head(2)])
        #expect(core.state.nextDeadline == nil)
    }
}

@Suite struct `Patterns of keys` {
    @Test(arguments: [
        ("a", "a", true), ("a", "b", false), ("a", "ab", false), ("*", "anything", true),
        ("a*", "a", true), ("a*", "ba", false), ("*a", "bca", true), ("a*b*c", "aXbbYc", true),
        ("a*b*c", "aXc", false), ("**", "x", true), ("*ab", "aab", true), ("log.*", "logs", false),
    ])
    func `a star stands for any run of bytes`(pattern: String, key: String, matches: Bool) {
        #expect(ConfigKey.matches(pattern, key) == matches)
    }
}
