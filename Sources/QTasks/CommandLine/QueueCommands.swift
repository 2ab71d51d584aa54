// Part of QTasks. License: see LICENSE.

import ArgumentParser
import QTasksModel

/// `queue`: what holds a queue's tasks back.
struct QueueCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "queue",
        abstract: "Pause queues, and limit what runs and starts of them.",
        discussion: """
            Rules are kept in the store: they hold across restarts. What runs already goes on; a task that \
            is held back holds up no other. 'stats inspect queues' lists all queues.
            """,
        subcommands: [
            QueueShowCommand.self, QueuePauseCommand.self, QueueResumeCommand.self,
            QueueLimitCommand.self,
        ]
    )
}

/// The queue, and how to answer.
struct QueueOptions: ParsableArguments {
    @OptionGroup var place: HomeOptions

    @Argument(help: "The queue's name.")
    var queue: String

    @Option(help: "Seconds to wait for the system's answer. (default: 30)")
    var timeout: Seconds?

    @Flag(help: "Print one JSON object.")
    var json = false

    /// Changes the rules and prints what holds then.
    func run(_ change: QueueChange) async throws {
        let rules = try await place.app.connectedBroker()
            .change(queue, change, timeout: timeout?.duration ?? .seconds(30))
        guard json else { return CommandOutput.print("\(queue): \(rules)") }
        var text = JSONText()
        text.object { json in
            json.member("queue", queue)
            rules.write(to: &json)
        }
        CommandOutput.print(text.bytes)
    }
}

/// `queue show`.
struct QueueShowCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show",
        abstract: "Print a queue's rules."
    )

    @OptionGroup var options: QueueOptions

    func run() async throws { try await options.run(QueueChange()) }
}

/// `queue pause`.
struct QueuePauseCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pause",
        abstract: "Nothing of it starts until 'queue resume'; what runs goes on."
    )

    @OptionGroup var options: QueueOptions

    func run() async throws {
        var change = QueueChange()
        change.setPaused(true)
        try await options.run(change)
    }
}

/// `queue resume`.
struct QueueResumeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "resume",
        abstract: "It goes on where it was when it was paused."
    )

    @OptionGroup var options: QueueOptions

    func run() async throws {
        var change = QueueChange()
        change.setPaused(false)
        try await options.run(change)
    }
}

/// `queue limit`.
struct QueueLimitCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "limit",
        abstract: "Set or lift a queue's limits; what isn't named stays.",
        discussion: """
            Rates are evenly spaced: 60/1m is one a second. 60/1m/5 lets five start at once after a pause. \
            After a restart a rate counts as used up. 'none' lifts a limit.
            """
    )

    @OptionGroup var options: QueueOptions

    @Option(help: "How many of its tasks run at once, or none.")
    var concurrency: String?

    @Option(help: "How many start in a time, such as 100/1s, 60/1m, 60/1m/5 (burst), or none.")
    var rate: String?

    @Option(
        name: .customLong("key-concurrency"),
        help: "How many with one key run at once, or none."
    )
    var keyConcurrency: String?

    @Option(name: .customLong("key-rate"), help: "How many with one key start in a time, or none.")
    var keyRate: String?

    @Option(
        name: .customLong("max-queued"),
        help: "How many may wait before adds are refused as overloaded, or none."
    )
    var maxQueued: String?

    @Option(help: "How many later tasks a level of priority is worth, or none: it goes first.")
    var ageing: String?

    private func change() throws -> QueueChange {
        var change = QueueChange()
        if let concurrency { change.setConcurrency(try Self.count(concurrency, "--concurrency")) }
        if let rate { change.setRate(try Self.rate(rate, "--rate")) }
        if let keyConcurrency {
            change.setKeyConcurrency(try Self.count(keyConcurrency, "--key-concurrency"))
        }
        if let keyRate { change.setKeyRate(try Self.rate(keyRate, "--key-rate")) }
        if let maxQueued { change.setMaxQueued(try Self.count(maxQueued, "--max-queued")) }
        if let ageing { change.setAgeing(try Self.count(ageing, "--ageing")) }
        return change
    }

    func validate() throws {
        guard try change() != QueueChange() else {
            throw ValidationError("name a limit to set or to lift: see --help")
        }
    }

    func run() async throws { try await options.run(try change()) }

    private static func count(_ text: String, _ option: String) throws -> UInt32? {
        if text == "none" { return nil }
        guard let count = UInt32(text), count > 0 else {
            throw ValidationError("\(option) is '\(text)'; it takes 1 or more, or none")
        }
        return count
    }

    private static func rate(_ text: String, _ option: String) throws -> StartRate? {
        if text == "none" { return nil }
        guard let rate = StartRate(parsing: text) else {
            throw ValidationError(
                "\(option) is '\(text)'; it takes a number a time, such as 100/1s, 60/1m or 60/1m/5, or none"
            )
        }
        return rate
    }
}
