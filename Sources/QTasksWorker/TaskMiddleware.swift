// Part of QTasks. License: see LICENSE.

public import QTasksModel

/// Code around every attempt of the tasks it is registered with: `middlewares_before` and
/// `middlewares_after`.
///
/// For each attempt `before` is called once, in the order of registration, then the handler, then
/// `after` once, in the reverse order. Where a `before` throws, neither the handler nor what stands
/// behind it runs: `after` is called on those whose `before` returned, with the outcome that the
/// error makes. An attempt whose process dies has no `after`.
///
/// Those of a blocking handler run on its thread until their first suspension.
public protocol TaskMiddleware: Sendable {
    /// - Returns: The arguments for what comes next; usually the same.
    /// - Throws: What is then handled like an error of the handler, retries included.
    func before(_ context: TaskContext, arguments: [UInt8]) async throws -> [UInt8]

    /// - Returns: The outcome for what comes next; usually the same.
    func after(_ context: TaskContext, outcome: TaskOutcome) async -> TaskOutcome
}

extension TaskMiddleware {
    public func before(_ context: TaskContext, arguments: [UInt8]) async throws -> [UInt8] {
        arguments
    }

    public func after(_ context: TaskContext, outcome: TaskOutcome) async -> TaskOutcome {
        outcome
    }
}
