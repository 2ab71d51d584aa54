// Part of QTasks. License: see LICENSE.

import QTasksModel
import Testing

@Suite
struct `A task's ID` {
    @Test func `reads back what it writes`() throws {
        let id = TaskID()
        #expect(TaskID("\(id)") == id)
        #expect(TaskID("\(id)".uppercased()) == id)
        #expect("\(id)".count == 36)
    }

    @Test func `is a UUID of version 7 that begins with its millisecond`() throws {
        var generator = TaskIDGenerator(seed: (1, 2))
        let id = generator.next(milliseconds: 0x0190_62AA_7C3B)
        #expect(id.milliseconds == 0x0190_62AA_7C3B)
        #expect(id.high >> 12 & 0xF == 7)
        #expect(id.low >> 62 == 0b10)
    }

    @Test(arguments: [
        "", "x", "019062aa-7c3b-7d2e-8f10-0123456789a", "019062aa-7c3b-7d2e-8f10-0123456789abc",
        "019062aa7c3b-7d2e-8f10-01234-56789ab", "019062ag-7c3b-7d2e-8f10-0123456789ab",
    ])
    func `is nothing else`(text: String) {
        #expect(TaskID(text) == nil)
    }

    @Test func `is never made twice, and follows from the seed`() {
        var one = TaskIDGenerator(seed: (7, 7))
        var same = TaskIDGenerator(seed: (7, 7))
        let ids = (0..<10_000).map { _ in one.next(milliseconds: 5) }
        #expect(Set(ids).count == ids.count)
        #expect(ids == (0..<10_000).map { _ in same.next(milliseconds: 5) })
    }
}

@Suite
struct `A name` {
    @Test(arguments: ["a", "images.thumbnail", "a:b", "größe", String(repeating: "x", count: 255)])
    func `may be any text in UTF-8`(name: String) {
        #expect(TaskName.isValid(name))
    }

    @Test(arguments: ["", "a\nb", "\u{7F}", "a\u{85}b", String(repeating: "x", count: 256)])
    func `has no control characters and no more than 255 bytes`(name: String) {
        #expect(!TaskName.isValid(name))
    }

    @Test func `is UTF-8`() {
        [UInt8]([0x61, 0xFF]).withUnsafeBytes { #expect(!TaskName.isValid($0)) }
    }
}

@Suite
struct `Retrying` {
    @Test func `waits twice as long each time, up to the limit, give or take a quarter`() {
        let policy = RetryPolicy.exponential(
            maxAttempts: 10,
            delay: .seconds(1),
            delayMax: .seconds(10)
        )
        for (failures, delay) in [
            (UInt32(1), 1000.0), (2, 2000), (3, 4000), (4, 8000), (5, 10_000),
        ] {
            let wait = Double(policy.delayMilliseconds(afterFailures: failures, random: 0.5))
            #expect(wait == delay)
            #expect(
                Double(policy.delayMilliseconds(afterFailures: failures, random: 0)) == delay * 0.75
            )
        }
        #expect(policy.delayMilliseconds(afterFailures: .max, random: 0.5) == 10_000)
    }

    @Test func `waits the same each time where it is fixed`() {
        let policy = RetryPolicy.fixed(maxAttempts: 3, delay: .milliseconds(20))
        #expect(policy.delayMilliseconds(afterFailures: 1, random: 0.9) == 20)
        #expect(policy.delayMilliseconds(afterFailures: 7, random: 0.1) == 20)
    }
}

@Suite
struct `JSON text` {
    @Test(arguments: [
        "null", " true ", "0", "-1.5e+3", "\"a\\u00e9\\n\"", "[]", "[1,[2,{\"a\":null}]]",
        "{\"a\":1,\"b\":[]}",
    ])
    func `is known when seen`(text: String) {
        #expect(JSONCheck.isValid(Array(text.utf8)))
    }

    @Test(arguments: [
        "", "nul", "01", "1.", "[1,]", "{\"a\"}", "{a:1}", "\"\n\"", "\"\\x\"", "1 2", "[", "\"a",
    ])
    func `isn't anything like it`(text: String) {
        #expect(!JSONCheck.isValid(Array(text.utf8)))
    }

    @Test func `does not overflow a reader's stack`() {
        #expect(!JSONCheck.isValid(Array(repeating: UInt8(ascii: "["), count: 1_000_000)))
    }

    @Test func `a result that only says it is JSON can't break its record`() {
        var json = JSONText()
        json.object { json in
            json.member("text", "line\n\"quoted\" \u{1}")
            json.member("result", payload: Array("{oops".utf8), type: nil)
            json.member("bytes", payload: [0, 255], type: "application/octet-stream")
        }
        #expect(JSONCheck.isValid(json.bytes))
        let text = String(decoding: json.bytes, as: UTF8.self)
        #expect(text.contains("\"base64\":\"e29vcHM=\""))
        #expect(text.contains("\"base64\":\"AP8=\""))
    }
}

@Suite
struct `Settings` {
    @Test func `come from the environment`() throws {
        let variables = [
            "QTASKS_SLOTS": "3", "QTASKS_GRACE": "0.5", "QTASKS_KILL_AFTER": "250ms",
            "QTASKS_DURABILITY": "written",
            "QTASKS_MAX_PAYLOAD": "2048", "QTASKS_LISTEN": "tcp://127.0.0.1:5570",
        ]
        let config = try QueueConfig().merging { variables[$0] }
        #expect(config.slots == 3)
        #expect(config.grace == .milliseconds(500))
        #expect(config.killAfter == .milliseconds(250))
        #expect(config.durability == .written)
        #expect(config.maxPayload == 2048)
        #expect(config.listen == "tcp://127.0.0.1:5570")
    }

    @Test(arguments: [
        ("QTASKS_SLOTS", "0"), ("QTASKS_SLOTS", "many"), ("QTASKS_DURABILITY", "sometimes"),
        ("QTASKS_DURABILITY", "interval:0"), ("QTASKS_DURABILITY", "interval:3600001"),
        ("QTASKS_DURABILITY", "interval"), ("QTASKS_DURABILITY", "written:5"),
        ("QTASKS_RETENTION", "9m"), ("QTASKS_RETENTION", "24h/9m"), ("QTASKS_RETENTION", "1d,-1"),
        ("QTASKS_RETENTION", "24"), ("QTASKS_RETENTION", "1h;=2h"), ("QTASKS_RETENTION", "1h,5,6"),
        ("QTASKS_RETENTION", "99999d"), ("QTASKS_QUOTA", "255MiB"), ("QTASKS_QUOTA", "10 GiB"),
        ("QTASKS_QUOTA", "99999999TiB"), ("QTASKS_HISTORY", "24h"), ("QTASKS_HISTORY", "0s,1GiB"),
        ("QTASKS_HISTORY", "1GiB,24h"),
        ("QTASKS_RECYCLE_TASKS", "0"), ("QTASKS_RECYCLE_RSS", "1023"), ("QTASKS_LIMIT_AS", "1MiB"),
        ("QTASKS_LIMIT_CPU", "soon"), ("QTASKS_LIMIT_NOFILE", "3"), ("QTASKS_NICE", "20"),
        ("QTASKS_WORKER_COMMAND", ""),
        ("QTASKS_GRACE", "-1"), ("QTASKS_KILL_AFTER", "1m"), ("QTASKS_KILL_AFTER", "s"),
        ("QTASKS_LOG_LEVEL", "loud"),
        ("QTASKS_LISTEN", "tcp://0.0.0.0:5570"),
        ("QTASKS_LISTEN", "tcp://192.168.1.1:5570"), ("QTASKS_LISTEN", "tcp://127.0.0.1"),
    ])
    func `that can't be are refused by name`(variable: String, value: String) throws {
        let error = #expect(throws: QTasksError.self) {
            try QueueConfig().merging { $0 == variable ? value : nil }
        }
        #expect(error?.code == .badConfiguration)
        #expect(error?.message.contains(variable) == true)
        #expect(error?.message.contains(value) == true)
    }

    @Test func `survive being handed to another process`() throws {
        var config = QueueConfig()
        config.workers = 3
        config.grace = .milliseconds(1500)
        config.killAfter = .milliseconds(20)
        config.maxQueued = 7
        config.durability = .interval(milliseconds: 50)
        config.retention.byName["a;b\\=c"] = Retention(seconds: 3601, count: 5)
        config.retention.byName["d"] = Retention(seconds: 600, failureSeconds: 86_400)
        config.quota = 300_000_001
        config.history = .none
        config.workerCommand = "python3 'a b.py'"
        config.workerRules.recycleTasks = 100
        config.workerRules.recycleRSS = 300 << 20
        config.workerRules.addressSpace = 1 << 30
        config.workerRules.cpuSeconds = 60
        config.workerRules.openFiles = 64
        config.workerRules.niceness = 19
        var copy = QueueConfig()
        for setting in QueueConfig.Setting.allCases {
            if let text = config.text(of: setting) { try copy.set(setting, to: text, saying: "x") }
        }
        #expect(copy == config)
    }
}

@Suite
struct `How long a finished task is kept` {
    private func hours(_ text: String, _ name: String, _ status: TaskStatus) throws -> UInt64 {
        let rules = try #require(RetentionRules(text))
        return rules.limit(name: name, status: status).age / 3_600_000_000_000
    }

    @Test func `is a day, and a week after a failure, unless something is said`() {
        let rules = RetentionRules()
        for status in [TaskStatus.success, .cancel] {
            #expect(rules.limit(name: "a", status: status) == (86_400_000_000_000, nil))
        }
        for status in [TaskStatus.error, .dead] {
            #expect(rules.limit(name: "a", status: status) == (7 * 86_400_000_000_000, nil))
        }
    }

    @Test func `is said by age and count, for all or for one name`() throws {
        let rules = try #require(RetentionRules("2d,100000;thumb=1h,1000"))
        #expect(rules.limit(name: "x", status: .success).count == 100_000)
        #expect(rules.limit(name: "thumb", status: .success).count == 1000)
    }

    @Test func `grows with the age for failures, and has an age of its own for them`() throws {
        #expect(try hours("2d", "a", .success) == 48)
        #expect(try hours("2d", "a", .dead) == 7 * 24)
        #expect(try hours("9d", "a", .dead) == 9 * 24)
        #expect(try hours("2d/1h", "a", .error) == 1)
        #expect(try hours("2d;a=b=3h", "a=b", .success) == 3)
        #expect(try hours("2d;a=b=3h", "a", .success) == 48)
    }

    @Test func `is never less than ten minutes, since repeated adds are one task then (P3)`() {
        #expect(Retention(seconds: 599) == nil)
        #expect(Retention(seconds: 600)?.seconds == 600)
        #expect(RetentionRules.age(ownSeconds: 1) == 600_000_000_000)
        #expect(RetentionRules.age(ownSeconds: .max) == SecondsText.secondsMax * 1_000_000_000)
        #expect(RetentionRules.allowedTexts.contains("a repeated add is the same"))
    }
}

@Suite
struct `Times and sizes as text` {
    @Test(
        arguments: [
            ("90s", 90), ("10m", 600), ("24h", 86_400), ("7d", 604_800), ("0s", 0), ("1.5h", nil),
            ("-1h", nil), ("+1h", nil), ("h", nil), ("1H", nil), ("36501d", nil),
        ] as [(String, UInt64?)]
    )
    func `are seconds with a unit`(text: String, seconds: UInt64?) {
        #expect(SecondsText.seconds(text) == seconds)
        if let seconds { #expect(SecondsText.seconds(SecondsText.text(seconds)) == seconds) }
    }

    @Test(
        arguments: [
            ("10GiB", 10 << 30), ("1TiB", 1 << 40), ("3KiB", 3072), ("5MB", 5_000_000), ("77", 77),
            ("1.5GiB", nil), ("GiB", nil), ("1 GiB", nil), ("-1", nil), ("2000TiB", nil), ("", nil),
        ] as [(String, UInt64?)]
    )
    func `are bytes with a unit or none`(text: String, bytes: UInt64?) {
        #expect(BytesText.bytes(text) == bytes)
        if let bytes { #expect(BytesText.bytes(BytesText.text(bytes)) == bytes) }
    }

    @Test func `a quota has room for four of the longest payloads`() throws {
        var config = QueueConfig()
        config.quota = 256 << 20
        try config.check()
        config.maxPayload = 100 << 20
        let error = #expect(throws: QTasksError.self) { try config.check() }
        #expect(error?.code == .badConfiguration)
        #expect(error?.message.contains("408MiB") == true)
    }

    @Test func `a durability is read back as it is written`() {
        for level in [Durability.synced, .written, .interval(milliseconds: 1)] {
            #expect(Durability("\(level)") == level)
        }
    }
}
