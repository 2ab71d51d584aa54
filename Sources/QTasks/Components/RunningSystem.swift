// Part of QTasks. License: see LICENSE.

import FoundationEssentials
import Glibc
public import QTasksModel
import QTasksProcess

/// The Starter of a system on this host, as its operator sees it: by its home directory.
///
/// Holds nothing of the system: it may be started, stopped and started again meanwhile. Only who may
/// signal the Starter's process can stop it.
public final class RunningSystem: Starter {
    /// How long ``processes()`` waits for an answer.
    private static let patience: Duration = .seconds(30)

    /// How long after a signal that had no effect the next one is sent.
    private static let repeatMilliseconds: Int32 = 1000

    private let home: HomeDirectory
    private let broker: ZeroMQBroker

    /// - Parameter home: Where the system lives.
    /// - Throws: ``QTasksError/Code/badHome`` where that can't be a home directory.
    public init(home: String) throws(QTasksError) {
        self.home = try HomeDirectory(at: home)
        broker = try ZeroMQBroker(home: home)
    }

    deinit {
        broker.close()
    }

    /// - Throws: ``QTasksError/Code/noSystem`` where none runs there, and what else may happen on the
    ///   way to the Broker; `CancellationError`.
    public func processes() async throws -> [ProcessReport] {
        struct App: Decodable {
            struct Process: Decodable {
                var role: String
                var pid: Int32
                var parent: Int32?
            }

            var processes: [Process]
        }
        // a connection that was there once waits for the system to come back
        _ = try starter()
        let json = try await broker.inspect("app", timeout: Self.patience)
        do {
            return try JSONDecoder().decode(App.self, from: Data(json)).processes.map {
                ProcessReport(role: $0.role, pid: $0.pid, parent: $0.parent)
            }
        } catch {
            throw QTasksError(
                .malformed,
                "the system at \(home.path) lists its processes in another form",
                cause: error
            )
        }
    }

    /// Stops the system in the usual way, by SIGTERM to its Starter, and by SIGINT after `grace`.
    ///
    /// The system's own grace period goes on counting: what ends first, it or `grace`, ends the
    /// drain. Cancelling the caller doesn't take the stop back.
    ///
    /// - Throws: ``QTasksError/Code/noSystem`` where none runs there;
    ///   ``QTasksError/Code/badHome`` where its Starter can't be told or may not be signalled, and
    ///   nothing was done then.
    public func stop(grace: Duration) async throws {
        let starter = try starter()
        let others = lower()
        guard starter.kill(SIGTERM) || starter.hasEnded else { throw forbidden }
        let milliseconds = Int32(clamping: grace.wholeMilliseconds)
        do throws(ProcessError) {
            // a thread of its own, since poll(2) blocks: never on Swift's pool
            _ = try await RoleThread.runToEnd(name: "qtasks-stop") { [self] in
                var limit = milliseconds
                while !Self.hasEnded(starter, withinMilliseconds: limit) {
                    // A second signal ends the drain, if it doesn't come so soon that it counts as
                    // the first. Another one, since a signal that is still pending swallows its
                    // like: signal(7).
                    starter.kill(SIGINT)
                    limit = Self.repeatMilliseconds
                }
                for process in others + lower() { Self.waitForEnd(process) }
            }
        } catch {
            throw QTasksError(
                .internalError,
                "the end of the system at \(home.path) can't be awaited",
                cause: error
            )
        }
    }

    /// The process that holds the home's lock, and no later one of its number.
    private func starter() throws(QTasksError) -> PidDescriptor {
        do throws(ProcessError) {
            if let holder = try LockFile.holder(of: home.lockPath),
                let descriptor = try PidDescriptor.open(holder.process)
            {
                return descriptor
            }
        } catch {
            throw QTasksError(
                .badHome,
                "the Starter of the system at \(home.path) can't be told",
                cause: error
            )
        }
        throw QTasksError(.noSystem, "no system runs at \(home.path)")
    }

    /// Storage and GlobalConfig, as far as they run: the kernel ends them where their parent was
    /// killed, and the Starter doesn't wait for that.
    private func lower() -> [PidDescriptor] {
        [home.path + "/storage.lock", home.configPath + "/process.lock"].compactMap { path in
            guard let holder = try? LockFile.holder(of: path) else { return nil }
            return try? PidDescriptor.open(holder.process)
        }
    }

    private var forbidden: QTasksError {
        QTasksError(
            .badHome,
            "the Starter of the system at \(home.path) may not be signalled: stop it as its owner"
        )
    }

    /// Waits for a process's end, so long.
    private static func hasEnded(
        _ process: PidDescriptor,
        withinMilliseconds limit: Int32
    ) -> Bool {
        let end = ContinuousClock.now + .milliseconds(limit)
        var item = pollfd(fd: process.descriptor, events: Int16(POLLIN), revents: 0)
        while !process.hasEnded {
            let left = end - ContinuousClock.now
            if left <= .zero { return false }
            poll(&item, 1, Int32(clamping: left.wholeMilliseconds))
        }
        return true
    }

    private static func waitForEnd(_ process: PidDescriptor) {
        while !hasEnded(process, withinMilliseconds: .max) {}
    }
}
