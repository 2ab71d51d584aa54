// Part of QTasks. License: see LICENSE.

import FoundationEssentials
import Glibc
import QTasks
import Synchronization

/// Kills a worker in the middle of its tasks, then proves that they ran elsewhere.
///
/// Counting a file takes microseconds: a worker that is killed at random is mostly idle. So they are
/// all stopped (SIGSTOP) before tasks are added: a stopped worker is leased tasks, and keeps them.
/// One that holds some is killed, the others go on.
final class WorkerKill: Sendable {
    /// One entry of `stats inspect workers`.
    struct Worker: Decodable, Hashable, Sendable {
        var id: String
        var pid: Int32
        var connected: Bool
        var leaving: Bool
        /// Leases that it holds.
        var running: Int
        var names: [String]
    }

    private static let timeLimit = Duration.seconds(20)
    private static let settlePause = Duration.milliseconds(20)

    private let app: QueueTasks
    private let isAlone: Bool
    private let killed = Mutex<Worker?>(nil)

    /// `isAlone` says that nobody else adds tasks to this system.
    init(app: QueueTasks, isAlone: Bool) {
        self.app = app
        self.isAlone = isAlone
    }

    /// Stops all workers, adds tasks, and kills one of those that got some.
    ///
    /// `add` adds some; it is called once more where a worker came late and ran them all.
    ///
    /// - Throws: ``QTasksError/Code/timeout`` if no worker gets a task; all workers go on then.
    func kill(adding add: () async throws -> Void) async throws {
        let end = ContinuousClock.now + Self.timeLimit
        var stopped: [Worker] = []
        defer {
            for worker in stopped { Glibc.kill(worker.pid, SIGCONT) }
        }
        repeat {
            let workers = try await runningWorkers(until: end)
            for worker in workers { Glibc.kill(worker.pid, SIGSTOP) }
            stopped = workers
            for worker in workers { try await waitForStop(of: worker, until: end) }
            try await add()
            guard let worker = try await settledHolder(among: stopped) else { continue }
            Glibc.kill(worker.pid, SIGKILL)
            stopped.removeAll { $0.pid == worker.pid }
            killed.withLock { $0 = worker }
            return
        } while ContinuousClock.now < end
        throw QTasksError(.timeout, "no worker held a task within \(Self.timeLimit)")
    }

    /// What is true once these tasks have ended.
    ///
    /// - Throws: ``QTasksError/Code/internalError`` if a task didn't run elsewhere.
    func verdict(on ids: [TaskID]) async throws -> String {
        guard let worker = killed.withLock({ $0 }) else {
            preconditionFailure("the verdict comes after the kill")
        }
        let again = try await withThrowingTaskGroup(of: Bool.self) { group in
            for id in ids {
                group.addTask { try await self.ranAgain(id, without: worker) }
            }
            return try await group.reduce(0) { $0 + ($1 ? 1 : 0) }
        }
        // in a system that others use, the worker may have held their tasks too
        guard again >= (isAlone ? worker.running : 1) else {
            throw QTasksError(
                .internalError,
                "worker \(worker.pid) was killed with \(worker.running) running tasks, "
                    + "and \(again) ran again"
            )
        }
        return "killed worker \(worker.pid) (SIGKILL) with \(worker.running) running tasks, "
            + "all run elsewhere"
    }

    /// Whether it took the task more than one attempt to end.
    private func ranAgain(_ id: TaskID, without worker: Worker) async throws -> Bool {
        guard let record = try await app.get(id), record.status.isFinal,
            record.worker?.description != worker.id
        else {
            throw QTasksError(.internalError, "task \(id) did not end in another worker")
        }
        return record.attempt > 1
    }

    /// Those that can run the task, once there are any.
    private func runningWorkers(until end: ContinuousClock.Instant) async throws -> [Worker] {
        while true {
            let workers = try await workers().filter {
                $0.connected && !$0.leaving && $0.names.contains(Wordcount.shared.count.name)
            }
            if !workers.isEmpty { return workers }
            try await pause(until: end, "no worker is connected")
        }
    }

    /// The stopped worker that holds most tasks, when its number of them has come to rest.
    private func settledHolder(among stopped: [Worker]) async throws -> Worker? {
        var before: Worker?
        // leases follow the add within a millisecond; where none comes, another worker has them all
        for _ in 0..<25 {
            try await Task.sleep(for: Self.settlePause)
            let pids = Set(stopped.map(\.pid))
            let most = try await workers().filter { pids.contains($0.pid) }
                .max { $0.running < $1.running }
            if let most, most.running > 0, most == before { return most }
            before = most
        }
        return nil
    }

    /// SIGSTOP takes effect a moment after kill(2) has returned.
    private func waitForStop(
        of worker: Worker,
        until end: ContinuousClock.Instant
    ) async throws {
        while Self.state(of: worker.pid) != UInt8(ascii: "T") {
            try await pause(until: end, "worker \(worker.pid) does not stop")
        }
    }

    // in /proc/PID/stat it stands behind a name in parentheses; see proc(5)
    private static func state(of pid: Int32) -> UInt8? {
        let file = open("/proc/\(pid)/stat", O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return nil }
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: 512)
        let count = read(file, &bytes, bytes.count)
        guard count > 0, let name = bytes[..<count].lastIndex(of: UInt8(ascii: ")")) else {
            return nil
        }
        return bytes[..<count].dropFirst(name + 2).first
    }

    private func workers() async throws -> [Worker] {
        struct Answer: Decodable {
            var workers: [Worker]
        }
        let json = try await app.inspect("workers")
        return try JSONDecoder().decode(Answer.self, from: Data(json)).workers
    }

    private func pause(until end: ContinuousClock.Instant, _ what: String) async throws {
        guard ContinuousClock.now < end else { throw QTasksError(.timeout, what) }
        try await Task.sleep(for: Self.settlePause)
    }
}
