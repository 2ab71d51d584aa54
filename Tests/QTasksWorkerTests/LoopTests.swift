// Part of QTasks. License: see LICENSE.

import Glibc
import Logging
import QTasksModel
import QTasksProcess
import QTasksWire
import Synchronization
import Testing
import ZeroMQ

@testable import QTasksWorker

/// A real worker's loop on a thread of its own; the test has the Broker's and Storage's sockets.
private struct RealWorker: ~Copyable {
    private static let limitNanoseconds: UInt64 = 20_000_000_000

    let broker: Socket
    let storage: Socket
    let inbox: WorkerInbox
    let ended: Doorbell
    private var poll: PollLoop
    private var frames = Frames(capacity: 2)
    private let folder: TemporaryFolder
    private let context: Context
    private(set) var peer: RoutingID?

    init(_ handlers: [TaskHandler], slots: Int = 4) throws {
        let folder = try TemporaryFolder()
        let endpoints = WorkerLoop<DefaultTaskExecutor>.Endpoints(
            broker: "ipc://\(folder.path)/workers",
            storage: "ipc://\(folder.path)/results"
        )
        let context = try Context()
        let broker = try Socket(.router, in: context, options: .router(maxMessageBytes: nil))
        try broker.bind(to: endpoints.broker)
        let storage = try Socket(.pull, in: context, options: .pull(maxMessageBytes: nil))
        try storage.bind(to: endpoints.storage)
        let inbox = try WorkerInbox()
        let ended = try Doorbell()
        let poll = try PollLoop()
        try poll.watch(descriptor: ended.descriptor, token: 0)
        var registry = TaskRegistry()
        for handler in handlers { try registry.register(handler) }
        try RoleThread.run("worker") { [registry] in
            do {
                var loop = try WorkerLoop(
                    identity: Bench.identity,
                    registry: registry,
                    executor: DefaultTaskExecutor(),
                    slots: slots,
                    endpoints: endpoints,
                    inbox: inbox,
                    signals: nil,
                    context: try Context(),
                    logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
                )
                try loop.run()
            } catch {
                Issue.record(error)
            }
            ended.ring()
        }
        self.folder = folder
        self.context = context
        self.broker = broker
        self.storage = storage
        self.inbox = inbox
        self.ended = ended
        self.poll = poll
    }

    /// Greets the worker, and takes its HELLO.
    mutating func greet() throws -> Hello {
        _ = try fromWorker { message -> Bool? in message.isEmpty ? true : nil }
        try tell(
            Welcome(incarnation: 1, maxPayload: 1 << 20, windowTasks: 10, brokerPid: 1).encoded()
        )
        let hello = try fromWorker { message -> Hello? in
            guard case .hello(let hello) = try? Bench.takeApart(message) else { return nil }
            return hello
        }
        try tell(WireWriter(.reconciled).bytes)
        return hello
    }

    mutating func tell(_ message: [UInt8]) throws {
        let peer = try #require(peer)
        #expect(try broker.send(message, to: peer) == .sent)
    }

    mutating func lease(_ number: UInt32, _ name: String, _ arguments: String = "") throws {
        var writer = Bench.beginWork()
        let submission = TaskSubmission(
            id: Bench.id(number),
            name: name,
            arguments: Array(arguments.utf8)
        )
        try Bench.write(submission, lease: Bench.lease(number), to: &writer)
        try tell(writer.bytes)
    }

    /// Waits for the first message of the worker of which `pick` makes something.
    mutating func fromWorker<Found>(_ pick: ([UInt8]) -> Found?) throws -> Found {
        while true {
            while try broker.receive(into: &frames) {
                peer = frames.routingID(at: 0)
                if let found = pick(frames.bytes(at: 1)) { return found }
            }
            try wait([broker.pollItem])
        }
    }

    mutating func results() throws -> [ResultEntry] {
        while try !storage.receive(into: &frames) { try wait([storage.pollItem]) }
        return try Bench.results(in: frames.bytes(at: 0))
    }

    /// Waits for the loop's end.
    mutating func end() throws {
        try wait([])
    }

    private mutating func wait(_ items: [PollItem]) throws {
        try poll.setTimer(at: MonotonicClock.nowNanoseconds() + Self.limitNanoseconds)
        let ready = try poll.wait(items)
        try #require(!ready.timerFired, "took too long")
    }
}

@Suite(.timeLimit(.minutes(1)))
struct `A worker's loop` {
    @Test func `takes a task, sends its result, and leaves once it is acknowledged`() async throws {
        try await offThePool {
            var worker = try RealWorker([Bench.handler("work")])
            let hello = try worker.greet()
            #expect(hello.names == ["work"])
            try worker.lease(1, "work", "hello")
            let entry = try #require(try worker.results().first)
            #expect(entry.lease == Bench.lease(1))
            #expect(entry.outcome == .success(result: Array("hello".utf8), contentType: nil))
            worker.inbox.put(.leave)
            _ = try worker.fromWorker { message -> Bool? in
                (try? Bench.takeApart(message)) == .goodbye ? true : nil
            }
            try worker.tell(Bench.beginWork(acknowledging: [Bench.lease(1)]).bytes)
            try worker.end()
        }
    }

    @Test func `runs blocking handlers side by side, each on a thread of its own`() async throws {
        try await offThePool {
            let barrier = try Barrier(count: 4)
            var worker = try RealWorker(
                [
                    TaskHandler(
                        name: "meet",
                        kind: .blocking { _, _ in
                            barrier.meet()
                            return currentThreadName()
                        }
                    )
                ],
                slots: 4
            )
            _ = try worker.greet()
            for number in 1...4 as ClosedRange<UInt32> { try worker.lease(number, "meet") }
            var entries: [ResultEntry] = []
            while entries.count < 4 { entries += try worker.results() }
            #expect(Set(entries.map(\.lease)) == Set((1...4).map(Bench.lease)))
            let name = TaskOutcome.success(result: Array("qtasks-task".utf8), contentType: nil)
            #expect(entries.allSatisfy { $0.outcome == name })
        }
    }

    @Test func `cancels the Swift task when told to, and gives the task back`() async throws {
        try await offThePool {
            var worker = try RealWorker([
                TaskHandler(
                    name: "wait",
                    kind: .async { _, context in
                        try await context.sleep(for: .seconds(3600))
                        return []
                    }
                )
            ])
            _ = try worker.greet()
            try worker.lease(1, "wait")
            var writer = WireWriter(.softCancel)
            writer.integer(UInt32(1))
            writer.integer(Bench.lease(1).rawValue)
            try worker.tell(writer.bytes)
            let handedBack = try worker.fromWorker { message -> [Holding]? in
                guard case .handBack(let holdings) = try? Bench.takeApart(message) else {
                    return nil
                }
                return holdings
            }
            #expect(handedBack == [Bench.holding(1)])
        }
    }

    @Test func `ends an attempt at its time limit, also where the handler goes on`() async throws {
        try await offThePool {
            let barrier = try Barrier(count: 2)
            var worker = try RealWorker([
                TaskHandler(
                    name: "hang",
                    timeLimit: .milliseconds(20),
                    kind: .blocking { _, context in
                        barrier.meet()
                        return []
                    }
                )
            ])
            _ = try worker.greet()
            try worker.lease(1, "hang")
            let entry = try #require(try worker.results().first)
            #expect(entry.outcome.failureType == TaskFailure.timeLimitType)
            barrier.meet()
        }
    }

    @Test func `leaves at once when idle`() async throws {
        try await offThePool {
            var worker = try RealWorker([Bench.handler("work")])
            worker.inbox.put(.leave)
            try worker.end()
        }
    }

    @Test func `sends a result again to a Storage that comes later`() async throws {
        try await offThePool {
            var worker = try RealWorker([Bench.handler("work")])
            _ = try worker.greet()
            try worker.lease(1, "work", "x")
            #expect(try worker.results().map(\.lease) == [Bench.lease(1)])
            var writer = WireWriter(.notice)
            writer.integer(UInt32(2))
            try worker.tell(writer.bytes)
            #expect(try worker.results().map(\.lease) == [Bench.lease(1)])
        }
    }
}

/// Runs a test that blocks on a thread of its own.
///
/// Else it would hold a thread of Swift's pool, which has few, and which handlers need.
private func offThePool(_ body: @escaping @Sendable () throws -> Void) async throws {
    try await RoleThread.runToEnd(name: "test", body).get()
}

/// Lets `count` threads go on once all of them are there.
private final class Barrier: Sendable {
    // POSIX lets any thread use it; it is destroyed with the last reference.
    nonisolated(unsafe) private let barrier: UnsafeMutablePointer<pthread_barrier_t>

    init(count: UInt32) throws {
        barrier = .allocate(capacity: 1)
        barrier.initialize(to: pthread_barrier_t())
        try #require(pthread_barrier_init(barrier, nil, count) == 0)
    }

    deinit {
        pthread_barrier_destroy(barrier)
        barrier.deallocate()
    }

    func meet() { pthread_barrier_wait(barrier) }
}

/// As `ps -L` shows it, see `proc_pid_comm(5)`.
private func currentThreadName() -> [UInt8] {
    let file = open("/proc/thread-self/comm", O_RDONLY | O_CLOEXEC)
    defer { close(file) }
    var name = [UInt8](repeating: 0, count: 16)
    let count = read(file, &name, name.count)
    return Array(name.prefix(max(0, count - 1)))
}
