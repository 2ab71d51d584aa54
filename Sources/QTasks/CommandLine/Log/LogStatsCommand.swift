// Part of QTasks. License: see LICENSE.

import AppendLog
import ArgumentParser
import QTasksModel
import QTasksProcess
import QTasksStorage

/// `log stats`: what the store takes up.
struct LogStatsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stats",
        abstract: "Show what the log takes up, what of it is alive, and how far back it tells.",
        discussion: """
            Bytes are alive that somebody may still ask for; the others go with compaction, once \
            history needs them no more. Held are files that are removed and that a process of this user \
            still has open: they take up room until it lets go.
            """
    )

    @OptionGroup var place: HomeOptions

    @Flag(help: "Print one JSON object.")
    var json = false

    func run() async throws {
        let reader = try place.openReader()
        let found = try QTasksError.naming(store: reader.directory) {
            try StoreStatistics(reader)
        }
        let quota = try place.app.config.merging().quota
        let held = RemovedFiles.held(in: reader.directory)
        let text = StatisticsText(found: found, quota: quota, held: held)
        if json {
            CommandOutput.print(text.json)
        } else {
            text.lines.forEach { CommandOutput.print($0) }
        }
    }
}

/// A store's statistics, for a person and for a program.
private struct StatisticsText {
    let found: StoreStatistics
    let quota: Int?
    let held: [RemovedFiles.Holder]

    var lines: [String] {
        var lines = [
            "opened \(found.incarnation) times, "
                + (found.isClean ? "closed cleanly" : "open, or not closed cleanly"),
            "records \(found.firstSequence) to \(found.lastSequence), durable at least up to "
                + "\(found.durable)",
            "history \(history)",
            "\(bytes(found.fileBytes)) in files: \(bytes(found.liveBytes)) alive, "
                + "\(bytes(found.deadBytes)) dead",
        ]
        if let space = found.space {
            let free = bytes(space.freeBytes)
            lines.append("\(free) of \(bytes(space.totalBytes)) of the disk are free")
        }
        if let quota { lines.append("quota \(bytes(quota))") }
        let counts = TaskStatus.allCases.map { status in
            "\(found.byStatus[Int(status.code) - 1]) \(status.rawValue)"
        }
        lines.append("\(found.tasks) tasks: " + counts.joined(separator: ", "))
        if found.isDamaged { lines.append("damaged: 'log verify' tells what is") }
        lines += found.segments.map { segment in
            let begun = segment.begun.map { ", begun \($0)" } ?? ""
            return "segment \(segment.index): \(bytes(segment.writtenBytes)) written of "
                + "\(bytes(segment.fileBytes)), \(bytes(segment.liveBytes)) alive, "
                + "from record \(segment.firstSequence)\(begun)"
        }
        lines += found.checkpoints.map { checkpoint in
            "checkpoint \(checkpoint.number): \(bytes(checkpoint.bytes)), up to record "
                + "\(checkpoint.endSequence), \(time(checkpoint))"
        }
        lines.append("\(bytes(found.bytesSinceCheckpoint)) to read behind the last checkpoint")
        lines += held.map {
            "held by process \($0.pid): \($0.files) removed files, \(bytes($0.bytes))"
        }
        return lines
    }

    private var history: String {
        switch found.history {
        case .complete(let since?): "is complete, from \(since) on"
        case .complete(nil): "is complete: nothing has happened yet"
        case .at(let begin): "begins at \(begin)"
        case .now: "begins now: nothing of it is kept"
        }
    }

    private func time(_ checkpoint: CheckpointInfo) -> Timestamp {
        Timestamp(nanoseconds: Int64(clamping: checkpoint.stamp))
    }

    /// In the largest unit that leaves three digits.
    private func bytes(_ count: Int) -> String {
        let units = ["KiB", "MiB", "GiB", "TiB"]
        guard count >= 1024 else { return "\(count) bytes" }
        var tenths = count * 10 / 1024
        var unit = 0
        while tenths >= 10_240, unit < units.count - 1 {
            tenths /= 1024
            unit += 1
        }
        return "\(tenths / 10).\(tenths % 10) \(units[unit])"
    }

    var json: [UInt8] {
        var json = JSONText()
        json.object { json in
            json.member("incarnation", Int(found.incarnation))
            json.member("clean", found.isClean)
            json.member("damaged", found.isDamaged)
            json.member("durable", found.durable)
            json.member("firstSequence", found.firstSequence)
            json.member("lastSequence", found.lastSequence)
            addHistory(to: &json)
            json.member("bytes", found.fileBytes)
            json.member("liveBytes", found.liveBytes)
            json.member("deadBytes", found.deadBytes)
            json.member("bytesSinceCheckpoint", found.bytesSinceCheckpoint)
            if let quota { json.member("quota", quota) }
            if let space = found.space {
                json.member("freeBytes", space.freeBytes)
                json.member("totalBytes", space.totalBytes)
            }
            json.key("tasks")
            json.object { json in
                json.member("total", found.tasks)
                json.counts(found.byStatus)
            }
            json.member("workers", found.workers)
            addSegments(to: &json)
            addCheckpoints(to: &json)
            addHeld(to: &json)
        }
        return json.bytes
    }

    private func addHistory(to json: inout JSONText) {
        switch found.history {
        case .complete(let since):
            json.member("historyComplete", true)
            if let since { json.member("historyBegins", since) }
        case .at(let begin):
            json.member("historyComplete", false)
            json.member("historyBegins", begin)
        case .now: json.member("historyComplete", false)
        }
    }

    private func addSegments(to json: inout JSONText) {
        json.member("segments", objects: found.segments) { json, segment in
            json.member("segment", Int(segment.index))
            json.member("firstSequence", segment.firstSequence)
            json.member("fileBytes", segment.fileBytes)
            json.member("writtenBytes", segment.writtenBytes)
            json.member("liveBytes", segment.liveBytes)
            if let begun = segment.begun { json.member("begun", begun) }
        }
    }

    private func addCheckpoints(to json: inout JSONText) {
        json.member("checkpoints", objects: found.checkpoints) { json, checkpoint in
            json.member("number", Int(checkpoint.number))
            json.member("bytes", checkpoint.bytes)
            json.member("startSequence", checkpoint.startSequence)
            json.member("endSequence", checkpoint.endSequence)
            json.member("at", time(checkpoint))
        }
    }

    private func addHeld(to json: inout JSONText) {
        json.member("held", objects: held) { json, holder in
            json.member("pid", Int(holder.pid))
            json.member("files", holder.files)
            json.member("bytes", holder.bytes)
        }
    }
}
