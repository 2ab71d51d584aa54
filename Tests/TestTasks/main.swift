// Part of QTasks. License: see LICENSE.
//
// An application whose tasks misbehave in every way that the system has to stand. Each reports its
// beginning to the test as one line, and those that hold wait at a gate which the test opens.

import Glibc
import QTasks

/// The two ends of a test: lines go to one FIFO, permits come from the other.
enum Bench {
    /// Writes `what`, the task's ID, the attempt and this process's ID as one line.
    ///
    /// One `write(2)` below `PIPE_BUF`: lines of several processes don't mix. Counted by the test,
    /// so it is said once for each execution.
    static func report(_ what: String, _ context: TaskContext) {
        guard let path = QueueConfig.environmentVariable("TESTTASKS_EVENTS") else { return }
        let descriptor = open(path, O_WRONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        let line = Array("\(what) \(context.id) \(context.attempt) \(getpid())\n".utf8)
        _ = write(descriptor, line, line.count)
    }

    /// Blocks until the test lets one more through.
    static func passGate() {
        guard let path = QueueConfig.environmentVariable("TESTTASKS_GATE") else { return }
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        var permit: UInt8 = 0
        while read(descriptor, &permit, 1) < 0, errno == EINTR {}
    }
}

/// What failing tasks throw.
struct NoLuck: Error, CustomStringConvertible {
    var description: String { "no luck" }
}

/// Puts a word before the text, and one behind.
struct Frame: TaskMiddleware {
    let word: String

    func before(_ context: TaskContext, arguments: [UInt8]) async throws -> [UInt8] {
        Array("\"\(word)<".utf8) + arguments.dropFirst()
    }

    func after(_ context: TaskContext, outcome: TaskOutcome) async -> TaskOutcome {
        guard case .success(let result, let type) = outcome else { return outcome }
        return .success(result: result.dropLast() + Array(">\(word)\"".utf8), contentType: type)
    }
}

let app = QueueTasks("TestTasks")

app.task("echo") { (text: String, context: TaskContext) async throws -> String in
    Bench.report("echo", context)
    return text
}

app.task("copy") { (bytes: [UInt8], _: TaskContext) async throws -> [UInt8] in bytes }

app.task("framed", middlewares: [Frame(word: "outer"), Frame(word: "inner")]) {
    (text: String, _: TaskContext) async throws -> String in text
}

app.syncTask("hold") { (text: String, context: TaskContext) throws -> String in
    Bench.report("hold", context)
    Bench.passGate()
    return text
}

app.task("rest") { (context: TaskContext) async throws -> Void in
    Bench.report("rest", context)
    try await context.sleep(for: .seconds(3600))
}

app.syncTask("stubborn", timeout: .milliseconds(200)) { (context: TaskContext) throws -> Void in
    Bench.report("stubborn", context)
    Bench.passGate()
    Bench.report("returned", context)
}

app.task("late", retry: .fixed(maxAttempts: 2, delay: .zero), timeout: .milliseconds(100)) {
    (context: TaskContext) async throws -> Int in
    if context.attempt == 1 { try await context.sleep(for: .seconds(3600)) }
    return Int(context.attempt)
}

app.task("fail") { (context: TaskContext) async throws -> Void in
    Bench.report("fail", context)
    throw NoLuck()
}

app.task("retried", retry: .fixed(maxAttempts: 3, delay: .milliseconds(1))) {
    (failures: Int, context: TaskContext) async throws -> Int in
    Bench.report("retried", context)
    if Int(context.failures) < failures { throw NoLuck() }
    return Int(context.attempt)
}

/// Errors with a kind in common.
class Trouble: Error, @unchecked Sendable {}
final class WorseTrouble: Trouble, @unchecked Sendable {}

private let isTrouble: @Sendable (any Error) -> Bool = { $0 is Trouble }

app.task("troubled", retry: .fixed(maxAttempts: 3, delay: .zero), retryIf: isTrouble) {
    (kind: String, context: TaskContext) async throws -> Void in
    Bench.report("troubled-\(kind)", context)
    switch kind {
    case "trouble": throw Trouble()
    case "worse": throw WorseTrouble()
    default: throw NoLuck()
    }
}

app.task("nap") { (text: String, context: TaskContext) async throws -> String in
    Bench.report("nap", context)
    try await context.sleep(for: .milliseconds(100))
    return text
}

app.task("giveUp") { (context: TaskContext) async throws -> Void in
    throw context.cancel("not wanted")
}

app.task("exitOnce") { (context: TaskContext) async throws -> Int in
    Bench.report("exitOnce", context)
    if context.attempt == 1 { exit(0) }
    return Int(context.attempt)
}

app.task("trapOnce") { (context: TaskContext) async throws -> Int in
    Bench.report("trapOnce", context)
    if context.attempt == 1 { fatalError("as it should") }
    return Int(context.attempt)
}

// what is left of its process can neither hear nor tell
app.syncTask("closeOnce") { (context: TaskContext) throws -> Int in
    Bench.report("closeOnce", context)
    if context.attempt == 1 { for descriptor: Int32 in 3..<1024 { close(descriptor) } }
    return Int(context.attempt)
}

app.task("deadly") { (context: TaskContext) async throws -> Void in
    Bench.report("deadly", context)
    kill(getpid(), SIGKILL)
}

await app.main()
