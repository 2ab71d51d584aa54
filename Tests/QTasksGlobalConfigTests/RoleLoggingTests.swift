// Part of QTasks. License: see LICENSE.

import Glibc
import Logging
import QTasksGlobalConfig
import Testing

@Suite(.serialized) struct `Lines that a role logs` {
    @Test func `have time, level, component, pid, message and metadata`() {
        let pipe = Pipe()
        var logger = pipe.logger()
        logger[metadataKey: "always"] = "1"
        logger.warning(
            "disk is slow",
            metadata: ["wait": "3 s", "path": "/a=b", "ok": "yes", "no": ""]
        )
        let line = pipe.read()
        #expect(line.hasSuffix("\n"))
        let words = line.split(separator: " ", maxSplits: 2)
        #expect(words.count == 3)
        #expect(words.first?.hasSuffix("Z") == true && words.first?.contains("T") == true)
        #expect(words[1] == "warning")
        let rest =
            "broker[\(getpid())] disk is slow always=1 no=\"\" ok=yes path=\"/a=b\" wait=\"3 s\"\n"
        #expect(words[2] == rest)
    }

    @Test func `stay one line whatever is in them`() {
        let pipe = Pipe()
        pipe.logger().error(
            "a\nb\u{1B}[31m",
            metadata: ["quote": "say \"x\"\\", "lines": "1\n2"]
        )
        let line = pipe.read()
        #expect(line.filter { $0 == "\n" }.count == 1)
        #expect(line.contains(#"a\nb?[31m lines="1\n2" quote="say \"x\"\\""#))
    }

    @Test func `end at the length up to which a pipe keeps them whole`() {
        let pipe = Pipe()
        pipe.logger().error("\(String(repeating: "ä", count: 5000))")
        let line = pipe.read()
        #expect(line.utf8.count <= RoleLogHandler.lineBytesMax)
        #expect(line.utf8.count > RoleLogHandler.lineBytesMax - 8)
        #expect(line.hasSuffix("ä...\n"))
        #expect(!line.contains("\u{FFFD}"))
    }

    @Test func `that nobody reads are lost and counted, and keep nobody waiting`() {
        let pipe = Pipe()
        let logger = pipe.logger()
        let line = String(repeating: "x", count: 4000)
        // more than any pipe holds: a role that waited would hang here for ever
        for _ in 0..<1000 { logger.error("\(line)") }
        var text = pipe.read()
        logger.error("read again")
        while !text.hasSuffix("read again\n") { text += pipe.read() }
        let written = text.split(separator: "\n").filter { $0.hasSuffix("x") }.count
        #expect(written > 0)
        #expect(text.contains("(\(1000 - written) lines of process \(getpid()) are lost here)"))
    }

    @Test func `follow the process's level while it runs`() {
        let before = RoleLogging.level
        defer { RoleLogging.level = before }
        let pipe = Pipe()
        let logger = pipe.logger()
        var own = logger
        own.logLevel = .error
        RoleLogging.level = .info
        logger.debug("one")
        RoleLogging.follow(.init(key: "log.level", value: Array("debug".utf8)), initial: "info")
        #expect(logger.logLevel == .debug && own.logLevel == .error)
        logger.debug("two")
        own.warning("three")
        RoleLogging.follow(.init(key: "log.level", value: nil), initial: "notice")
        #expect(logger.logLevel == .notice)
        RoleLogging.follow(.init(key: "other", value: Array("trace".utf8)), initial: "info")
        RoleLogging.follow(.init(key: "log.level", value: [0xFF]), initial: "info")
        #expect(logger.logLevel == .notice)
        #expect(pipe.read().hasSuffix("two\n"))
    }

    @Test func `begin at the level that the process was given`() {
        let before = RoleLogging.level
        defer { RoleLogging.level = before }
        let logger = RoleLogging.bootstrap(component: "storage", level: "error")
        #expect(logger.label == "qtasks.storage" && logger.logLevel == .error)
    }
}

/// Where a logger writes in a test.
private final class Pipe: Sendable {
    private let reading: Int32
    private let writing: Int32

    init() {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { preconditionFailure("pipe: errno \(errno)") }
        (reading, writing) = (ends[0], ends[1])
    }

    deinit {
        close(reading)
        close(writing)
    }

    func logger() -> Logger {
        let descriptor = writing
        return Logger(label: "test") { _ in
            RoleLogHandler(component: "broker", descriptor: descriptor)
        }
    }

    /// What one read finds: one write, if nothing was mixed in or torn.
    func read() -> String {
        var bytes = [UInt8](repeating: 0, count: 1 << 16)
        let count = Glibc.read(reading, &bytes, bytes.count)
        return String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
    }
}
