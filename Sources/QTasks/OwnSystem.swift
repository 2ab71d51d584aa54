// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksClient
package import QTasksModel
import QTasksProcess
import QTasksStarter
import Synchronization

/// A system whose Starter is a child of this process.
package final class OwnSystem: Sendable {
    private struct State {
        var exit: ExitReport?
        var waiting: [CheckedContinuation<Void, Never>] = []
    }

    /// The Starter's process.
    package let pid: Int32
    private let state = Mutex(State())

    private init(pid: Int32) {
        self.pid = pid
    }

    /// Starts it from a thread that lives as long as the system: the kernel kills the Starter when the
    /// thread that started it ends.
    package static func start(home: String, config: QueueConfig) async throws -> OwnSystem {
        var settings = config.handedOver
        settings["home"] = home
        if config.logLevel == "info" { settings["log-level"] = "warning" }
        let handover = RoleHandover(
            role: "starter",
            parent: getpid(),
            runID: RunID.make(),
            settings: settings
        )
        let environment = handover.environment
        return try await withCheckedThrowingContinuation { continuation in
            do {
                try RoleThread.run("qtasks-system") {
                    do {
                        let child = try ChildProcess.spawn(
                            arguments: ["starter", "--home", home],
                            environment: environment
                        )
                        let system = OwnSystem(pid: child.pid)
                        continuation.resume(returning: system)
                        system.follow(child)
                    } catch {
                        continuation.resume(
                            throwing: QTasksError(
                                .noSystem,
                                "the system can't be started: \(error)"
                            )
                        )
                    }
                }
            } catch {
                continuation.resume(
                    throwing: QTasksError(.noSystem, "the system can't be started: \(error)")
                )
            }
        }
    }

    private func follow(_ child: ChildProcess) {
        var item = pollfd(fd: child.pidfd, events: Int16(POLLIN), revents: 0)
        while true {
            if let report = child.reap() {
                return ended(report)
            }
            Glibc.poll(&item, 1, -1)
        }
    }

    private func ended(_ report: ExitReport) {
        let waiting = state.withLock { state in
            state.exit = report
            defer { state.waiting = [] }
            return state.waiting
        }
        for continuation in waiting { continuation.resume() }
    }

    /// Until Broker and Storage answer, or the system has ended instead.
    package func waitUntilReady(home: String) async throws {
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                let address = try BrokerAddress.home(home, waitForSystem: true)
                let broker = ZeroMQBroker(ClientConnection(to: address))
                defer { broker.close() }
                // answered by Storage, so that the answer means that all are there
                _ = try await broker.get(TaskID(), timeout: .seconds(30))
            }
            group.addTask {
                await self.waitForEnd()
                try Task.checkCancellation()
                let report = self.state.withLock { $0.exit }
                throw QTasksError(
                    .noSystem,
                    "the system ended before it was ready: \(report?.description ?? "")"
                )
            }
            try await group.next()
            self.release()
            group.cancelAll()
        }
    }

    private func waitForEnd() async {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isOver = state.withLock { state in
                    if state.exit != nil || Task.isCancelled { return true }
                    state.waiting.append(continuation)
                    return false
                }
                if isOver { continuation.resume() }
            }
        } onCancel: {
            release()
        }
    }

    private func release() {
        let waiting = state.withLock { state in
            defer { state.waiting = [] }
            return state.waiting
        }
        for continuation in waiting { continuation.resume() }
    }

    /// Drains it and waits until its last process has ended.
    package func stop() async {
        guard state.withLock({ $0.exit == nil }) else { return }
        kill(pid, SIGTERM)
        await Task.detached { await self.waitForEnd() }.value
    }
}
