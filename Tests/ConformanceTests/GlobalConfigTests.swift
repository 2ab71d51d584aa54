// Part of QTasks. License: see LICENSE.

import QTasks
import Testing

/// What every GlobalConfig must do, whatever it is made of.
@Suite(.timeLimit(.minutes(1)))
struct `A GlobalConfig` {
    @Test(arguments: GlobalConfigUnderTest.allCases)
    func `gives back what was set last`(_ engine: GlobalConfigUnderTest) async throws {
        try await engine.use { config in
            #expect(try await config.get("quality") == nil)
            try await config.set("quality", to: [1])
            #expect(try await config.get("quality") == [1])
            try await config.set("quality", to: [])
            #expect(try await config.get("quality") == [])
            try await config.set("quality", to: nil)
            #expect(try await config.get("quality") == nil)
            try await config.set("quality", to: nil)
        }
    }

    @Test(arguments: GlobalConfigUnderTest.allCases)
    func `finds settings by pattern, and one by its very name`(
        _ engine: GlobalConfigUnderTest
    ) async throws {
        try await engine.use { config in
            try await config.set("mail.from", to: [1])
            try await config.set("mail.to", to: [2])
            try await config.set("page.to", to: [3])
            #expect(
                try await config.values(matching: "mail.*") == ["mail.from": [1], "mail.to": [2]]
            )
            #expect(try await config.values(matching: "*.to") == ["mail.to": [2], "page.to": [3]])
            #expect(try await config.values(matching: "mail") == [:])
            #expect(try await config.get("mail.*") == nil)
        }
    }

    @Test(arguments: GlobalConfigUnderTest.allCases)
    func `refuses what can't be, and changes nothing`(
        _ engine: GlobalConfigUnderTest
    ) async throws {
        try await engine.use { config in
            for (key, value) in [("worker.slots", "many"), ("a\u{1}", "x")] {
                let error = await #expect(throws: QTasksError.self) {
                    try await config.set(key, to: Array(value.utf8))
                }
                #expect(error?.code == .badOption)
            }
            let values = try await config.values(matching: "*")
            #expect(values.isEmpty)
        }
    }

    @Test(arguments: GlobalConfigUnderTest.allCases)
    func `tells a watcher what is set, then each change in order without a gap`(
        _ engine: GlobalConfigUnderTest
    ) async throws {
        try await engine.use { config in
            try await config.set("a.0", to: [0])
            var changes = config.watch(matching: "a.*").makeAsyncIterator()
            #expect(try await changes.next() == ConfigChange(key: "a.0", value: [0]))
            for number in UInt8(1)...100 {
                try await config.set("b", to: [number])
                try await config.set("a.1", to: [number])
            }
            try await config.set("a.0", to: nil)
            for number in UInt8(1)...100 {
                #expect(try await changes.next() == ConfigChange(key: "a.1", value: [number]))
            }
            #expect(try await changes.next() == ConfigChange(key: "a.0", value: nil))
        }
    }

    @Test(arguments: GlobalConfigUnderTest.allCases)
    func `tells each watcher its own`(_ engine: GlobalConfigUnderTest) async throws {
        try await engine.use { config in
            try await config.set("a", to: [1])
            try await config.set("b", to: [2])
            var first = config.watch(matching: "a").makeAsyncIterator()
            #expect(try await first.next() == ConfigChange(key: "a", value: [1]))
            var second = config.watch(matching: "b").makeAsyncIterator()
            #expect(try await second.next() == ConfigChange(key: "b", value: [2]))
            try await config.set("b", to: [3])
            try await config.set("a", to: [4])
            #expect(try await first.next() == ConfigChange(key: "a", value: [4]))
            #expect(try await second.next() == ConfigChange(key: "b", value: [3]))
        }
    }
}

@Suite(.timeLimit(.minutes(1)))
struct `A program's settings` {
    @Test func `are those of its system, live`() async throws {
        try await TestSystem.use { system in
            let app = QueueTasks("conformance", home: system.home)
            defer { app.close() }
            try await app.globalConfig.set("quality", to: Array("80".utf8))
            let other = try ZeroMQGlobalConfig(home: system.home)
            defer { other.close() }
            #expect(try await other.get("quality") == Array("80".utf8))
            try await other.set("quality", to: Array("90".utf8))
            #expect(try await app.globalConfig.get("quality") == Array("90".utf8))
        }
    }

    @Test func `fail at once where no system runs, unless it is waited for`() async throws {
        try await withFolder { folder in
            let config = try ZeroMQGlobalConfig(home: folder + "/home")
            let error = await #expect(throws: QTasksError.self) { try await config.get("a") }
            #expect(error?.code == .noSystem)
            let patient = try ZeroMQGlobalConfig(
                home: folder + "/home",
                waitForSystem: true,
                timeout: .milliseconds(20)
            )
            await #expect(throws: QTasksError.self) { try await patient.get("a") }
        }
    }

    @Test func `end their streams with the connection`() async throws {
        let config = ZeroMQGlobalConfig(requests: "inproc://nobody", updates: "inproc://nobody-2")
        var changes = config.watch(matching: "*").makeAsyncIterator()
        config.close()
        await #expect(throws: QTasksError.self) { _ = try await changes.next() }
        await #expect(throws: QTasksError.self) { try await config.get("a") }
    }
}
