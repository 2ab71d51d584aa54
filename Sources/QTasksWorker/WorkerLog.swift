// Part of QTasks. License: see LICENSE.

import Logging
import QTasksModel
import QTasksWire

/// What a worker's loop writes to the log: one structured line for each arrow of the diagrams at
/// debug, lifecycle at info, and complaints that a peer can't turn into a flood.
struct WorkerLog {
    private var logger: Logger
    private var malformed = 0
    private(set) var isTracing: Bool

    init(_ logger: Logger) {
        self.logger = logger
        self.logger[metadataKey: "component"] = "worker"
        isTracing = logger.logLevel <= .debug
    }

    mutating func setLevel(_ level: Logger.Level) {
        logger.logLevel = level
        isTracing = level <= .debug
    }

    /// Broker -> Worker, Worker -> TaskExecutor, Worker -> Storage.
    func arrows(of effects: WorkerEffects) {
        guard isTracing else { return }
        for id in effects.received { arrow("task received", id.description, "broker") }
        for delivery in effects.starts {
            arrow("execute task", delivery.id.description, "executor")
        }
        for id in effects.saved { arrow("save result", id.description, "storage") }
    }

    /// TaskExecutor -> Worker.
    func returned(_ end: AttemptEnd, of task: @autoclosure () -> TaskID?) {
        guard isTracing else { return }
        var metadata: Logger.Metadata = [
            "event": "execution result", "lease": .stringConvertible(end.lease),
            "outcome": .string(end.outcome.kind), "peer": "executor",
        ]
        if let task = task() { metadata["task"] = .string(task.description) }
        logger.debug("execution result", metadata: metadata)
    }

    func slots(_ count: Int) {
        logger.info("slots changed", metadata: ["slots": .stringConvertible(count)])
    }

    func leaving(inHand: Int) {
        logger.info("leaving", metadata: ["inHand": .stringConvertible(inHand)])
    }

    mutating func notes(of effects: WorkerEffects) {
        for note in effects.notes {
            switch note {
            case .malformed(let why):
                malformed += 1
                // The 1st, 2nd, 4th, 8th, ...: a peer can't fill the log.
                guard malformed & (malformed - 1) == 0 else { continue }
                logger.warning(
                    "a message of the Broker could not be read: \(why)",
                    metadata: ["count": .stringConvertible(malformed)]
                )
            case .refusedByBroker(let refusal):
                logger.error("the Broker refuses this worker: \(refusal.message)")
            case .unknownName(let name):
                logger.notice("handed back: no task is registered as '\(name)'")
            case .abandoned(let id):
                logger.notice(
                    "the lease is no longer valid: its result is dropped",
                    metadata: ["task": .string(id.description)]
                )
            case .overTimeLimit(let id):
                logger.info(
                    "the time limit has passed",
                    metadata: ["task": .string(id.description)]
                )
            case .unreadable(let id):
                logger.info(
                    "the arguments are not in the store where they were: handed back",
                    metadata: ["task": .string(id.description)]
                )
            case .stalled(let count):
                logger.info(
                    "queued tasks are handed back: the running ones take long",
                    metadata: ["count": .stringConvertible(count)]
                )
            }
        }
    }

    private func arrow(_ event: String, _ task: String, _ peer: String) {
        logger.debug(
            "\(event)",
            metadata: [
                "event": .string(event), "task": .string(task), "peer": .string(peer),
            ]
        )
    }
}

extension TaskOutcome {
    /// Its name, for people.
    var kind: String {
        switch self {
        case .success: "success"
        case .error: "error"
        case .cancel: "cancel"
        case .retry: "retry"
        }
    }
}
