// Part of QTasks. License: see LICENSE.

import Logging
package import QTasksModel
package import QTasksWire
import Synchronization

/// One task as it was handed to this worker.
///
/// The one object that is made per task.
package final class TaskDelivery: Sendable {
    package let lease: Lease
    package let id: TaskID
    /// The place of its handler in the registry.
    package let handler: Int
    package let attempt: UInt32
    package let failures: UInt32
    package let epoch: UInt16
    package let priority: Int16
    package let addedAt: Timestamp
    package let queue: String
    /// Empty where they are in the store.
    package let arguments: [UInt8]
    package let contentType: String?
    package let headers: [TaskSubmission.Header]
    package let parent: TaskID?
    /// As the add said; `nil`: as the handler says.
    package let maxAttempts: UInt32?
    /// As the add said; `nil`: as the handler says.
    package let timeLimitMilliseconds: UInt64?

    private let cancelled = Atomic(false)
    private let placed: Mutex<PlacedArguments?>

    /// Copies what it needs out of the message.
    ///
    /// - Throws: Where the options can't be read.
    init(
        _ task: LeasedTask,
        _ envelope: Envelope,
        handler: Int,
        placed: PlacedArguments? = nil
    ) throws(WireError) {
        self.placed = Mutex(placed)
        let options = try EnvelopeOptions(envelope.options)
        lease = task.lease
        id = envelope.id
        self.handler = handler
        attempt = task.attempt
        failures = task.failures
        epoch = task.epoch
        priority = envelope.priority
        addedAt = task.addedAt
        queue =
            envelope.queue.isEmpty
            ? TaskName.defaultQueue : String(decoding: envelope.queue, as: UTF8.self)
        arguments = Array(envelope.arguments)
        contentType = options.contentType
        headers = options.headers
        parent = options.parent
        maxAttempts = options.maxAttempts
        timeLimitMilliseconds = options.timeLimitMilliseconds
    }

    /// Whether the arguments can be used; called once, before the handler is, from where it will run.
    ///
    /// Costs nothing where they came with the message.
    package func checkArguments() -> Bool {
        placed.withLock { $0 }?.isSound() ?? true
    }

    /// Whether the arguments are in the store and were not handed over yet.
    package var isPlaced: Bool { placed.withLock { $0 != nil } }

    /// Hands over arguments that are in the store; `nil` where they aren't, or were handed over.
    ///
    /// They stay mapped for as long as somebody has them.
    package func takePlaced() -> PlacedArguments? { placed.withLock { $0.take() } }

    /// A copy of the arguments, wherever they are; those in the store are let go.
    package func takeCopy() -> [UInt8] {
        takePlaced()?.withBytes { Array($0) } ?? arguments
    }

    package var holding: Holding { Holding(id: id, lease: lease) }

    /// Whether the handler was asked to come to an end.
    ///
    /// Any thread.
    package var isCancelled: Bool { cancelled.load(ordering: .relaxed) }

    /// Asks the handler to come to an end.
    ///
    /// Any thread.
    package func markCancelled() { cancelled.store(true, ordering: .relaxed) }
}

/// What all tasks of one worker share.
final class WorkerSite: Sendable {
    let worker: WorkerID
    let handlers: [TaskHandler]
    let logger: Mutex<Logger>

    init(worker: WorkerID, handlers: [TaskHandler], logger: Logger) {
        self.worker = worker
        self.handlers = handlers
        self.logger = Mutex(logger)
    }
}
