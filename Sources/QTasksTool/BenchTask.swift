// Part of QTasks. License: see LICENSE.

import Glibc
import QTasks

/// The task that benchmarks run: it answers `2 * i + 1`, which isn't in its arguments, so that a right
/// answer proves that this task was executed.
enum BenchTask {
    struct Input: Codable, Sendable {
        var i: Int
        var pad: String
    }

    /// Set for the processes of a benchmark's own system: `qtasks` has no task otherwise.
    private static let variable = "QTASKS_BENCH"

    static let name = "bench"

    /// Arguments of 100 bytes of JSON.
    static func input(_ i: Int) -> Input {
        Input(i: i, pad: String(repeating: "x", count: 100 - 16 - String(i).count))
    }

    static func answer(_ i: Int) -> Int { 2 * i + 1 }

    /// Lets the processes that this one starts run the task.
    static func enable() {
        setenv(variable, "1", 1)
    }

    static func register(with app: QueueTasks) {
        guard getenv(variable) != nil else { return }
        app.task(name) { (input: Input, _: TaskContext) async throws -> Int in answer(input.i) }
        PayloadTask.register(with: app)
        FaultTasks.register(with: app)
    }
}
