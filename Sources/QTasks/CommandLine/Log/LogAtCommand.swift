// Part of QTasks. License: see LICENSE.

import AppendLog
import ArgumentParser
import QTasksModel
import QTasksStorage
import QTasksWire

/// `log at TIME`: what held at a moment.
struct LogAtCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "at",
        abstract: "Print every queue's depth and each task's state at a moment of the past.",
        discussion: """
            TIME is RFC 3339 (2026-11-23T18:26:01.123Z; UTC where it names no zone), a time of today \
            (18:26:01), or how long ago (-5m, with s, m, h or d). What is written to the second or \
            millisecond stands for its end: all that happened in it is in.

            The log tells as far back as it is kept (run --history); 'log stats' shows since when. With \
            --json the first line has the depths, and each further one a task.
            """
    )

    @OptionGroup var place: HomeOptions
    @OptionGroup var filter: TaskFilter

    @Argument(parsing: .allUnrecognized, help: "The moment; see above.")
    var time: [String] = []

    @Flag(help: "Only the depths, without the tasks.")
    var summary = false

    @Option(help: "Tasks to print at most; 0 for all. (default: 100, with --json all)")
    var limit: Int?

    @Flag(help: "Print one JSON object a line.")
    var json = false

    func validate() throws {
        guard time.count == 1 else {
            throw ValidationError("one TIME is wanted: \(TimeText.allowedTexts)")
        }
        if let limit, limit < 0 {
            throw ValidationError("--limit is '\(limit)'; it takes 0 or more")
        }
    }

    func run() async throws {
        let now = Timestamp.now
        guard let moment = TimeText.moment(time[0], now: now) else {
            throw ValidationError("'\(time[0])' is no time; it takes \(TimeText.allowedTexts)")
        }
        let isThisSecond = moment.nanoseconds < now.nanoseconds + 1_000_000_000
        guard isThisSecond else {
            throw ValidationError("\(moment) is yet to come: it is \(now)")
        }
        let reader = try place.openReader()
        do {
            let state = try QTasksError.naming(store: reader.directory) {
                try reader.moment(moment)
            }
            print(state)
        } catch let error as BeforeHistory {
            throw QTasksError(.notFound, Self.message(error.begin, moment))
        }
    }

    private static func message(_ begin: HistoryBegin, _ moment: Timestamp) -> String {
        switch begin {
        case .at(let begin), .complete(let begin?):
            "history begins at \(begin); what held at \(moment) is in the log no more"
        case .now, .complete(nil):
            "history begins now: the log keeps none ('run --history' says how much)"
        }
    }

    private func print(_ state: StoreMoment) {
        let tasks = state.tasks
        let numbers = tasks.numbersInAddOrder.filter { filter.admits(tasks.index[$0], in: tasks) }
        let shown = summary ? 0 : limit.map { $0 == 0 ? Int.max : $0 } ?? (json ? .max : 100)
        if json {
            CommandOutput.print(MomentText.json(state, matching: numbers.count))
        } else {
            MomentText.lines(state).forEach { CommandOutput.print($0) }
        }
        for number in numbers.prefix(shown) {
            let entry = tasks.index[number]
            if json {
                CommandOutput.print(MomentText.json(entry, in: tasks))
            } else {
                CommandOutput.print(MomentText.line(entry, in: tasks))
            }
        }
        if !summary, numbers.count > shown {
            CommandOutput.note("\(numbers.count - shown) more tasks; --limit 0 prints all")
        }
        CommandOutput.warn(ofLost: state.lost)
    }
}

/// A moment and its tasks, for a person and for a program.
private enum MomentText {
    static func lines(_ state: StoreMoment) -> [String] {
        ["at \(state.time), after record \(state.sequence): \(state.tasks.index.count) tasks"]
            + state.tasks.depths.map { depth in
                let counts = TaskStatus.allCases.compactMap { status -> String? in
                    let count = depth.byStatus[Int(status.code) - 1]
                    return count == 0 ? nil : "\(count) \(status.rawValue)"
                }
                return "\(depth.queue) \(depth.name): " + counts.joined(separator: ", ")
            }
    }

    static func json(_ state: StoreMoment, matching: Int) -> [UInt8] {
        var json = JSONText()
        json.object { json in
            json.member("at", state.time)
            json.member("sequence", state.sequence)
            json.member("tasks", state.tasks.index.count)
            json.member("matching", matching)
            json.member("lost", state.lost.reduce(0) { $0 + $1.sequences.count })
            json.member("queues", objects: state.tasks.depths) { json, depth in
                json.member("queue", depth.queue)
                json.member("name", depth.name)
                json.counts(depth.byStatus)
            }
        }
        return json.bytes
    }

    static func line(_ entry: TaskEntry, in tasks: TaskFold) -> String {
        let lane = tasks.lane(of: entry)
        var parts = ["\(entry.id) \(entry.status.rawValue) \(lane.queue) \(lane.name)"]
        if entry.attempt > 0 { parts.append("attempt \(entry.attempt)") }
        if entry.failures > 0 { parts.append("\(entry.failures) failed") }
        if entry.deaths > 0 { parts.append("\(entry.deaths) deaths") }
        if entry.status == .process, let worker = tasks.worker(of: entry) {
            parts.append("on worker \(worker)")
        }
        if let due = tasks.due(of: entry) { parts.append("due \(due)") }
        return parts.joined(separator: ", ")
    }

    static func json(_ entry: TaskEntry, in tasks: TaskFold) -> [UInt8] {
        let lane = tasks.lane(of: entry)
        var json = JSONText()
        json.object { json in
            json.member("id", entry.id.description)
            json.member("name", lane.name)
            json.member("queue", lane.queue)
            json.member("status", entry.status.rawValue)
            json.member("priority", Int(entry.priority))
            json.member("attempt", Int(entry.attempt))
            json.member("failures", Int(entry.failures))
            json.member("deaths", Int(entry.deaths))
            json.member("epoch", Int(entry.epoch))
            json.member("sequence", entry.sequence)
            if entry.lease != .none { json.member("lease", entry.lease.description) }
            if let worker = tasks.worker(of: entry) {
                json.member("worker", worker.description)
            }
            if let due = tasks.due(of: entry) { json.member("notBefore", due) }
        }
        return json.bytes
    }
}

extension JSONText {
    /// Members with the number of tasks in each status.
    mutating func counts(_ byStatus: [UInt64]) {
        for status in TaskStatus.allCases {
            member(status.rawValue, byStatus[Int(status.code) - 1])
        }
    }
}
