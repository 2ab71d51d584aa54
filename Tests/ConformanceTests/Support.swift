// Part of QTasks. License: see LICENSE.

import FoundationEssentials
import Glibc
import QTasks
import QTasksProcess

/// What a test could not do, in one sentence.
struct Failure: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) {
        self.description = description
    }
}

/// Gives `body` a fresh folder, and removes it with all that is in it.
func withFolder<Value>(_ body: (String) async throws -> Value) async throws -> Value {
    let folder = try TemporaryFolder()
    defer { folder.remove() }
    return try await body(folder.path)
}

/// A real system in a fresh home: the executable TestTasks with the command `run`, one worker.
struct TestSystem {
    let home: String

    /// The Starter's.
    let pid: Int32

    /// Gives `body` a system that serves, and ends it whatever `body` did.
    static func use(_ body: (TestSystem) async throws -> Void) async throws {
        try await withFolder { folder in
            let (ends, end) = AsyncStream<Void>.makeStream()
            let home = folder + "/home"
            let pid = try await start(home, log: folder + "/log") { end.finish() }
            do {
                let broker = try ZeroMQBroker(home: home, waitForSystem: true)
                defer { broker.close() }
                // answered by Storage, so that the answer means that all are there
                _ = try await broker.get(TaskID(), timeout: .seconds(30))
                try await body(TestSystem(home: home, pid: pid))
            } catch {
                kill(pid, SIGKILL)
                for await _ in ends {}
                let log = (try? String(contentsOfFile: folder + "/log", encoding: .utf8)) ?? ""
                throw Failure("\(error)\n\(log.suffix(4000))")
            }
            kill(pid, SIGKILL)
            for await _ in ends {}
        }
    }

    /// On a thread that lives as long as the child: its life is tied to it.
    private static func start(
        _ home: String,
        log: String,
        ended: @escaping @Sendable () -> Void
    ) async throws -> Int32 {
        try await withCheckedThrowingContinuation { continuation in
            do {
                try RoleThread.run("test-system") {
                    do {
                        let child = try spawn(home, log: log)
                        continuation.resume(returning: child.pid)
                        var item = pollfd(fd: child.pidfd, events: Int16(POLLIN), revents: 0)
                        while child.reap() == nil { poll(&item, 1, -1) }
                    } catch {
                        continuation.resume(throwing: error)
                    }
                    ended()
                }
            } catch {
                continuation.resume(throwing: error)
            }
        }
    }

    private static func spawn(_ home: String, log: String) throws -> ChildProcess {
        let output = open(log, O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
        defer { close(output) }
        let own = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        let products = own[..<(own.lastIndex(of: "/") ?? own.endIndex)]
        let tool = products + "/TestTasks"
        return try ChildProcess.spawn(
            executable: "/usr/bin/setpriv",
            arguments: [
                "--pdeathsig", "KILL", String(tool), "run", "--home", home, "--workers", "1",
            ],
            stdout: output,
            stderr: output
        )
    }
}

/// A door that handlers wait at, and the word that one is there.
final class Gate: Sendable {
    private let (arrivals, arrived) = AsyncStream<Void>.makeStream()
    private let (openings, opened) = AsyncStream<Void>.makeStream()

    /// For a handler: says that it is there, and waits.
    ///
    /// One handler at a time.
    func pass() async {
        arrived.yield()
        for await _ in openings { return }
    }

    /// Until a handler has come.
    func waitForArrival() async {
        for await _ in arrivals { return }
    }

    func open() { opened.yield() }
}

/// What failing tasks throw, as those of TestTasks do.
struct NoLuck: Error, CustomStringConvertible {
    var description: String { "no luck" }
}

extension TaskRegistry {
    /// Tasks under these names.
    init(_ handlers: [String: TaskHandler.AsyncFunction], timeLimit: Duration? = nil) throws {
        self.init()
        for (name, function) in handlers.sorted(by: { $0.key < $1.key }) {
            try register(TaskHandler(name: name, timeLimit: timeLimit, kind: .async(function)))
        }
    }

    /// The well-behaved tasks of TestTasks.
    static func ofTestTasks() throws -> TaskRegistry {
        var registry = try TaskRegistry([
            "echo": { arguments, _ in arguments },
            "fail": { _, _ in throw NoLuck() },
            "giveUp": { _, context in throw context.cancel("not wanted") },
        ])
        let retried: TaskHandler.AsyncFunction = { arguments, context in
            let failures = Int(String(decoding: arguments, as: UTF8.self)) ?? 0
            if Int(context.failures) < failures { throw NoLuck() }
            return Array("\(context.attempt)".utf8)
        }
        try registry.register(
            TaskHandler(
                name: "retried",
                retry: .fixed(maxAttempts: 3, delay: .milliseconds(1)),
                kind: .async(retried)
            )
        )
        return registry
    }
}
