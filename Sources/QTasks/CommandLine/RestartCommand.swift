// Part of QTasks. License: see LICENSE.

import ArgumentParser
import QTasksModel

/// `restart --rolling`: new workers, one by one.
struct RestartCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "restart",
        abstract: "Replace the workers one by one with new ones, without a gap.",
        discussion: """
            The new ones run the program that is at the executable's path now. Each is at work before the one \
            that it replaces stops taking tasks; that one finishes what it runs, however long that takes. \
            Where a new one doesn't come up, the restart ends there, and all others work on. Broker and Storage \
            are not replaced: stop and start the system for that. SIGHUP does the same where the system's \
            standard input is no terminal.
            """
    )

    @OptionGroup var place: HomeOptions

    @Flag(help: "Replace the workers one by one; there is no other way.")
    var rolling = false

    @Option(help: "Seconds to wait; it goes on all the same. (default: as long as it takes)")
    var timeout: Seconds?

    func validate() throws {
        guard rolling else {
            throw ValidationError("restart takes --rolling: it replaces the workers one by one")
        }
    }

    func run() async throws {
        try await place.app.restartWorkers(timeout: timeout?.duration)
        CommandOutput.print("the workers have been replaced")
    }
}
