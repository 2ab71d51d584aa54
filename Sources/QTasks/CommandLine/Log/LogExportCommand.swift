// Part of QTasks. License: see LICENSE.

import AppendLog
import ArgumentParser
import QTasksModel
import QTasksStorage

/// `log export`: every task as it is now.
struct LogExportCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "export",
        abstract: "Print every task as one JSON object a line, as 'get --json' has it.",
        discussion: """
            In the order of the adds, as they are when the command begins. A task whose records can't \
            be read is told on standard error; the exit code is then 1.
            """
    )

    @OptionGroup var place: HomeOptions
    @OptionGroup var filter: TaskFilter

    @Flag(help: "No difference: the output is JSON.")
    var json = false

    func run() async throws {
        let reader = try place.openReader()
        let reading = try QTasksError.naming(store: reader.directory) { try reader.readNow() }
        CommandOutput.warn(ofLost: reading.report.lost)
        var unreadable = 0
        for number in reading.tasks.numbersInAddOrder {
            let entry = reading.tasks.index[number]
            guard filter.admits(entry, in: reading.tasks) else { continue }
            do {
                CommandOutput.print(try reader.record(of: entry, in: reading.tasks).json)
            } catch {
                unreadable += 1
                CommandOutput.complain("task \(entry.id): \(error)")
            }
        }
        if unreadable > 0 { throw ExitCode(1) }
    }
}
