// Part of QTasks. License: see LICENSE.

public import ArgumentParser
import Glibc
import QTasksModel
import QTasksProcess

extension QueueTasks {
    /// The executable's command line: `run`, `worker`, `add`, `get`, `list`, `cancel`, `stats`, `config`,
    /// `ping` and more, and the application's own subcommands.
    ///
    /// Call it last in `main.swift`, once every task is registered: a system's processes are this same
    /// executable, started again, and each finds its role here. Ends the process with the command's
    /// exit code (see `--help`).
    ///
    /// - Parameter commands: Further subcommands.
    @MainActor  // on the main thread, so that its signals are blocked before there is another one
    public func main(adding commands: [any ParsableCommand.Type] = []) async {
        Signals.ignoreBrokenPipes()
        do {
            if let handover = try RoleHandover.take() {
                exit(await RoleMain.run(handover, app: self))
            }
        } catch {
            CommandOutput.complain("\(error)")
            exit(78)
        }
        await CommandContext.$current.withValue(CommandContext(app: self, commands: commands)) {
            await RootCommand.runToEnd()
        }
    }
}

/// What a command knows of the program it is part of.
struct CommandContext: Sendable {
    let app: QueueTasks
    let commands: [any ParsableCommand.Type]

    @TaskLocal static var current: CommandContext?

    /// The program's tasks; commands run inside ``QueueTasks/main(adding:)`` only.
    static var app: QueueTasks {
        guard let current else { preconditionFailure("commands run inside QueueTasks.main") }
        return current.app
    }
}

/// The executable itself.
struct RootCommand: AsyncParsableCommand {
    static var configuration: CommandConfiguration {
        let own: [any ParsableCommand.Type] = [
            RunCommand.self, WorkerCommand.self, AddCommand.self, GetCommand.self,
            ListCommand.self, ExplainCommand.self, CancelCommand.self, RequeueCommand.self,
            DeadCommand.self, FlushCommand.self, QueueCommand.self, StatsCommand.self,
            ConfigCommand.self,
            LogCommand.self, PingCommand.self, RestartCommand.self,
        ]
        return CommandConfiguration(
            commandName: CommandContext.current?.app.name ?? "qtasks",
            abstract:
                "A task queue of worker processes on one host, on disk before it is acknowledged.",
            discussion: """
                A system lives in a home directory: --home DIR, else $QTASKS_HOME, else .qtasks in the \
                working directory. Settings are flags, else QTASKS_* variables, else defaults.

                Exit codes: 0 done; 1 the task ended otherwise than with a result, ping got no answer, or \
                the log is damaged; 2 not found; 64 wrong use; 69 no system or store at that home; 75 \
                try again (overloaded, stopping, home in use); 78 bad configuration; 124 time-out.
                """,
            subcommands: (CommandContext.current?.commands ?? []) + own
        )
    }

    /// Parses the arguments, runs the command, and ends the process.
    @MainActor
    static func runToEnd() async {
        do {
            var command = try parseAsRoot()
            if var asyncCommand = command as? any AsyncParsableCommand {
                try await asyncCommand.run()
            } else {
                try command.run()
            }
            CommandContext.current?.app.close()
            Glibc.exit(0)
        } catch let error as QTasksError {
            CommandContext.current?.app.close()
            CommandOutput.complain(error.message)
            Glibc.exit(error.exitCode)
        } catch {
            CommandContext.current?.app.close()
            exit(withError: error)
        }
    }
}

extension QTasksError {
    /// The exit code of a command that ends with this error (design §9).
    var exitCode: Int32 {
        switch code {
        case .noSystem, .brokerUnreachable, .connectionLost: 69
        case .timeout: 124
        case .overloaded, .stopping, .storageUnavailable: 75
        case .notFound: 2
        case .badName, .badOption, .badArguments, .payloadTooLarge: 64
        case .badConfiguration, .badHome: 78
        default: 1
        }
    }
}
