// Part of QTasks. License: see LICENSE.

import QTasks
import QTasksModel
import QTasksProcess
import QTasksWorker
import Synchronization
import Testing

private struct Picture: Codable, Sendable, Equatable {
    struct Size: Codable, Sendable, Equatable {
        var width: Int
    }

    var path: String
    var size: Size
}

private struct Unlucky: Error, CustomStringConvertible {
    var description: String { "no luck today" }
}

/// Typed tasks over a Broker that runs them in place.
@Suite(.timeLimit(.minutes(1)))
struct `An application's tasks` {
    private let app = QueueTasks("test", home: "/nowhere")
    private let picture = Picture(path: "cat.png", size: .init(width: 320))

    /// Registers nothing further after this.
    private func start() -> MemoryBroker {
        let broker = MemoryBroker(app.registry)
        app.use(broker: broker)
        return broker
    }

    @Test func `take and give Swift values, which travel as JSON`() async throws {
        let task = app.task("grow") { (input: Picture, _: TaskContext) async throws -> Picture in
            Picture(path: input.path, size: .init(width: input.size.width * 2))
        }
        let broker = start()
        let result = try await task.addTask(picture, priority: 5, queue: "pictures")
        #expect(try await result.result().size.width == 640)
        let added = try #require(broker.added.first)
        #expect(added.priority == 5 && added.queue == "pictures" && added.id == result.id)
        #expect(JSONCheck.isValid(added.arguments) && added.contentType == nil)
        #expect(try await task.run(picture).size.width == 640)
        #expect(try await task.run(all: [picture, picture]).count == 2)
        #expect(try await task.addTasks([picture, picture, picture]).results().count == 3)
    }

    @Test func `are kept as long as their registration says, or their add`() async throws {
        let task = app.task("grow", retention: .milliseconds(3_599_500)) {
            (input: Picture, _: TaskContext) async throws -> Int in input.size.width
        }
        let blocking = app.syncTask("shrink", retention: .seconds(900)) {
            (input: Picture, _: TaskContext) throws -> Int in input.size.width
        }
        let broker = start()
        var options = AddOptions()
        try await task.addTask(picture)
        options.retention = .seconds(7200)
        try await task.addTask(picture, options: options)
        _ = try await blocking.addTask(picture) as AsyncResult
        try await app.addTask("grow", picture)
        try await app.addTask("another", picture)
        #expect(broker.added.map(\.retentionSeconds) == [3600, 7200, 900, 3600, nil])
    }

    @Test func `name the field of arguments that do not decode`() async throws {
        app.task("grow") { (input: Picture, _: TaskContext) async throws -> Int in input.size.width
        }
        _ = start()
        let bad = [
            (#"{"path":"a","size":{}}"#, "'size.width' is missing"),
            (#"{"path":"a","size":{"width":"x"}}"#, "'size.width' is no Int"),
            (#"{"path":3,"size":{"width":1}}"#, "'path' is no String"),
            (#"{"#, "JSON"),
        ]
        for (arguments, expected) in bad {
            let id = try await app.addTask("grow", bytes: Array(arguments.utf8), contentType: nil)
            let end = try await app.end(of: id)
            guard case .error(let failure) = end.outcome else {
                Issue.record("\(arguments) did not fail")
                continue
            }
            #expect(failure.type == TaskFailure.badArgumentsType)
            #expect(failure.message.contains(expected), "\(failure.message)")
            #expect(failure.message.contains("'grow'"))
        }
    }

    @Test func `tell how a task failed`() async throws {
        let failing = app.task("fail") { (_: Int, _: TaskContext) async throws -> Int in
            throw Unlucky()
        }
        let cancelled = app.task("cancel") { (_: Int, context: TaskContext) async throws -> Int in
            throw context.cancel("no longer wanted")
        }
        _ = start()
        let failure = await #expect(throws: QTasksError.self) { try await failing.run(1) }
        #expect(failure?.code == .taskFailed)
        #expect(failure?.message.contains("Unlucky: no luck today") == true)
        #expect((failure?.cause as? FailedTask)?.failure?.type == "Unlucky")
        let cancel = await #expect(throws: QTasksError.self) { try await cancelled.run(1) }
        #expect(cancel?.code == .taskCancelled)
        #expect(cancel?.message.contains("no longer wanted") == true)
    }

    @Test func `may take nothing, give nothing, or both`() async throws {
        let calls = Mutex(0)
        let both = app.task("both") { (_: TaskContext) async throws in calls.withLock { $0 += 1 } }
        let taking = app.task("take") { (input: Int, _: TaskContext) async throws in
            calls.withLock { $0 += input }
        }
        let giving = app.syncTask("give") { (_: TaskContext) throws -> String in "given" }
        let broker = start()
        try await both.run()
        try await taking.run(10)
        #expect(try await giving.addTask().result() == "given")
        #expect(calls.withLock { $0 } == 11)
        #expect(broker.added.map(\.arguments) == ["null", "10", "null"].map { Array($0.utf8) })
    }

    @Test func `pass bytes as they are`() async throws {
        let task = app.task("reverse") { (input: [UInt8], _: TaskContext) async throws -> [UInt8] in
            input.reversed()
        }
        let broker = start()
        #expect(try await task.run([1, 2, 255]) == [255, 2, 1])
        #expect(broker.added.first?.arguments == [1, 2, 255])
        #expect(broker.added.first?.contentType == "application/octet-stream")
    }

    @Test(arguments: ["", "plain", "\"quoted\"", "line\nline", "\u{1}", "snö ❄", "\\"])
    func `carry any text`(text: String) async throws {
        let task = app.task("echo") { (input: String, _: TaskContext) async throws -> String in
            input
        }
        let broker = start()
        #expect(try await task.run(text) == text)
        let arguments = try #require(broker.added.first?.arguments)
        #expect(JSONCheck.isValid(arguments))
    }

    @Test(arguments: [("7", 7), ("-9223372036854775808", .min), ("0", 0), (" 7", 7)])
    func `carry any number`(text: String, number: Int) async throws {
        app.task("number") { (input: Int, _: TaskContext) async throws -> Bool in input == number }
        _ = start()
        let id = try await app.addTask("number", bytes: Array(text.utf8), contentType: nil)
        let end = try await app.end(of: id)
        #expect(end.outcome == .success(result: Array("true".utf8), contentType: nil))
    }

    @Test(arguments: ["+7", "07", "7x", "", "-", "1.5"])
    func `refuse what is no number`(text: String) async throws {
        app.task("number") { (_: Int, _: TaskContext) async throws -> Bool in true }
        _ = start()
        let id = try await app.addTask("number", bytes: Array(text.utf8), contentType: nil)
        #expect(try await app.end(of: id).status == .error)
    }

    @Test func `block a thread where that is wanted`() async throws {
        let task = app.syncTask("double") { (input: Int, _: TaskContext) throws -> Int in input * 2
        }
        _ = start()
        let outcome = try await RoleThread.runToEnd(name: "blocked") {
            try task.addTask(21).result()
        }
        #expect(try outcome.get() == 42)
    }

    @Test func `are the same task when a prepared one is added twice`() async throws {
        let task = app.task("once") { (_: Int, _: TaskContext) async throws -> Int in 1 }
        let broker = start()
        let prepared = task(7)
        let first = try await prepared.addTask()
        let second = try await prepared.addTask()
        #expect(first.id == prepared.id && second.id == prepared.id)
        #expect(broker.added.count == 1)
    }

    @Test func `have the queue and priority they were registered with`() async throws {
        let task = app.task("plain", queue: "slow", priority: -3) {
            (_: Int, _: TaskContext) async throws -> Int in 1
        }
        let broker = start()
        try await task.addTask(1)
        try await app.addTask("plain", 2)
        try await task.addTask(3, priority: 9, delay: .milliseconds(1500))
        #expect(broker.added.map(\.queue) == ["slow", "slow", "slow"])
        #expect(broker.added.map(\.priority).sorted() == [-3, -3, 9])
        #expect(broker.added.contains { $0.start == .after(milliseconds: 1500) })
    }

    @Test func `run inside the application's middlewares, then their own`() async throws {
        struct Mark: TaskMiddleware {
            let letter: UInt8

            func before(_ context: TaskContext, arguments: [UInt8]) async throws -> [UInt8] {
                arguments + [letter]
            }
        }
        let task = app.task("mark", middlewares: [Mark(letter: 2)]) {
            (input: [UInt8], _: TaskContext) async throws -> [UInt8] in input
        }
        app.addMiddleware(Mark(letter: 1))
        _ = start()
        #expect(try await task.run([0]) == [0, 1, 2])
    }

    @Test func `stop the program where two have one name`() async {
        await #expect(processExitsWith: .failure) {
            let app = QueueTasks("test")
            app.task("same") { (_: TaskContext) async throws in }
            app.task("same") { (_: TaskContext) async throws in }
        }
    }

    @Test func `stop the program where a name isn't one`() async {
        await #expect(processExitsWith: .failure) {
            QueueTasks("test").task("") { (_: TaskContext) async throws in }
        }
    }

    @Test func `say that no system runs`() async throws {
        let app = QueueTasks("test", home: "/nowhere/at/all")
        let error = await #expect(throws: QTasksError.self) { try await app.ping() }
        #expect(error?.code == .noSystem)
    }
}
