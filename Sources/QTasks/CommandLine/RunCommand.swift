// Part of QTasks. License: see LICENSE.

import ArgumentParser
import CLinux
import Glibc
import QTasksModel
import QTasksProcess
import QTasksStarter
import QTasksWorker

/// `run`: the Starter, and with it the whole system.
struct RunCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract:
            "Run the system: workers, Broker, Storage and GlobalConfig, until SIGTERM or Ctrl-C.",
        discussion: """
            The first signal drains: nothing new is started, running tasks have the grace period, what is \
            unfinished stays queued. A second signal stops at once; nothing is lost by it. SIGHUP replaces the \
            workers one by one (see restart) where standard input is no terminal, else it stops, too.
            """
    )

    @OptionGroup var place: HomeOptions
    @OptionGroup var options: ConfigOptions

    @Flag(
        name: .customLong("until-idle"),
        help: "Stop once nothing is queued, scheduled or running; at once where nothing ever was."
    )
    var untilIdle = false

    @MainActor
    func run() async throws {
        Signals.inheritNothing()
        let app = place.app
        let config = try options.config(of: app)
        let home = try HomeDirectory(at: app.home)
        let hasTasks = !app.registry.handlers.isEmpty
        _ = clinux_set_name("qtasks-starter")
        // on the main thread, which lives as long as the process: the children's lives hang on it (H13)
        let code = StarterRole.run(
            home: home,
            config: config,
            workers: config.workerCount(hasTasks: hasTasks),
            endsWhenIdle: untilIdle
        )
        throw ExitCode(code)
    }
}

/// `worker`: one more worker process for a system that runs, or will run.
struct WorkerCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "worker",
        abstract: "Run one more worker for the system in that home; SIGTERM lets it finish and end."
    )

    @OptionGroup var place: HomeOptions

    @Option(help: "Tasks that it runs at once. (default: 10)")
    var slots: String?

    @Option(
        name: .customLong("log-level"),
        help: "trace, debug, info, notice, warning, error, critical. (default: info)"
    )
    var logLevel: String?

    @MainActor
    func run() async throws {
        Signals.inheritNothing()
        let app = place.app
        var config = try app.config.merging()
        if let slots { try config.set(.slots, to: slots, saying: "--slots") }
        if let logLevel { try config.set(.logLevel, to: logLevel, saying: "--log-level") }
        let registry = app.registry
        guard !registry.handlers.isEmpty else {
            throw ValidationError(
                "\(app.name) has no tasks compiled in: a worker needs some to run"
            )
        }
        let executor = app.executor
        let home = try HomeDirectory(at: app.home)
        let settled = config
        let code = try await RoleMain.runServingMain(name: "qtasks-worker") {
            RoleMain.runWorker(registry, executor, home: home, config: settled, parent: nil)
        }
        throw ExitCode(code)
    }
}

extension HomeDirectory {
    /// The home as a command's argument.
    ///
    /// - Throws: `QTasksError.badHome` where it can't be one.
    init(at path: String) throws(QTasksError) {
        do throws(ProcessError) {
            try self.init(path)
        } catch {
            throw QTasksError(.badHome, "\(error)")
        }
    }
}
