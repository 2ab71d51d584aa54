// Part of QTasks. License: see LICENSE.

import ArgumentParser
import QTasksClient
import QTasksGlobalConfig
import QTasksModel
import QTasksProcess

/// `config`: settings of the whole running system.
struct ConfigCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "config",
        abstract: "Read and change settings of the running system.",
        discussion: """
            Any key can be kept here for your own tasks. Two take effect at once in every process: \
            log.level (trace ... critical) and worker.slots (1 to 10000, tasks that one worker runs).
            """,
        subcommands: [
            ConfigGetCommand.self, ConfigSetCommand.self, ConfigUnsetCommand.self,
            ConfigWatchCommand.self,
        ]
    )

    /// A connection to the system's GlobalConfig.
    static func connect(_ app: QueueTasks) throws -> ConfigConnection {
        let home = try HomeDirectory(at: app.home)
        if let absence = try BrokerAddress.home(app.home).absence() { throw absence }
        return try ConfigConnection(endpoints: ConfigEndpoints(home))
    }
}

/// `config get [PATTERN]`.
struct ConfigGetCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "get",
        abstract: "Print settings as KEY=VALUE; '*' stands for any characters."
    )

    @OptionGroup var place: HomeOptions

    @Argument(help: "A key, or a pattern.")
    var pattern = "*"

    @Flag(help: "Print one JSON object.")
    var json = false

    func run() async throws {
        let connection = try ConfigCommand.connect(place.app)
        defer { connection.close() }
        let values = try await connection.get(pattern).mapValues {
            String(decoding: $0, as: UTF8.self)
        }
        if json {
            var text = JSONText()
            text.object { json in
                for (key, value) in values.sorted(by: { $0.key < $1.key }) {
                    json.member(key, value)
                }
            }
            CommandOutput.print(text.bytes)
        } else {
            for (key, value) in values.sorted(by: { $0.key < $1.key }) {
                CommandOutput.print("\(key)=\(value)")
            }
        }
        if values.isEmpty && !pattern.contains("*") {
            throw QTasksError(.notFound, "'\(pattern)' is not set")
        }
    }
}

/// `config set KEY VALUE`.
struct ConfigSetCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "set",
        abstract: "Change a setting; it is on disk when this returns."
    )

    @OptionGroup var place: HomeOptions

    @Argument(help: "Such as log.level or worker.slots.")
    var key: String

    @Argument
    var value: String

    func run() async throws {
        let connection = try ConfigCommand.connect(place.app)
        defer { connection.close() }
        try await connection.set(key, to: Array(value.utf8))
    }
}

/// `config unset KEY`.
struct ConfigUnsetCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "unset",
        abstract: "Take a setting away: what the processes were started with holds again."
    )

    @OptionGroup var place: HomeOptions

    @Argument
    var key: String

    func run() async throws {
        let connection = try ConfigCommand.connect(place.app)
        defer { connection.close() }
        try await connection.delete(key)
    }
}

/// `config watch [PATTERN]`.
struct ConfigWatchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "watch",
        abstract: "Print settings as KEY=VALUE, and each change as it happens, until Ctrl-C."
    )

    @OptionGroup var place: HomeOptions

    @Argument(help: "A key, or a pattern.")
    var pattern = "*"

    func run() async throws {
        let connection = try ConfigCommand.connect(place.app)
        for await change in connection.watch(pattern) {
            CommandOutput.print(change.text.map { "\(change.key)=\($0)" } ?? "\(change.key) unset")
        }
    }
}
