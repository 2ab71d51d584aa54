// Part of QTasks. License: see LICENSE.

import QTasks
import QTasksProcess
import Testing

private let limit: Duration = .seconds(30)

/// What every Starter must do; the one of a running system is the only one there is.
@Suite(.timeLimit(.minutes(1)))
struct `A Starter` {
    @Test func `shows the system's processes, each under who started it`() async throws {
        try await TestSystem.use { system in
            let starter: any Starter = try RunningSystem(home: system.home)
            let processes = try await starter.processes()
            func process(_ role: String) throws -> ProcessReport {
                try #require(processes.first { $0.role == role }, "\(role) in \(processes)")
            }
            #expect(
                try process("starter")
                    == ProcessReport(role: "starter", pid: system.pid, parent: nil)
            )
            #expect(try process("broker").parent == system.pid)
            #expect(try process("worker").parent == system.pid)
            #expect(try process("storage").parent == process("broker").pid)
            #expect(try process("globalconfig").parent == process("storage").pid)
        }
    }

    @Test func `stops the system at once where there is no grace, and returns when it is gone`()
        async throws
    {
        try await TestSystem.use { system in
            let broker = try ZeroMQBroker(home: system.home)
            defer { broker.close() }
            let rest = TaskSubmission(name: "rest", arguments: Array("null".utf8))
            let echo = TaskSubmission(name: "echo", arguments: Array("\"x\"".utf8))
            try await broker.add([rest], timeout: limit)
            // leased after it, so that it runs by now
            _ = try await broker.run([echo], timeout: limit)
            let starter: any Starter = try RunningSystem(home: system.home)
            let processes = try await starter.processes().compactMap {
                ProcessIdentity.of(pid: $0.pid)
            }
            #expect(processes.count == 5)
            let start = ContinuousClock.now
            try await starter.stop(grace: .zero)
            // the system's own grace period is 10 s
            #expect(ContinuousClock.now - start < .seconds(8))
            #expect(processes.filter(\.isAlive).isEmpty)
            for attempt in 0..<2 {
                let error = await #expect(throws: QTasksError.self) {
                    if attempt == 0 {
                        try await starter.stop(grace: .zero)
                    } else {
                        _ = try await starter.processes()
                    }
                }
                #expect(error?.code == .noSystem)
            }
        }
    }

    @Test func `isn't there where nobody started a system`() async throws {
        try await withFolder { folder in
            let starter = try RunningSystem(home: folder + "/home")
            let error = await #expect(throws: QTasksError.self) {
                try await starter.stop(grace: .zero)
            }
            #expect(error?.code == .noSystem)
        }
    }
}
