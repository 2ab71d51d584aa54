// Part of QTasks. License: see LICENSE.

public import QTasksModel

/// The replaceable component that executes tasks in a worker: it calls the middlewares and the task
/// function, and makes an outcome of errors and retries.
///
/// It is called once for each attempt. For a blocking handler the caller has seen to it that the
/// call runs on a thread which may block; for an async one it runs on Swift's cooperative pool. The
/// time limit is the worker's own affair: it cancels the call and records the outcome itself.
public protocol TaskExecutor: Sendable {
    /// Runs one attempt to its end.
    func execute(
        _ handler: TaskHandler,
        arguments: [UInt8],
        context: TaskContext
    ) async -> TaskOutcome
}

/// The executor that a worker has unless it is given another.
///
/// | the handler | the outcome |
/// | --- | --- |
/// | returns | `success` |
/// | throws ``TaskCancelError`` | `cancel` with its reason |
/// | throws ``BadArgumentsError`` | `error`, never retried |
/// | throws ``RetryAfterError`` | `retry` after that wait, while it may be tried again, else `error` |
/// | throws anything else | `retry` while the policy and `retryIf` allow it, else `error` |
public struct DefaultTaskExecutor: TaskExecutor {
    public init() {}

    public func execute(
        _ handler: TaskHandler,
        arguments: [UInt8],
        context: TaskContext
    ) async -> TaskOutcome {
        var arguments = arguments
        var entered = 0
        var outcome: TaskOutcome
        do {
            for middleware in handler.middlewares {
                arguments = try await middleware.before(context, arguments: arguments)
                entered += 1
            }
            let result =
                switch handler.kind {
                case .async(let function): try await function(arguments, context)
                case .blocking(let function): try function(arguments, context)
                }
            outcome = .success(result: result, contentType: handler.contentType)
        } catch {
            outcome = Self.outcome(of: error, in: handler, context)
        }
        for middleware in handler.middlewares[..<entered].reversed() {
            outcome = await middleware.after(context, outcome: outcome)
        }
        return outcome
    }

    private static func outcome(
        of error: any Error,
        in handler: TaskHandler,
        _ context: TaskContext
    ) -> TaskOutcome {
        switch error {
        case let error as TaskCancelError:
            return .cancel(reason: error.reason)
        case let error as BadArgumentsError:
            return .error(
                TaskFailure(type: TaskFailure.badArgumentsType, message: error.message)
            )
        case let error as RetryAfterError:
            return outcome(of: error, in: handler, context)
        default:
            let failure = TaskFailure(error)
            if let retryIf = handler.retryIf, !retryIf(error) { return .error(failure) }
            return handler.retry.outcome(
                of: failure,
                failuresBefore: context.failures,
                maxAttempts: context.maxAttempts,
                random: .random(in: 0..<1)
            )
        }
    }

    private static func outcome(
        of error: RetryAfterError,
        in handler: TaskHandler,
        _ context: TaskContext
    ) -> TaskOutcome {
        let failure = TaskFailure(error)
        let isUnlimited = handler.retry == .none && context.delivery.maxAttempts == nil
        let most = isUnlimited ? UInt32.max : context.maxAttempts
        guard context.failures < most - 1 else { return .error(failure) }
        let parts = error.delay.components
        let (seconds, overflow) = UInt64(parts.seconds).multipliedReportingOverflow(by: 1000)
        let wait = overflow ? .max : seconds + UInt64(parts.attoseconds / 1_000_000_000_000_000)
        return .retry(failure, afterMilliseconds: wait, maxAttempts: most)
    }
}

extension TaskFailure {
    /// An error as it is recorded.
    fileprivate init(_ error: any Error) {
        self.init(
            type: String(describing: Swift.type(of: error)),
            message: String(describing: error)
        )
    }
}

extension RetryPolicy {
    /// What a failure comes to: once more after a while, or the last word.
    ///
    /// `failuresBefore` counts the attempts that ended in an error before this one, `maxAttempts`
    /// is how many may, and `random` in 0..<1 places the wait within its jitter.
    func outcome(
        of failure: TaskFailure,
        failuresBefore: UInt32,
        maxAttempts: UInt32,
        random: Double
    ) -> TaskOutcome {
        let failures = failuresBefore == .max ? .max : failuresBefore + 1
        guard failures < maxAttempts else { return .error(failure) }
        let wait = delayMilliseconds(afterFailures: failures, random: random)
        return .retry(failure, afterMilliseconds: wait, maxAttempts: maxAttempts)
    }
}
