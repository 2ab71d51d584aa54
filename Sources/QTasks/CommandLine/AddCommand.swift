// Part of QTasks. License: see LICENSE.

import ArgumentParser
import Glibc
import QTasksModel

/// `add`: one task.
struct AddCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "add",
        abstract: "Add a task; prints its ID once it is on disk, or with --wait how it ended."
    )

    @OptionGroup var place: HomeOptions

    @Argument(help: "The task's name.")
    var name: String

    @Argument(help: "Its arguments as JSON; '-' reads them from standard input.")
    var arguments: String = "null"

    @Flag(help: "Wait for the end and print the result.")
    var wait = false

    @Flag(help: "Print one JSON object: with --wait the record, else the ID.")
    var json = false

    @Option(help: "Seconds to wait at most. (default: as long as it takes; 30 to be acknowledged)")
    var timeout: Seconds?

    @Option(help: "Higher goes first, -32768 to 32767. (default: 0)")
    var priority: Int16?

    @Option(help: "The queue it waits in. (default: default)")
    var queue: String?

    @Option(help: "What limits per key of its queue go by, such as a customer.")
    var key: String?

    @Option(help: "Seconds before it may start.")
    var delay: Seconds?

    @Option(
        help:
            "What the acknowledgement has survived: synced, written or interval:MS. (default: as set)"
    )
    var durability: String?

    @Option(help: "How long it is kept once it has ended, such as 10m or 30d. (default: as set)")
    var retention: String?

    @Option(
        help:
            "Give it up unless it starts by then: a time from now such as 10m, or 2026-11-23T18:30:00Z."
    )
    var expires: String?

    @Option(help: "Add nothing while a task of this name has the same key: be told that one.")
    var unique: String?

    @Option(
        name: .customLong("unique-for"),
        help:
            "How long the first task has its key: queued, unfinished, or a time such as 10m. (default: unfinished)"
    )
    var uniqueFor: String?

    @Option(help: "The task's ID, a UUID: adding it again is the same task.")
    var id: String?

    func run() async throws {
        let app = place.app
        let submission = try makeSubmission()
        guard wait else {
            let ids = try await app.addTasks(
                [submission],
                timeout: timeout?.duration ?? QueueTasks.addTimeout
            )
            printID(ids[0], isRepeat: ids[0] != submission.id)
            return
        }
        let end = try await app.connectedBroker().run([submission], timeout: timeout?.duration)[0]
            .get()
        guard let record = try await app.get(end.id) else {
            throw QTasksError(.notFound, "task \(end.id) has ended and is gone")
        }
        if json {
            CommandOutput.print(record.json)
        } else {
            show(record)
        }
        if record.status != .success { throw ExitCode(1) }
    }

    private func printID(_ id: TaskID, isRepeat: Bool) {
        guard json else { return CommandOutput.print("\(id)") }
        var text = JSONText()
        text.object { text in
            text.member("id", id.description)
            if isRepeat { text.member("repeat", true) }
        }
        CommandOutput.print(text.bytes)
    }

    private func show(_ record: TaskRecord) {
        switch record.outcome {
        case .success(let result, _): CommandOutput.print(result)
        case .error(let failure), .retry(let failure, _, _):
            CommandOutput.complain("task \(record.id): \(failure.type): \(failure.message)")
        case .cancel(let reason):
            CommandOutput.complain("task \(record.id) was given up: \(reason)")
        case nil: CommandOutput.complain("task \(record.id) is \(record.status.rawValue)")
        }
    }

    private func makeSubmission() throws -> TaskSubmission {
        let bytes = arguments == "-" ? readInput() : Array(arguments.utf8)
        guard JSONCheck.isValid(bytes) else {
            throw ValidationError("the arguments are no JSON: \(arguments)")
        }
        var submission = TaskSubmission(name: name, arguments: bytes)
        submission.key = key.map { Array($0.utf8) }
        if let id {
            guard let id = TaskID(id) else { throw ValidationError("'\(id)' is no task ID") }
            submission.id = id
        }
        if let durability {
            guard let level = Durability(durability) else {
                throw ValidationError(
                    "--durability is '\(durability)'; it takes \(Durability.allowedTexts)"
                )
            }
            submission.durability = level
        }
        if let retention {
            guard let seconds = SecondsText.seconds(retention) else {
                throw ValidationError(
                    "--retention is '\(retention)'; it takes a number with s, m, h or d, at least 10m"
                )
            }
            submission.retentionSeconds = seconds
        }
        if let expires { submission.expires = try moment(expires) }
        submission.unique = try uniqueKey()
        if let priority { submission.priority = priority }
        if let queue { submission.queue = queue }
        if let delay {
            let parts = delay.duration.components
            let milliseconds = parts.seconds * 1000 + parts.attoseconds / 1_000_000_000_000_000
            submission.start = .after(milliseconds: UInt64(milliseconds))
        }
        return submission
    }

    /// A time from now, or one of the wall clock.
    private func moment(_ text: String) throws -> Timestamp {
        let now = Timestamp.now
        if let seconds = SecondsText.seconds(text) {
            return Timestamp(nanoseconds: now.nanoseconds + Int64(seconds) * 1_000_000_000)
        }
        guard let moment = TimeText.moment(text, now: now) else {
            throw ValidationError(
                "--expires is '\(text)'; it takes a number with s, m, h or d, or a time such as \(now)"
            )
        }
        return moment
    }

    private func uniqueKey() throws -> UniqueKey? {
        guard let unique else {
            guard uniqueFor == nil else { throw ValidationError("--unique-for needs --unique KEY") }
            return nil
        }
        let key = Array(unique.utf8)
        switch uniqueFor {
        case "queued": return UniqueKey(key, .whileQueued)
        case "unfinished", nil: return UniqueKey(key, .whileUnfinished)
        case let text?:
            guard let seconds = SecondsText.seconds(text), let window = UInt32(exactly: seconds),
                window > 0
            else {
                throw ValidationError(
                    "--unique-for is '\(text)'; it takes queued, unfinished, or a number with s, m, h "
                        + "or d"
                )
            }
            return UniqueKey(key, .window(seconds: window))
        }
    }

    private func readInput() -> [UInt8] {
        var input: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = read(STDIN_FILENO, &chunk, chunk.count)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { return input }
            input += chunk[..<count]
        }
    }
}

/// `get`: what is known of a task.
struct GetCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "get",
        abstract: "Print what is known of a task."
    )

    @OptionGroup var place: HomeOptions

    @Argument(help: "The task's ID.")
    var id: String

    @Flag(help: "Print the record as one JSON object.")
    var json = false

    func run() async throws {
        guard let id = TaskID(id) else { throw ValidationError("'\(id)' is no task ID") }
        guard let record = try await place.app.get(id) else {
            throw QTasksError(.notFound, "there is no task \(id)")
        }
        if json {
            CommandOutput.print(record.json)
        } else {
            CommandOutput.print(record)
        }
    }
}
