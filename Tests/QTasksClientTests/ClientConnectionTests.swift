// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksModel
import QTasksProcess
import QTasksWire
import Testing

@testable import QTasksClient

/// A real socket against a Broker that the test plays.
@Suite(.timeLimit(.minutes(1)))
struct `A client's connection` {
    private let folder: TemporaryFolder
    private let connection: ClientConnection
    private let task = submission()

    init() throws {
        folder = try TemporaryFolder()
        connection = ClientConnection(to: .endpoint(folder.endpoint))
    }

    @Test func `adds a task`() async throws {
        let broker = try FakeBroker(at: folder.endpoint)
        defer { broker.stop() }
        let reply = try await connection.call(
            .add(try batch([task]), wait: false),
            timeout: .seconds(10)
        )
        guard case .added(_, let failures) = reply else { preconditionFailure("another reply") }
        #expect(failures.isEmpty)
        connection.close()
        await #expect(throws: QTasksError.self) {
            try await connection.call(.ping, timeout: nil)
        }
    }

    @Test func `waits for a Broker that comes later, and asks the next one again`() async throws {
        let adding = Task { [task, connection] in
            try await connection.call(.add(try batch([task]), wait: false), timeout: .seconds(30))
        }
        let first = try FakeBroker(at: folder.endpoint, takesAdds: false)
        #expect(await first.events.first { _ in true } == .add([task.id]))
        first.stop()
        let second = try FakeBroker(at: folder.endpoint)
        defer { second.stop() }
        #expect(await second.events.first { _ in true } == .add([task.id]))
        guard case .added(_, let failures) = try await adding.value else {
            preconditionFailure("another reply")
        }
        #expect(failures.isEmpty)
        connection.close()
    }

    @Test func `is told a result`() async throws {
        let broker = try FakeBroker(at: folder.endpoint)
        defer { broker.stop() }
        let waiting = Task { [task, connection] in
            try await connection.call(.wait([task.id]), timeout: .seconds(30))
        }
        #expect(await broker.events.first { _ in true } == .get([task.id]))
        broker.send(recordsMessage(task.id, .found, finished(task)))
        guard case .reports(let reports, _) = try await waiting.value,
            case .record(let record)? = reports.first
        else { preconditionFailure("another reply") }
        #expect(try record.decoded() == finished(task))
        connection.close()
    }

    @Test func `forgets a call whose Swift task is cancelled`() async throws {
        let broker = try FakeBroker(at: folder.endpoint)
        defer { broker.stop() }
        let waiting = Task { [task, connection] in
            try await connection.call(.wait([task.id]), timeout: nil)
        }
        #expect(await broker.events.first { _ in true } == .get([task.id]))
        waiting.cancel()
        await #expect(throws: CancellationError.self) { try await waiting.value }
        let late = Task { [connection] in
            withUnsafeCurrentTask { $0?.cancel() }
            return try await connection.call(.ping, timeout: nil)
        }
        await #expect(throws: CancellationError.self) { try await late.value }
        connection.close()
    }

    @Test func `ends open calls when it is closed`() async throws {
        let broker = try FakeBroker(at: folder.endpoint)
        defer { broker.stop() }
        let waiting = Task { [task, connection] in
            try await connection.call(.wait([task.id]), timeout: nil)
        }
        #expect(await broker.events.first { _ in true } == .get([task.id]))
        connection.close()
        let error = await #expect(throws: QTasksError.self) { try await waiting.value }
        #expect(error?.code == .connectionLost)
    }

    @Test func `serves threads that block`() async throws {
        let broker = try FakeBroker(at: folder.endpoint)
        defer { broker.stop() }
        let replies = try await RoleThread.runToEnd(name: "blocked") { [connection, task] in
            var replies: [ClientReply] = []
            replies.append(try connection.callBlocking(.ping, timeout: .seconds(10)))
            replies.append(try connection.callBlocking(.inspect("app"), timeout: .seconds(10)))
            let add = ClientRequest.add(try batch([task]), wait: false)
            replies.append(try connection.callBlocking(add, timeout: .seconds(10)))
            return replies
        }.get()
        guard case .pong(let pong) = replies[0], case .inspected(let text) = replies[1],
            case .added(_, let failures) = replies[2]
        else { preconditionFailure("other replies") }
        #expect(pong.isStorageUp && text == Array("{}".utf8) && failures.isEmpty)
        connection.close()
    }

    @Test func `says at once that no system runs in a home, and how to start one`() async throws {
        let connection = ClientConnection(to: try .home(folder.path))
        let error = await #expect(throws: QTasksError.self) {
            try await connection.call(.ping, timeout: nil)
        }
        #expect(error?.code == .noSystem)
        #expect(error?.message.contains("run --home \(folder.path)") == true)
    }

    @Test func `waits for a home's system where it is told to`() async throws {
        let connection = ClientConnection(to: try .home(folder.path, waitForSystem: true))
        let error = await #expect(throws: QTasksError.self) {
            try await connection.call(.ping, timeout: .milliseconds(50))
        }
        #expect(error?.code == .brokerUnreachable)
        connection.close()
    }
}
