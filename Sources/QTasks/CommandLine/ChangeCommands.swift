// Part of QTasks. License: see LICENSE.

import ArgumentParser
import QTasksModel

/// `cancel`: ends tasks.
struct CancelCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cancel",
        abstract: "End tasks as 'cancel', whether they wait or run.",
        discussion: """
            It is on disk when the command ends: a task that waited never starts. A running handler is \
            cancelled, and whatever it comes to counts for nothing; one that never looks goes on in its \
            slot until it returns. Exit code 1 where a task had ended before, 2 where there is none.
            """
    )

    @OptionGroup var place: HomeOptions

    @Argument(help: "The tasks' IDs.")
    var ids: [String]

    @Option(help: "Why, for whoever waits and for 'explain'.")
    var reason = ""

    @Option(help: "Seconds to wait for the system's answer. (default: 30)")
    var timeout: Seconds?

    @Flag(help: "Print one JSON object a task.")
    var json = false

    func run() async throws {
        let changes = TaskChanges(ids: try TaskID.parsed(ids), json: json)
        try await changes.run(place.app) { app, ids in
            try await app.connectedBroker()
                .cancel(ids, reason: reason, timeout: timeout?.duration ?? .seconds(30))
        }
    }
}

/// `requeue`: has final tasks run once more.
struct RequeueCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "requeue",
        abstract: "Queue tasks again that ended as error, dead or cancel.",
        discussion: """
            Each begins a new epoch at the place in line that it had: attempts, failures and deaths are \
            counted anew. Exit code 1 where a task is in another status, 2 where there is none.
            """
    )

    @OptionGroup var place: HomeOptions

    @Argument(help: "The tasks' IDs.")
    var ids: [String]

    @Option(help: "Seconds to wait for the system's answer. (default: 30)")
    var timeout: Seconds?

    @Flag(help: "Print one JSON object a task.")
    var json = false

    func run() async throws {
        let changes = TaskChanges(ids: try TaskID.parsed(ids), json: json)
        try await changes.run(place.app) { app, ids in
            try await app.connectedBroker().requeue(ids, timeout: timeout?.duration ?? .seconds(30))
        }
    }
}

/// Changes that are asked for a few thousand at a time, and told task by task.
struct TaskChanges {
    /// What one message asks for at most.
    private static let batchSize = 4096

    let ids: [TaskID]
    let json: Bool
    /// What is told of a task that was changed; `nil`: its status.
    var done: String?

    /// - Throws: `ExitCode` 2 where a task isn't there, else 1 where one could not be changed.
    func run(
        _ app: QueueTasks,
        _ change: (QueueTasks, [TaskID]) async throws -> [Result<TaskStatus, QTasksError>]
    ) async throws {
        var codes: Set<Int32> = []
        for start in stride(from: 0, to: ids.count, by: Self.batchSize) {
            let batch = Array(ids[start..<min(start + Self.batchSize, ids.count)])
            for (id, result) in zip(batch, try await change(app, batch)) {
                tell(id, result)
                if case .failure(let error) = result { codes.insert(error.code.changeExitCode) }
            }
        }
        if let worst = codes.max() { throw ExitCode(worst) }
    }

    private func tell(_ id: TaskID, _ result: Result<TaskStatus, QTasksError>) {
        switch result {
        case .success(let status):
            let word = done ?? status.rawValue
            guard json else { return CommandOutput.print("\(id) \(word)") }
            var text = JSONText()
            text.object { text in
                text.member("id", id.description)
                text.member("status", word)
            }
            CommandOutput.print(text.bytes)
        case .failure(let error):
            guard json else { return CommandOutput.complain(error.message) }
            var text = JSONText()
            text.object { text in
                text.member("id", id.description)
                text.member("error", error.code.rawValue)
                text.member("message", error.message)
            }
            CommandOutput.print(text.bytes)
        }
    }
}

extension QTasksError.Code {
    fileprivate var changeExitCode: Int32 {
        self == .conflict ? 1 : QTasksError(self, "").exitCode
    }
}

extension TaskID {
    /// - Throws: `ValidationError` naming the first text that is none.
    static func parsed(_ texts: [String]) throws -> [TaskID] {
        try texts.map { text in
            guard let id = TaskID(text) else { throw ValidationError("'\(text)' is no task ID") }
            return id
        }
    }
}
