// Part of QTasks. License: see LICENSE.

import Glibc
import Synchronization
import Testing

@testable import QTasksProcess

/// What a thread of a test left behind.
final class Outcome: Sendable {
    private let kept = Mutex<ExitReport?>(nil)

    var report: ExitReport? {
        get { kept.withLock { $0 } }
        set { kept.withLock { $0 = newValue } }
    }
}

/// A thread of a test, and how it ended.
final class Running: Sendable {
    private let ends: (reading: Int32, writing: Int32)
    private let kept = Mutex<(any Error)?>(nil)

    var error: (any Error)? { kept.withLock { $0 } }

    var hasEndedInTime: Bool {
        Polling.isReadable(ends.reading, withinMilliseconds: patienceMilliseconds)
    }

    fileprivate init(_ body: @escaping @Sendable () throws -> Void) throws {
        var pair: [Int32] = [-1, -1]
        try #require(pipe(&pair) == 0)
        ends = (pair[0], pair[1])
        try RoleThread.run("test") {
            do {
                try body()
            } catch {
                self.kept.withLock { $0 = error }
            }
            var byte: UInt8 = 1
            _ = write(self.ends.writing, &byte, 1)
        }
    }

    deinit {
        close(ends.reading)
        close(ends.writing)
    }
}

/// Runs `body` on a thread of its own, and goes on.
func waiting(_ body: @escaping @Sendable () throws -> Void) throws -> Running {
    try Running(body)
}

/// Runs `body` on a thread of its own, whose signal mask goes with it, to its end.
func waitForThread(_ body: @escaping @Sendable () throws -> Void) throws -> Bool {
    let running = try Running(body)
    let hasEnded = running.hasEndedInTime
    if let error = running.error { throw error }
    return hasEnded
}
