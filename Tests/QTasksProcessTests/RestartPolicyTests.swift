// Part of QTasks. License: see LICENSE.

import Testing

@testable import QTasksProcess

@Suite struct `The restart policy` {
    private static let crash = Self.report(.signaled(number: 9))
    private static let second: UInt64 = 1_000_000_000

    private static func report(_ cause: ExitReport.Cause) -> ExitReport {
        ExitReport(
            pid: 7,
            cause: cause,
            maxResidentBytes: 0,
            userMicroseconds: 0,
            systemMicroseconds: 0
        )
    }

    /// The delays, in milliseconds, of that many children that each die `life` after their start.
    private func delays(_ count: Int, life: UInt64, with policy: inout RestartPolicy) -> [UInt64] {
        var now: UInt64 = 55 * Self.second
        return (0..<count).map { _ in
            let end = now + life
            guard
                case .restart(let next) = policy.childEnded(
                    at: end,
                    startedAt: now,
                    report: Self.crash
                )
            else {
                Issue.record("a crash must be followed by a restart")
                return 0
            }
            now = next
            return (next - end) / 1_000_000
        }
    }

    @Test func `restarts at once, then after 100 ms doubling to 5 s`() {
        var policy = RestartPolicy()
        let found = delays(9, life: Self.second, with: &policy)
        #expect(found == [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000])
    }

    @Test func `forgets after a life of 10 s`() {
        var policy = RestartPolicy()
        _ = delays(5, life: 0, with: &policy)
        #expect(delays(1, life: 10 * Self.second - 1, with: &policy) == [1600])
        #expect(delays(3, life: 10 * Self.second, with: &policy) == [0, 0, 0])
        #expect(delays(2, life: 0, with: &policy) == [100, 200])
    }

    @Test func `gives up at exit code 78 and says so`() {
        var policy = RestartPolicy()
        let decision = policy.childEnded(
            at: 2,
            startedAt: 1,
            report: Self.report(.exited(code: 78))
        )
        #expect(decision == .giveUp(reason: "exit code 78: it would fail the same way again"))
    }

    @Test(arguments: [0, 1, 77, 79] as [Int32])
    func `restarts after any other exit code`(code: Int32) {
        var policy = RestartPolicy()
        let decision = policy.childEnded(
            at: 2,
            startedAt: 1,
            report: Self.report(.exited(code: code))
        )
        #expect(decision == .restart(at: 2))
    }
}
