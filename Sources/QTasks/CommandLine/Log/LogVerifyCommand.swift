// Part of QTasks. License: see LICENSE.

import AppendLog
import ArgumentParser
import QTasksModel
import QTasksProcess
import QTasksStorage

/// `log verify`: whether everything in the store is as it was written.
struct LogVerifyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "verify",
        abstract: "Check every byte that counts; exit with 1 if something is damaged.",
        discussion: """
            Reads both meta pages, every segment and checkpoint with all checksums; then the tasks, by \
            the log alone and by each checkpoint, which must agree; then each task's own records. What \
            a running system has not finished writing is no damage.
            """
    )

    @OptionGroup var place: HomeOptions

    @Flag(help: "Print one JSON object.")
    var json = false

    func run() async throws {
        let path = try place.directories.storePath
        let progress = ProgressLine()
        let found = try QTasksError.naming(store: path) {
            try StoreVerification(path) { progress.show($0) }
        }
        progress.clear()
        if json {
            CommandOutput.print(VerificationText.json(found))
        } else {
            VerificationText.lines(found).forEach { CommandOutput.print($0) }
        }
        if !found.isOK { throw ExitCode(1) }
    }
}

/// What a verification found, for a person and for a program.
private enum VerificationText {
    /// Tasks that one line names at most.
    private static let namesMax = 20

    static func lines(_ found: StoreVerification) -> [String] {
        var lines = [
            "\(found.segments) segments, \(found.records) records "
                + "(\(found.firstSequence) to \(found.lastSequence)), \(found.tasks) tasks, "
                + "\(found.checkpoints.count) checkpoints"
        ]
        if let failure = found.failure { lines.append("damaged: \(failure)") }
        for file in found.files {
            lines.append(
                "damaged: \(name(file.part)) in \(file.file) at byte \(file.offset), "
                    + "\(file.bytes) bytes"
            )
        }
        for record in found.damagedRecords {
            let task = record.id.map { " of task \($0)" } ?? ""
            lines.append("damaged: record \(record.sequence)\(task) at \(record.position.text)")
        }
        for bytes in found.damagedBytes {
            lines.append(
                "damaged: \(bytes.bytes) bytes at \(bytes.position.text), which may have held a task"
            )
        }
        for lost in found.lost {
            lines.append("lost: records \(text(lost.sequences)) at \(lost.position.text)")
        }
        for record in found.unreadable {
            lines.append(
                "unknown: record \(record.sequence) at \(record.position.text) makes no sense"
            )
        }
        for problem in found.problems {
            lines.append("task \(problem.id): \(problem.what) (at \(problem.position.text))")
        }
        lines += found.checkpoints.compactMap(line)
        lines.append(found.isOK ? "everything is as it was written" : advice)
        return lines
    }

    private static let advice =
        "damaged; a copy elsewhere may help, or stop the system and use 'log repair --to NEWDIR'"

    private static func line(_ checkpoint: StoreVerification.Checkpoint) -> String? {
        let number = checkpoint.info.number
        if !checkpoint.isReadable { return "checkpoint \(number) makes no sense to this version" }
        guard !checkpoint.differing.isEmpty else { return nil }
        let names = checkpoint.differing.prefix(namesMax).map(\.description)
        let more = checkpoint.differing.count - names.count
        return "checkpoint \(number) and the log differ in \(checkpoint.differing.count) tasks: "
            + names.joined(separator: ", ") + (more > 0 ? " and \(more) more" : "")
    }

    private static func name(_ part: FileDamage.Part) -> String {
        switch part {
        case .metaPage: "a meta page"
        case .segmentHeader: "one of the two headers"
        case .groupHeader: "a group's header"
        case .checkpoint: "the checkpoint"
        }
    }

    private static func text(_ sequences: ClosedRange<UInt64>) -> String {
        sequences.count == 1
            ? "\(sequences.lowerBound)" : "\(sequences.lowerBound) to \(sequences.upperBound)"
    }

    static func json(_ found: StoreVerification) -> [UInt8] {
        var json = JSONText()
        json.object { json in
            json.member("ok", found.isOK)
            json.member("segments", found.segments)
            json.member("records", found.records)
            json.member("firstSequence", found.firstSequence)
            json.member("lastSequence", found.lastSequence)
            json.member("tasks", found.tasks)
            json.member("metaPages", found.metaPages)
            json.member("unknownRecords", found.unknownRecords)
            if let failure = found.failure { json.member("failure", failure) }
            json.member("lost", found.lost)
            damaged(found, to: &json)
            problems(found, to: &json)
            checkpoints(found, to: &json)
        }
        return json.bytes
    }

    private static func damaged(_ found: StoreVerification, to json: inout JSONText) {
        json.key("damaged")
        json.array { json in
            for file in found.files {
                json.object { json in
                    json.member("what", file.part.rawValue)
                    json.member("file", file.file)
                    json.member("offset", file.offset)
                    json.member("bytes", file.bytes)
                }
            }
            for record in found.damagedRecords {
                json.object { json in
                    json.member("what", "record")
                    json.member("sequence", record.sequence)
                    json.member("position", record.position)
                    if let id = record.id { json.member("task", id.description) }
                }
            }
            for bytes in found.damagedBytes { json.object(bytes) }
            for record in found.unreadable {
                json.object { json in
                    json.member("what", "unknownRecord")
                    json.member("sequence", record.sequence)
                    json.member("position", record.position)
                }
            }
        }
    }

    private static func problems(_ found: StoreVerification, to json: inout JSONText) {
        json.member("problems", objects: found.problems) { json, problem in
            json.member("task", problem.id.description)
            json.member("what", problem.what)
            json.member("position", problem.position)
        }
    }

    private static func checkpoints(_ found: StoreVerification, to json: inout JSONText) {
        json.member("checkpoints", objects: found.checkpoints) { json, checkpoint in
            json.member("number", Int(checkpoint.info.number))
            json.member("usable", checkpoint.isUsable)
            json.member("readable", checkpoint.isReadable)
            json.key("differing")
            json.array { json in
                for id in checkpoint.differing { json.string(id.description) }
            }
        }
    }
}
