// Part of QTasks. License: see LICENSE.

import Glibc
import Logging
import QTasksGlobalConfig
import QTasksModel
import QTasksProcess
import QTasksWire
import Testing
import ZeroMQ

/// Real sockets, a real log, and the loop on a thread of this process, which thereby is its parent.
@Suite(.timeLimit(.minutes(1))) struct `GlobalConfig over sockets` {
    private let server: Server

    init() throws {
        server = try Server()
    }

    @Test func `a change is heard by who watches, and by who comes later`() async throws {
        try server.start()
        let client = try ConfigConnection(endpoints: server.endpoints)
        var early = client.watch("mail.*").makeAsyncIterator()
        // From here on its picture is whole: what changes is heard step by step.
        try await client.set("mail.", to: [])
        #expect(await early.next()?.key == "mail.")
        try await client.delete("mail.")
        #expect(await early.next() == ConfigEntry(key: "mail.", value: nil))
        try await client.set("mail.host", to: Array("h".utf8))
        try await client.set("other", to: [1])
        try await client.set("mail.host", to: Array("i".utf8))
        try await client.delete("mail.host")
        let heard = [await early.next(), await early.next(), await early.next()]
        #expect(heard.map { $0?.key } == ["mail.host", "mail.host", "mail.host"])
        #expect(heard.map { $0?.text } == ["h", "i", nil])
        var late = client.watch("*").makeAsyncIterator()
        #expect(await late.next() == ConfigEntry(key: "other", value: [1]))
        let values = try await client.get("*")
        #expect(values == ["other": [1]])
        client.close()
        #expect(await early.next() == nil)
        try await server.stop()
    }

    @Test func `a bad value is refused by name`() async throws {
        try server.start()
        let client = try ConfigConnection(endpoints: server.endpoints)
        let error = await #expect(throws: QTasksError.self) {
            try await client.set("log.level", to: Array("loud".utf8))
        }
        #expect(error?.code == .badOption)
        #expect(error?.message.contains("log.level") == true)
        #expect(error?.message.contains("critical") == true)
        try await server.stop()
    }

    @Test func `settings survive a restart, and clients find the new process`() async throws {
        try server.start()
        let client = try ConfigConnection(endpoints: server.endpoints)
        var changes = client.watch("*").makeAsyncIterator()
        #expect(try await client.set("a", to: [1]) == 1)
        #expect(await changes.next() == ConfigEntry(key: "a", value: [1]))
        #expect(try await client.set("b", to: [2]) == 2)
        #expect(await changes.next() == ConfigEntry(key: "b", value: [2]))
        #expect(try await client.delete("a") == 3)
        #expect(await changes.next() == ConfigEntry(key: "a", value: nil))
        try await server.stop()
        try server.start()
        // Sent while nobody may be there yet: it waits for the connection.
        #expect(try await client.get("*") == ["b": [2]])
        #expect(try await client.set("c", to: [3]) == 4)
        #expect(await changes.next() == ConfigEntry(key: "c", value: [3]))
        try await server.stop()
    }

    @Test func `a role's loop has the values without a thread of their own`() async throws {
        try server.start()
        let client = try ConfigConnection(endpoints: server.endpoints)
        try await client.set("worker.slots", to: Array("7".utf8))
        let endpoints = server.endpoints
        let seen = try await RoleThread.runToEnd(name: "test-role") { () throws(ZeroMQError) in
            var subscription = try ConfigSubscription(
                in: Context(),
                endpoints: endpoints,
                now: MonotonicClock.nowNanoseconds()
            )
            var poll = try PollLoop()
            while true {
                try poll.setTimer(at: subscription.nextDeadline)
                _ = try poll.wait(subscription.pollItems)
                let changes = try subscription.turn(now: MonotonicClock.nowNanoseconds())
                if !changes.isEmpty { return (changes, subscription.isComplete) }
            }
        }.get()
        #expect(seen.0 == [ConfigEntry(key: "worker.slots", value: Array("7".utf8))])
        #expect(seen.1)
        try await server.stop()
    }

    @Test func `nobody but the parent can stop it`() async throws {
        // This one's parent is another process, so that nobody here can stop it: its thread sleeps
        // until the tests end.
        try server.start(parent: getppid())
        let stop = WireWriter(.configStop, number: 9).bytes
        let answers = try await server.ask([stop, [1, 2, 3]])
        #expect(answers.map { Message($0)?.refusal?.code } == [.badOption, .malformed])
        #expect(Message(answers[0])?.number == 9)
        let client = try ConfigConnection(endpoints: server.endpoints)
        #expect(try await client.get("*").isEmpty)
    }

    @Test func `without a system a request ends at its time limit, and says so`() async throws {
        let client = try ConfigConnection(endpoints: server.endpoints, timeLimit: .milliseconds(50))
        let error = await #expect(throws: QTasksError.self) { try await client.get("a") }
        #expect(error?.code == .noSystem)
        client.close()
        let late = await #expect(throws: QTasksError.self) { try await client.get("a") }
        #expect(late?.code == .connectionLost)
    }
}

/// GlobalConfig on a thread, in a folder of its own.
private final class Server: Sendable {
    private let folder: TemporaryFolder
    let endpoints: ConfigEndpoints
    private let outcome = AsyncStream<String?>.makeStream()
    private let hasEnded: Doorbell

    init() throws {
        folder = try TemporaryFolder()
        endpoints = ConfigEndpoints(
            requests: "ipc://\(folder.path)/config",
            updates: "ipc://\(folder.path)/updates"
        )
        hasEnded = try Doorbell()
    }

    /// Returns at once: whoever connects needn't wait until it is bound.
    func start(parent: Int32 = getpid()) throws {
        let settings = GlobalConfigLoop.Settings(
            endpoints: endpoints,
            directory: folder.path + "/log",
            parent: parent
        )
        let (outcome, hasEnded) = (outcome.continuation, hasEnded)
        try RoleThread.run("test-config") {
            do throws(GlobalConfigError) {
                let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
                try GlobalConfigLoop(settings, logger: logger).run()
                outcome.yield(nil)
            } catch {
                outcome.yield("\(error)")
            }
            hasEnded.ring()
        }
    }

    /// Asks it to stop as its parent does, and waits for its end.
    func stop() async throws {
        let (endpoint, hasEnded) = (endpoints.requests, hasEnded)
        _ = try await RoleThread.runToEnd(name: "test-parent") { () throws(ZeroMQError) in
            var peer = try Peer.connected(to: endpoint)
            try peer.send([WireWriter(.configStop).bytes])
            // The socket lives until then: what it sent would go with it.
            try peer.wait(for: hasEnded)
        }.get()
        for await failure in outcome.stream {
            #expect(failure == nil)
            return
        }
    }

    /// Sends these on one connection; returns as many answers.
    func ask(_ messages: [[UInt8]]) async throws -> [[UInt8]] {
        let endpoint = endpoints.requests
        return try await RoleThread.runToEnd(name: "test-peer") { () throws(ZeroMQError) in
            var peer = try Peer.connected(to: endpoint)
            try peer.send(messages)
            return try peer.receive(messages.count)
        }.get()
    }
}

/// One connection to GlobalConfig's ROUTER.
private struct Peer: ~Copyable {
    private let socket: Socket
    private var poll: PollLoop
    private var frames: Frames

    private init(_ endpoint: String) throws(ZeroMQError) {
        let socket = try Socket(.dealer, in: Context(), options: .dealer)
        try socket.connect(to: endpoint)
        let poll = try PollLoop()
        self.poll = poll
        self.socket = socket
        frames = Frames()
    }

    /// Returns once the connection stands: its beginning is answered by a HEAD.
    static func connected(to endpoint: String) throws(ZeroMQError) -> Peer {
        var peer = try Peer(endpoint)
        _ = try peer.receive(1)
        return peer
    }

    func send(_ messages: [[UInt8]]) throws(ZeroMQError) {
        for message in messages { try socket.send(message) }
    }

    mutating func receive(_ count: Int) throws(ZeroMQError) -> [[UInt8]] {
        var messages: [[UInt8]] = []
        while messages.count < count {
            _ = try poll.wait([socket.pollItem])
            while try socket.receive(into: &frames) { messages.append(frames.bytes(at: 0)) }
        }
        return messages
    }

    mutating func wait(for doorbell: Doorbell) throws(ZeroMQError) {
        try poll.watch(descriptor: doorbell.descriptor, token: 1)
        _ = try poll.wait([])
        doorbell.clear()
    }
}
