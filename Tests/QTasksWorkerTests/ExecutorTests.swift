// Part of QTasks. License: see LICENSE.

import Logging
import QTasksModel
import QTasksWire
import Synchronization
import Testing

@testable import QTasksWorker

/// What happened, in order.
private final class Record: Sendable {
    private let lines = Mutex<[String]>([])

    func note(_ line: String) { lines.withLock { $0.append(line) } }
    var all: [String] { lines.withLock { $0 } }
}

private struct Noting: TaskMiddleware {
    let name: String
    let record: Record
    var failsBefore = false

    func before(_ context: TaskContext, arguments: [UInt8]) async throws -> [UInt8] {
        record.note("before \(name)")
        if failsBefore { throw Trouble(depth: 1) }
        return arguments + Array(name.utf8)
    }

    func after(_ context: TaskContext, outcome: TaskOutcome) async -> TaskOutcome {
        record.note("after \(name)")
        guard case .success(let result, let contentType) = outcome else { return outcome }
        return .success(result: result + Array(name.utf8), contentType: contentType)
    }
}

private struct OnlyBefore: TaskMiddleware {
    func before(_ context: TaskContext, arguments: [UInt8]) async throws -> [UInt8] { [0] }
}

private struct Trouble: Error, CustomStringConvertible {
    var depth: Int
    var description: String { "trouble \(depth) deep" }
}

private func execute(
    _ handler: TaskHandler,
    failures: UInt32 = 0,
    maxAttempts: UInt32? = nil
) async throws -> TaskOutcome {
    var submission = TaskSubmission(
        id: Bench.id(1),
        name: handler.name,
        arguments: Array("a".utf8)
    )
    submission.maxAttempts = maxAttempts
    submission.headers = [.init(name: "traceparent", value: "00-1")]
    var writer = WireWriter()
    try submission.write(to: &writer)
    let task = LeasedTask(
        lease: Bench.lease(1),
        attempt: failures + 1,
        failures: failures,
        epoch: 2,
        isSuspect: false,
        addedAt: Timestamp(nanoseconds: 5)
    )
    let delivery = try writer.bytes.withUnsafeBytes { bytes in
        try TaskDelivery(task, try Envelope(bytes), handler: 0)
    }
    let site = WorkerSite(
        worker: Bench.identity.worker,
        handlers: [handler],
        logger: Logger(label: "test") { StreamLogHandler.standardError(label: $0) }
    )
    return await DefaultTaskExecutor().execute(
        handler,
        arguments: delivery.arguments,
        context: TaskContext(delivery, at: site)
    )
}

@Suite
struct `The default task executor` {
    @Test func `runs each middleware once: before in order, after in reverse`() async throws {
        let record = Record()
        let outcome = try await execute(
            TaskHandler(
                name: "work",
                contentType: "text/plain",
                middlewares: ["1", "2", "3"].map { Noting(name: $0, record: record) },
                kind: .async { arguments, _ in
                    record.note("task")
                    return arguments + Array("!".utf8)
                }
            )
        )
        #expect(
            record.all == [
                "before 1", "before 2", "before 3", "task", "after 3", "after 2", "after 1",
            ]
        )
        #expect(
            outcome == .success(result: Array("a123!321".utf8), contentType: "text/plain")
        )
    }

    @Test func `handles a middleware that throws like a handler that does`() async throws {
        let record = Record()
        let outcome = try await execute(
            TaskHandler(
                name: "work",
                retry: .fixed(maxAttempts: 2),
                middlewares: [
                    Noting(name: "1", record: record),
                    Noting(name: "2", record: record, failsBefore: true),
                    Noting(name: "3", record: record),
                ],
                kind: .async { arguments, _ in
                    record.note("task")
                    return arguments
                }
            )
        )
        #expect(record.all == ["before 1", "before 2", "after 1"])
        let failure = TaskFailure(type: "Trouble", message: "trouble 1 deep")
        #expect(outcome == .retry(failure, afterMilliseconds: 1000, maxAttempts: 2))
    }

    @Test func `has a handler tried again after the wait that it throws, as far as it may be`()
        async throws
    {
        func thrown(_ retry: RetryPolicy, failures: UInt32, maxAttempts: UInt32? = nil) async throws
            -> TaskOutcome
        {
            let handler = TaskHandler(
                name: "work",
                retry: retry,
                retryIf: { _ in false },
                kind: .async { _, context in
                    throw context.retryAfter(.milliseconds(1250), "busy")
                }
            )
            return try await execute(handler, failures: failures, maxAttempts: maxAttempts)
        }
        let failure = TaskFailure(type: "RetryAfterError", message: "busy")
        #expect(
            try await thrown(.none, failures: 99)
                == .retry(failure, afterMilliseconds: 1250, maxAttempts: .max)
        )
        let policy = RetryPolicy.fixed(maxAttempts: 3)
        #expect(
            try await thrown(policy, failures: 1)
                == .retry(failure, afterMilliseconds: 1250, maxAttempts: 3)
        )
        #expect(try await thrown(policy, failures: 2) == .error(failure))
        #expect(try await thrown(.none, failures: 0, maxAttempts: 1) == .error(failure))
    }

    @Test func `a middleware may leave out what it doesn't need`() async throws {
        let outcome = try await execute(
            TaskHandler(
                name: "work",
                middlewares: [OnlyBefore()],
                kind: .blocking { arguments, _ in arguments }
            )
        )
        #expect(outcome == .success(result: [0], contentType: nil))
    }

    @Test func `makes an error a retry while attempts are left, and the last one final`()
        async throws
    {
        let handler = TaskHandler(
            name: "work",
            retry: .fixed(maxAttempts: 3, delay: .seconds(4)),
            kind: .blocking { _, context in throw Trouble(depth: Int(context.failures)) }
        )
        func failure(_ depth: Int) -> TaskFailure {
            TaskFailure(type: "Trouble", message: "trouble \(depth) deep")
        }
        #expect(
            try await execute(handler)
                == .retry(failure(0), afterMilliseconds: 4000, maxAttempts: 3)
        )
        #expect(try await execute(handler, failures: 2) == .error(failure(2)))
        // what the add says goes before the handler's
        #expect(try await execute(handler, maxAttempts: 1) == .error(failure(0)))
        #expect(
            try await execute(handler, failures: 2, maxAttempts: 4)
                == .retry(failure(2), afterMilliseconds: 4000, maxAttempts: 4)
        )
    }

    @Test func `tries once unless told otherwise`() async throws {
        let outcome = try await execute(
            TaskHandler(name: "work", kind: .async { _, _ in throw Trouble(depth: 0) })
        )
        #expect(outcome == .error(TaskFailure(type: "Trouble", message: "trouble 0 deep")))
    }

    @Test func `never retries arguments that don't decode`() async throws {
        let outcome = try await execute(
            TaskHandler(
                name: "work",
                retry: .fixed(maxAttempts: 5),
                kind: .async { _, _ in throw BadArgumentsError(message: "no 'width'") }
            )
        )
        #expect(outcome == .error(TaskFailure(type: "BadArguments", message: "no 'width'")))
    }

    @Test func `gives up with the handler's reason, whatever the policy`() async throws {
        let outcome = try await execute(
            TaskHandler(
                name: "work",
                retry: .fixed(maxAttempts: 5),
                kind: .async { _, context in throw context.cancel("no longer wanted") }
            )
        )
        #expect(outcome == .cancel(reason: "no longer wanted"))
    }

    @Test func `retries only what retryIf says is worth it`() async throws {
        func outcome(depth: Int) async throws -> TaskOutcome {
            try await execute(
                TaskHandler(
                    name: "work",
                    retry: .fixed(maxAttempts: 5, delay: .zero),
                    retryIf: { ($0 as? Trouble)?.depth == 1 },
                    kind: .async { _, _ in throw Trouble(depth: depth) }
                )
            )
        }
        guard case .retry = try await outcome(depth: 1) else {
            Issue.record("an error that is worth it was not retried")
            return
        }
        guard case .error = try await outcome(depth: 2) else {
            Issue.record("an error that isn't was retried")
            return
        }
    }

    @Test func `tells the handler what there is to know of the task`() async throws {
        let outcome = try await execute(
            TaskHandler(
                name: "work",
                retry: .fixed(maxAttempts: 9),
                kind: .async { _, context in
                    let facts = [
                        context.id == Bench.id(1), context.name == "work",
                        context.attempt == 4, context.failures == 3, context.epoch == 2,
                        context.maxAttempts == 9, context.queue == "default",
                        context.priority == 0, context.headers.first?.name == "traceparent",
                        context.addedAt.nanoseconds == 5, context.parent == nil,
                        context.worker == Bench.identity.worker, !context.isCancelled,
                        context.logger[metadataKey: "attempt"]?.description == "4",
                    ]
                    return facts.map { $0 ? 1 : 0 }
                }
            ),
            failures: 3
        )
        #expect(
            outcome == .success(result: [UInt8](repeating: 1, count: 14), contentType: nil)
        )
    }
}

@Suite
struct `A task registry` {
    @Test func `finds tasks by name`() throws {
        var registry = TaskRegistry()
        for number in 0..<100 { try registry.register(Bench.handler("task \(number)")) }
        #expect(registry["task 7"]?.name == "task 7")
        #expect(registry["task 100"] == nil)
        let table = NameTable(registry.handlers.map(\.name))
        for number in 0..<100 {
            let found = Array("task \(number)".utf8).withUnsafeBytes { table.number(of: $0) }
            #expect(found == number)
        }
        #expect(Array("task".utf8).withUnsafeBytes { table.number(of: $0) } == nil)
        #expect(NameTable([]).number(of: UnsafeRawBufferPointer(start: nil, count: 0)) == nil)
    }

    @Test func `refuses a second task of the same name`() throws {
        var registry = TaskRegistry()
        try registry.register(Bench.handler("work"))
        #expect(throws: QTasksError.self) { try registry.register(Bench.handler("work")) }
        #expect(registry.handlers.count == 1)
    }

    @Test(arguments: ["", "a\nb", String(repeating: "x", count: 256)])
    func `refuses a name that is none`(name: String) {
        var registry = TaskRegistry()
        #expect(throws: QTasksError.self) { try registry.register(Bench.handler(name)) }
    }

    @Test func `refuses a time limit of nothing`() {
        var registry = TaskRegistry()
        #expect(throws: QTasksError.self) {
            try registry.register(Bench.handler("work", timeLimit: .zero))
        }
    }
}
