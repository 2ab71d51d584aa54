// Part of QTasks. License: see LICENSE.

import Glibc
import QTasks

/// Tasks that do what tasks do; each result can be told from its arguments.
enum PlainTasks {
    static let names = ["plain", "rest", "block", "retried"]

    static func answer(_ number: Int) -> Int { 2 * number + 1 }

    static func register(with app: QueueTasks) {
        app.task("plain") { (number: Int, context: TaskContext) async throws -> Int in
            Executions.note(context)
            return answer(number)
        }

        app.task("rest") { (number: Int, context: TaskContext) async throws -> Int in
            Executions.note(context)
            try await context.sleep(for: .milliseconds(number % 200))
            return answer(number)
        }

        app.syncTask("block") { (number: Int, context: TaskContext) throws -> Int in
            Executions.note(context)
            usleep(UInt32(number % 100) * 1000)
            return answer(number)
        }

        app.task("retried", retry: .fixed(maxAttempts: 3, delay: .milliseconds(20))) {
            (number: Int, context: TaskContext) async throws -> Int in
            Executions.note(context)
            if Int(context.failures) < number % 3 { throw NoLuck() }
            return answer(number)
        }
    }
}

/// What failing tasks throw.
struct NoLuck: Error, CustomStringConvertible {
    var description: String { "no luck" }
}
