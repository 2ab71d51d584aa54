// Part of QTasks. License: see LICENSE.

import QTasks
import Testing

private let limit: Duration = .seconds(30)

/// What every Broker must do, whatever it is made of and wherever its tasks run.
@Suite(.timeLimit(.minutes(2)))
struct `A Broker` {
    @Test(arguments: BrokerUnderTest.allCases)
    func `has what was added run, and tells its end`(_ engine: BrokerUnderTest) async throws {
        try await engine.use { broker in
            try await broker.ping(timeout: limit)
            let tasks = (0..<20).map {
                TaskSubmission(name: "echo", arguments: Array("\"\($0)\"".utf8))
            }
            try await broker.add(tasks, timeout: limit)
            let ends = try await broker.ends(of: tasks.map(\.id), timeout: limit)
            for (task, end) in zip(tasks, ends) {
                let end = try end.get()
                #expect(end.id == task.id && end.status == .success)
                #expect(end.outcome == .success(result: task.arguments, contentType: nil))
                let record = try #require(try await broker.get(task.id, timeout: limit))
                #expect(record.submission == task)
                #expect(record.status == .success && record.outcome == end.outcome)
            }
        }
    }

    @Test(arguments: BrokerUnderTest.allCases)
    func `adds and waits in one call`(_ engine: BrokerUnderTest) async throws {
        try await engine.use { broker in
            let tasks = [
                TaskSubmission(name: "echo", arguments: Array("\"x\"".utf8)),
                TaskSubmission(name: "fail", arguments: Array("null".utf8)),
                TaskSubmission(name: "giveUp", arguments: Array("null".utf8)),
                TaskSubmission(name: "retried", arguments: Array("2".utf8)),
            ]
            let ends = try await broker.run(tasks, timeout: limit).map { try $0.get() }
            #expect(ends.map(\.id) == tasks.map(\.id))
            #expect(ends.map(\.status) == [.success, .error, .cancel, .success])
            #expect(ends[1].outcome == .error(TaskFailure(type: "NoLuck", message: "no luck")))
            #expect(ends[2].outcome == .cancel(reason: "not wanted"))
            #expect(ends[3].outcome == .success(result: Array("3".utf8), contentType: nil))
        }
    }

    @Test(arguments: BrokerUnderTest.allCases)
    func `tells whoever adds a task with a held key of the task that holds it, and how that ends`(
        _ engine: BrokerUnderTest
    ) async throws {
        try await engine.use { broker in
            var holder = TaskSubmission(name: "echo", arguments: Array("\"x\"".utf8))
            holder.unique = .window("k", .seconds(600))
            #expect(try await broker.add([holder], timeout: limit) == [holder.id])
            var other = TaskSubmission(name: "echo", arguments: Array("\"y\"".utf8))
            other.unique = .window("k", .seconds(600))
            let plain = TaskSubmission(name: "echo", arguments: Array("\"z\"".utf8))
            let ids = try await broker.add([other, plain], timeout: limit)
            #expect(ids == [holder.id, plain.id])
            let ends = try await broker.run([other, plain], timeout: limit).map { try $0.get() }
            #expect(ends.map(\.id) == [holder.id, plain.id])
            #expect(
                ends[0].outcome == .success(result: Array("\"x\"".utf8), contentType: nil)
            )
            #expect(try await broker.get(other.id, timeout: limit) == nil)
        }
    }

    @Test(arguments: BrokerUnderTest.allCases)
    func `takes a repeated add for the same task, and another content for a conflict`(
        _ engine: BrokerUnderTest
    ) async throws {
        try await engine.use { broker in
            var task = TaskSubmission(name: "echo", arguments: Array("\"x\"".utf8))
            try await broker.add([task], timeout: limit)
            try await broker.add([task], timeout: limit)
            _ = try await broker.run([task], timeout: limit)
            #expect(try await broker.get(task.id, timeout: limit)?.attempt == 1)
            task.arguments = Array("\"y\"".utf8)
            let error = await #expect(throws: QTasksError.self) {
                try await broker.add([task], timeout: limit)
            }
            #expect(error?.code == .conflict)
        }
    }

    @Test(arguments: BrokerUnderTest.allCases)
    func `tells of each task on its own`(_ engine: BrokerUnderTest) async throws {
        try await engine.use { broker in
            let known = TaskSubmission(name: "echo", arguments: Array("\"x\"".utf8))
            let waiting = TaskSubmission(name: "nobody runs it", arguments: [])
            try await broker.add([waiting, known], timeout: limit)
            // nobody's task holds up no other
            _ = try await broker.ends(of: [known.id], timeout: limit)[0].get()
            let ids = [known.id, TaskID(), waiting.id]
            let ends = try await broker.ends(of: ids, timeout: .milliseconds(200))
            #expect(try ends[0].get().status == .success)
            #expect(throws: QTasksError.self) { try ends[1].get() }
            #expect(throws: QTasksError.self) { try ends[2].get() }
            if case .failure(let error) = ends[1] { #expect(error.code == .notFound) }
            if case .failure(let error) = ends[2] { #expect(error.code == .timeout) }
            #expect(try await broker.get(ids[1], timeout: limit) == nil)
            #expect(try await broker.get(waiting.id, timeout: limit)?.status == .new)
        }
    }

    @Test(arguments: BrokerUnderTest.allCases)
    func `shows its state by topic`(_ engine: BrokerUnderTest) async throws {
        try await engine.use { broker in
            for topic in ["app", "tasks", "workers", "queues"] {
                let json = try await broker.inspect(topic, timeout: limit)
                #expect(json.first == UInt8(ascii: "{") && json.last == UInt8(ascii: "}"))
            }
            let error = await #expect(throws: QTasksError.self) {
                try await broker.inspect("weather", timeout: limit)
            }
            #expect(error?.code == .badOption)
        }
    }
}
