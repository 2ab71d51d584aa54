// Part of QTasks. License: see LICENSE.
//
// Attempts outside of a worker's process: the same contexts and outcomes, without the loop.

package import Logging
package import QTasksModel
import QTasksWire

/// Where tasks are made into attempts for one worker.
package struct LocalBench: Sendable {
    private let site: WorkerSite

    package init(worker: WorkerID, registry: TaskRegistry, logger: Logger) {
        site = WorkerSite(worker: worker, handlers: registry.handlers, logger: logger)
    }

    /// A task under a lease, ready to be run.
    ///
    /// - Throws: ``QTasksError/Code/unknownTask`` where no handler has its name, and
    ///   ``QTasksError/Code/badOption`` or ``QTasksError/Code/badName`` where it is no task that
    ///   could have been added.
    package func attempt(
        _ task: TaskSubmission,
        lease: Lease,
        attempt: UInt32,
        failures: UInt32,
        epoch: UInt16,
        addedAt: Timestamp
    ) throws(QTasksError) -> LocalAttempt {
        guard let handler = site.handlers.firstIndex(where: { $0.name == task.name }) else {
            throw QTasksError(.unknownTask, "worker \(site.worker) can't run '\(task.name)'")
        }
        let leased = LeasedTask(
            lease: lease,
            attempt: attempt,
            failures: failures,
            epoch: epoch,
            isSuspect: false,
            addedAt: addedAt
        )
        var envelope = WireWriter(reserving: 256 + task.arguments.count)
        try task.write(to: &envelope)
        do {
            let delivery = try envelope.bytes.withUnsafeBytes { bytes in
                try TaskDelivery(leased, try Envelope(bytes), handler: handler)
            }
            return LocalAttempt(delivery: delivery, site: site)
        } catch {
            throw QTasksError(.badOption, "task \(task.id) can't be read", cause: error)
        }
    }
}

/// One attempt, to be run once.
package struct LocalAttempt: Sendable {
    let delivery: TaskDelivery
    let site: WorkerSite

    package var id: TaskID { delivery.id }
    package var lease: Lease { delivery.lease }

    private var handler: TaskHandler { site.handlers[delivery.handler] }

    /// How long it may run; `nil`: for ever.
    package var timeLimit: Duration? {
        delivery.timeLimitMilliseconds.map { .milliseconds(Int64(clamping: $0)) }
            ?? handler.timeLimit
    }

    /// Asks the handler to come to an end; any thread.
    package func markCancelled() { delivery.markCancelled() }

    /// Runs the handler to its end, on the caller's executor.
    package func run(with executor: any TaskExecutor) async -> AttemptEnd {
        let startedAt = Timestamp.now
        let outcome = await executor.execute(
            handler,
            arguments: delivery.arguments,
            context: TaskContext(delivery, at: site)
        )
        return AttemptEnd(
            lease: lease,
            outcome: outcome,
            startedAt: startedAt,
            finishedAt: .now
        )
    }

    /// What becomes of it where its time is over, now.
    package func overdueEnd(startedAt: Timestamp) -> AttemptEnd {
        let failure = TaskFailure(
            type: TaskFailure.timeLimitType,
            message: "ran longer than its limit of \(timeLimit ?? .zero)"
        )
        let isRetried = handler.retryIf?(TimeLimitError()) ?? true
        let outcome =
            isRetried
            ? handler.retry.outcome(
                of: failure,
                failuresBefore: delivery.failures,
                maxAttempts: delivery.maxAttempts ?? handler.retry.maxAttempts,
                random: .random(in: 0..<1)
            ) : .error(failure)
        return AttemptEnd(
            lease: lease,
            outcome: outcome,
            startedAt: startedAt,
            finishedAt: .now
        )
    }
}

extension AttemptEnd {
    /// Whether the handler only said that it was cancelled.
    package var isCancellation: Bool { outcome.isCancellation }

    /// The same with an error in place of a result that nobody takes.
    package func tooLarge(_ message: String) -> AttemptEnd {
        var end = self
        end.outcome = .error(TaskFailure(type: "ResultTooLarge", message: message))
        return end
    }
}
