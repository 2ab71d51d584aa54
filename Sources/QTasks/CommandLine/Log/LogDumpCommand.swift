// Part of QTasks. License: see LICENSE.

import AppendLog
import ArgumentParser
import QTasksModel
import QTasksStorage

/// `log dump`: the records themselves.
struct LogDumpCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dump",
        abstract: "Print the log's records, in the order in which they lie.",
        discussion: """
            Each line has where the record begins (segment:byte), its sequence, its kind (add, lease, \
            finish, release, stale, worker, cancel, requeue, carried, expire), and what it has. A \
            record that compaction carried forward has the place that it was carried from. Arguments \
            and results are cut after 60 bytes; --full has all of them.
            """
    )

    @OptionGroup var place: HomeOptions

    @Option(help: "The first sequence.")
    var from: UInt64?

    @Option(help: "The last sequence.")
    var to: UInt64?

    @Option(help: "Only records of this kind; may be given several times.")
    var kind: [String] = []

    @Option(help: "Only records of the task with this ID.")
    var id: String?

    @Flag(help: "Arguments and results in full.")
    var full = false

    @Flag(help: "Print one JSON object a line.")
    var json = false

    func validate() throws {
        for kind in kind where !StoredKind.names.contains(kind) {
            let known = StoredKind.names.joined(separator: ", ")
            throw ValidationError("--kind is '\(kind)'; it takes \(known)")
        }
        if let id, TaskID(id) == nil { throw ValidationError("'\(id)' is no task ID") }
        if let from, let to, from > to {
            throw ValidationError("--from \(from) lies behind --to \(to)")
        }
    }

    func run() async throws {
        let reader = try place.openReader()
        let wanted = id.flatMap { TaskID($0) }
        let report = reader.log.forEach(
            damaged: { show($0, wanted, isDamaged: true) },
            { show($0, wanted, isDamaged: false) }
        )
        CommandOutput.warn(ofLost: report.lost)
    }

    private func show(_ record: borrowing RecordView, _ wanted: TaskID?, isDamaged: Bool) {
        guard record.sequence >= from ?? 0, record.sequence <= to ?? .max else { return }
        let stored = StoredKind(rawValue: record.kind)
        if !kind.isEmpty, !kind.contains(stored?.name ?? "unknown") { return }
        if let wanted, stored?.taskID(in: record.payload) != wanted { return }
        let text = RecordText(record, isDamaged: isDamaged, bytesMax: full ? .max : 60)
        if json {
            CommandOutput.print(text.json)
        } else {
            CommandOutput.print(text.line)
        }
    }
}
