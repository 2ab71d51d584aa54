// Part of QTasks. License: see LICENSE.

import AppendLog
import ArgumentParser
import QTasksModel
import QTasksProcess
import QTasksStorage

/// `log repair --to NEWDIR`: a new store of what can be read in a damaged one.
struct LogRepairCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "repair",
        abstract: "Make a new store of what can be read in a damaged one, and list what was lost.",
        discussion: """
            The system must be stopped. The damaged store stays as it is. The new one has each task as \
            it was last, with its result; its history begins anew. A record of up to 4 KiB of which one \
            bit is flipped is mended. Without its meta pages the store is read from its segments alone.

            The exit code is 0 also where something was lost: the list says what. 'log verify' tells \
            beforehand what is damaged.
            """
    )

    @OptionGroup var place: HomeOptions

    @Option(help: "The directory for the new store; empty, or not there yet.")
    var to: String

    @Flag(help: "Print one JSON object.")
    var json = false

    func run() async throws {
        let home = try place.directories
        try refuseWhileRunning(home)
        let target = try HomeDirectory(at: to).path
        guard target != home.storePath, !target.hasPrefix(home.storePath + "/") else {
            throw ValidationError("--to must not be in the damaged store, '\(home.storePath)'")
        }
        try requireEmpty(target)
        let progress = ProgressLine()
        let found = try QTasksError.naming(store: home.storePath) {
            let lock = try WriterLock(home.storePath)
            defer { extendLifetime(lock) }
            return try StoreSalvage(from: home.storePath, to: target) { progress.show($0) }
        }
        progress.clear()
        let text = SalvageText(found: found, store: home.storePath, target: target)
        if json {
            CommandOutput.print(text.json)
        } else {
            text.lines.forEach { CommandOutput.print($0) }
        }
    }

    private func refuseWhileRunning(_ home: HomeDirectory) throws {
        for path in [home.lockPath, home.brokerLockPath] {
            guard let holder = try? LockFile.holder(of: path) else { continue }
            throw QTasksError(
                .stopping,
                "a system runs at '\(home.path)' (process \(holder.process.pid)); stop it first, its "
                    + "store can't be repaired under it"
            )
        }
    }

    private func requireEmpty(_ target: String) throws {
        guard let names = try? PosixFiles().list(target), !names.isEmpty else { return }
        throw ValidationError("'\(target)' is not empty; name a directory that isn't there yet")
    }
}

/// What a salvage brought, for a person and for a program.
private struct SalvageText {
    let found: StoreSalvage
    let store: String
    let target: String

    var lines: [String] {
        let report = found.report
        var lines: [String] = []
        if !found.hadMeta {
            lines.append("no meta page was whole: read from the segments' headers alone")
        }
        for segment in found.segmentsWithoutHeader {
            lines.append("segment \(segment) had no header: read by its checksums")
        }
        for segment in found.segmentsLost { lines.append("lost: segment \(segment), all of it") }
        for record in report.healed {
            lines.append("mended: record \(record.sequence) at \(record.position.text), one bit")
        }
        for damaged in found.damagedRecords {
            let kind = StoredKind(rawValue: damaged.kind)?.name ?? "unknown"
            let task = damaged.record.id.map { " of task \($0)" } ?? ""
            lines.append(
                "lost: record \(damaged.record.sequence) (\(kind))\(task) at "
                    + damaged.record.position.text
            )
        }
        for lost in report.lost {
            lines.append(
                "lost: records \(lost.sequences.lowerBound) to \(lost.sequences.upperBound) at "
                    + lost.position.text
            )
        }
        for bytes in report.damaged {
            lines.append("lost: \(bytes.bytes) bytes at \(bytes.position.text)")
        }
        for record in found.unreadable {
            lines.append("left out: record \(record.sequence), which makes no sense")
        }
        lines += found.lostTasks.map(line)
        lines.append(
            "\(found.tasks) tasks are in '\(target)'"
                + (found.isWhole ? "; nothing was lost" : "")
        )
        return lines + advice
    }

    private func line(_ task: StoreSalvage.LostTask) -> String {
        let name = "task \(task.id) (\(task.name), queue \(task.queue), \(task.status.rawValue))"
        return switch task.part {
        case .task: "lost: \(name)"
        case .result: "lost: the result of \(name)"
        case .end: "in doubt: \(name) was under way, its end may be lost; it runs again"
        }
    }

    private var advice: [String] {
        [
            "to use it, with the system stopped:",
            "  mv '\(store)' '\(store).damaged'",
            "  mv '\(target)' '\(store)'",
        ]
    }

    var json: [UInt8] {
        var json = JSONText()
        json.object { json in
            json.member("store", store)
            json.member("target", target)
            json.member("whole", found.isWhole)
            json.member("tasks", found.tasks)
            json.member("records", found.report.records)
            json.member("metaPages", found.hadMeta)
            if let checkpoint = found.checkpoint { json.member("checkpoint", Int(checkpoint)) }
            addSegments(to: &json)
            addRecords(to: &json)
            addTasks(to: &json)
        }
        return json.bytes
    }

    private func addSegments(to json: inout JSONText) {
        json.key("segmentsWithoutHeader")
        json.array { json in
            for segment in found.segmentsWithoutHeader { json.number(Int(segment)) }
        }
        json.key("segmentsLost")
        json.array { json in for segment in found.segmentsLost { json.number(Int(segment)) } }
    }

    private func addRecords(to json: inout JSONText) {
        json.member("healed", objects: found.report.healed) { json, record in
            json.member("sequence", record.sequence)
            json.member("position", record.position)
        }
        json.member("lost", found.report.lost)
        json.key("damaged")
        json.array { json in
            for damaged in found.damagedRecords {
                json.object { json in
                    json.member("what", "record")
                    json.member("sequence", damaged.record.sequence)
                    json.member("kind", StoredKind(rawValue: damaged.kind)?.name ?? "unknown")
                    json.member("position", damaged.record.position)
                    if let id = damaged.record.id { json.member("task", id.description) }
                }
            }
            for bytes in found.report.damaged { json.object(bytes) }
        }
    }

    private func addTasks(to json: inout JSONText) {
        json.member("lostTasks", objects: found.lostTasks) { json, task in
            json.member("task", task.id.description)
            json.member("part", task.part.rawValue)
            json.member("name", task.name)
            json.member("queue", task.queue)
            json.member("status", task.status.rawValue)
            json.member("position", task.position)
        }
    }
}
