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
            "QTASKS_SLOTS": "3", "QTASKS_GRACE": "0.5", "QTASKS_DURABILITY": "written",
            "QTASKS_MAX_PAYLOAD": "2048", "QTASKS_LISTEN": "tcp://127.0.0.1:5570",
        ]
        let config = try QueueConfig().merging { variables[$0] }
        #expect(config.slots == 3)
        #expect(config.grace == .milliseconds(500))
        #expect(config.durability == .written)
        #expect(config.maxPayload == 2048)
        #expect(config.listen == "tcp://127.0.0.1:5570")
    }

    @Test(arguments: [
        ("QTASKS_SLOTS", "0"), ("QTASKS_SLOTS", "many"), ("QTASKS_DURABILITY", "sometimes"),
        ("QTASKS_GRACE", "-1"), ("QTASKS_LOG_LEVEL", "loud"),
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
        config.maxQueued = 7
        var copy = QueueConfig()
        for setting in QueueConfig.Setting.allCases {
            if let text = config.text(of: setting) { try copy.set(setting, to: text, saying: "x") }
        }
        #expect(copy == config)
    }
}
