// Part of QTasks. License: see LICENSE.

import ArgumentParser
import QTasksModel
import QTasksProcess
import QTasksStorage
import QTasksWire

/// `explain ID`: a task's whole life.
struct ExplainCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain",
        abstract:
            "Print a task's whole life: when it waited and ran, where, and how each attempt ended.",
        discussion: """
            Read from the log on disk, while a system runs there or not; also of a task that is \
            forgotten, for as long as history reaches back (run --history).
            """
    )

    @OptionGroup var place: HomeOptions

    @Argument(help: "The task's ID.")
    var id: String

    @Flag(help: "Print one JSON object.")
    var json = false

    func run() async throws {
        guard let id = TaskID(id) else { throw ValidationError("'\(id)' is no task ID") }
        let reader = try place.openReader()
        let found = try QTasksError.naming(store: reader.directory) {
            try reader.history(of: id)
        }
        guard let history = found else {
            throw QTasksError(.notFound, try Self.message(id, reader))
        }
        if json {
            CommandOutput.print(HistoryText(history).json)
        } else {
            HistoryText(history).lines.forEach { CommandOutput.print($0) }
        }
    }

    private static func message(_ id: TaskID, _ reader: StoreReader) throws -> String {
        switch try reader.historyBegin() {
        case .complete: "there is and was no task \(id)"
        case .at(let begin): "there is no task \(id), nor was one since history begins, at \(begin)"
        case .now: "there is no task \(id), and the log keeps no history"
        }
    }
}

/// A task's life, for a person and for a program.
private struct HistoryText {
    private struct Step {
        var event: TaskHistory.Event
        /// Which attempt it is of; 0: of none, or its lease is in the log no more.
        var attempt: UInt32
        /// How long it had waited, or run.
        var nanoseconds: Int64?
    }

    private let history: TaskHistory
    private var steps: [Step] = []

    init(_ history: TaskHistory) {
        self.history = history
        // what is missing is what came first
        var attempt = history.compacted?.attempts ?? 0
        var attempts: [Lease: UInt32] = [:]
        var waitsSince: Timestamp?
        for event in history.events {
            var step = Step(event: event, attempt: 0, nanoseconds: nil)
            switch event.what {
            case .added(_, let due):
                waitsSince = history.compacted == nil ? due ?? event.at : nil
            case .leased(let lease, _):
                attempt += 1
                attempts[lease] = attempt
                step.attempt = attempt
                step.nanoseconds = waitsSince.map { event.at.nanoseconds - $0.nanoseconds }
                waitsSince = nil
            case .ended(let result, _, _, let due):
                step.attempt = attempts[result.lease] ?? 0
                step.nanoseconds = result.finishedAt.nanoseconds - result.startedAt.nanoseconds
                waitsSince = due
            case .released(let lease, _, _, _, _):
                step.attempt = attempts[lease] ?? 0
                waitsSince = event.at
            case .died(let evidence): step.attempt = attempts[evidence.holding.lease] ?? 0
            case .refused(let lease, _, let began, let ended):
                step.attempt = attempts[lease] ?? 0
                step.nanoseconds = ended.nanoseconds - began.nanoseconds
            case .cancelled(_, let lease): step.attempt = lease.flatMap { attempts[$0] } ?? 0
            case .requeued:
                attempt = 0
                waitsSince = event.at
            case .forgotten: attempt = 0
            }
            steps.append(step)
        }
    }

    // MARK: For a person

    var lines: [String] {
        var lines = ["task \(history.id)"]
        if let record = history.record {
            lines.append(
                "\(record.name), queue \(record.submission.queue), priority "
                    + "\(record.submission.priority)"
            )
        } else if let lane = history.lane {
            lines.append("\(lane.name), queue \(lane.queue)")
        }
        let adds = steps.prefix { if case .added = $0.event.what { true } else { false } }
        lines += adds.map(line)
        if let compacted = history.compacted {
            lines.append(
                "earlier history was compacted: \(compacted.attempts) attempts, "
                    + "\(compacted.failures) failures, \(compacted.deaths) deaths"
            )
        }
        lines += steps.dropFirst(adds.count).flatMap { [line($0)] + lastWords($0) }
        lines += history.damaged.map {
            "record \($0.sequence) at \($0.position.text) is damaged; 'log repair' may read it"
        }
        lines.append("now \(state)")
        return lines
    }

    private var state: String {
        if history.isForgotten { return "forgotten" }
        guard let record = history.record else { return "unknown: its add can't be read" }
        let due = record.notBefore.map { ", due \($0)" } ?? ""
        return "\(record.status.rawValue)\(due)"
    }

    private func line(_ step: Step) -> String {
        "\(step.event.at) \(words(step))"
    }

    private func words(_ step: Step) -> String {
        let duration = step.nanoseconds.map(Self.text)
        switch step.event.what {
        case .added(let submission, let due): return words(submission, due)
        case .leased(let lease, let worker):
            return "\(attempt(step)) leased to \(name(worker)), lease \(lease)"
                + (duration.map { ", after \($0) in the queue" } ?? "")
        case .ended(let result, let status, _, let due):
            return "\(attempt(step)) ran \(duration ?? "") and ended: "
                + words(result.outcome, status)
                + (due.map { "; again at \($0)" } ?? "")
        case .released(_, let cause, let status, let isSuspect, let isCounted):
            return "\(attempt(step)) came to nothing: "
                + words(cause, status, isSuspect: isSuspect, isCounted: isCounted)
        case .died(let evidence): return "\(attempt(step)) ended with \(words(evidence))"
        case .refused(let lease, let worker, _, _):
            return "a result of \(name(worker)) was refused: its lease \(lease) no longer held"
        case .cancelled(let reason, let lease):
            let moment = lease == nil ? "before it ran" : "while \(attempt(step)) ran"
            return "cancelled \(moment)" + (reason.isEmpty ? "" : ": \(reason)")
        case .requeued(let epoch): return "queued again by an operator, epoch \(epoch)"
        case .forgotten: return "forgotten: its retention was over"
        }
    }

    private func attempt(_ step: Step) -> String {
        step.attempt == 0 ? "an earlier attempt" : "attempt \(step.attempt)"
    }

    private func words(_ submission: TaskSubmission, _ due: Timestamp?) -> String {
        var parts = ["added"]
        if let parent = submission.parent { parts.append("by task \(parent)") }
        if let due { parts.append("to start at \(due)") }
        var options: [String] = []
        if let attempts = submission.maxAttempts { options.append("at most \(attempts) attempts") }
        if let deliveries = submission.maxDeliveries {
            options.append("at most \(deliveries) deaths")
        }
        if let limit = submission.timeLimitMilliseconds {
            options.append("time limit \(limit) ms")
        }
        if let durability = submission.durability { options.append(durability.description) }
        if let retention = submission.retentionSeconds {
            options.append("kept for \(SecondsText.text(retention))")
        }
        let tail = options.isEmpty ? "" : " (" + options.joined(separator: ", ") + ")"
        return parts.joined(separator: " ") + tail
            + ", arguments of \(submission.arguments.count) bytes"
    }

    private func words(_ outcome: TaskOutcome, _ status: TaskStatus) -> String {
        switch outcome {
        case .success(let result, _): "\(status.rawValue), a result of \(result.count) bytes"
        case .error(let failure), .retry(let failure, _, _):
            "\(status.rawValue), \(failure.type): \(failure.message)"
        case .cancel(let reason): "\(status.rawValue): \(reason)"
        }
    }

    private func words(
        _ cause: ReleaseCause,
        _ status: TaskStatus,
        isSuspect: Bool,
        isCounted: Bool
    ) -> String {
        var text =
            switch cause {
            case .death: "its worker's process ended"
            case .notHeld: "it never arrived at its worker"
            case .handedBack: "its worker handed it back"
            case .drain: "the system was stopping"
            case .goneBefore: "its worker was gone"
            case .silence: "nothing was heard of its worker, whose process can't be watched"
            case .neighbour: "its worker was ended for another task that went on too long"
            case .unreadable: "its worker could not read its arguments in the store"
            }
        if isCounted { text += ", counted as a death" }
        if isSuspect { text += ", not alone in it: runs alone from now on" }
        return text + (status == .dead ? "; dead" : "; queued again")
    }

    private func words(_ evidence: StoredEvidence) -> String {
        let exit = evidence.exit
        let end =
            exit.wasSignal
            ? "was ended by signal \(exit.code) (\(SignalName.of(exit.code)))"
            : "ended with exit code \(exit.code)"
        let time = exit.userMicroseconds &+ exit.systemMicroseconds
        return "process \(exit.pid) of worker \(evidence.worker), which \(end): "
            + "\(BytesText.text(exit.maxResidentBytes)) of memory at most, "
            + "\(Self.text(Int64(clamping: time) &* 1000)) of CPU time"
    }

    /// The end of a worker's standard error, line by line; what a terminal would act on is left out.
    private func lastWords(_ step: Step) -> [String] {
        guard case .died(let evidence) = step.event.what else { return [] }
        let lines = evidence.exit.errorTail.split(separator: UInt8(ascii: "\n"))
            .suffix(Self.lastLines)
        return lines.map { line in
            let shown = line.map { $0 < 0x20 || $0 == 0x7F ? UInt8(ascii: " ") : $0 }
            return "    | " + String(decoding: shown, as: UTF8.self)
        }
    }

    /// How many lines of standard error a person is shown.
    private static let lastLines = 10

    private func name(_ worker: WorkerID) -> String {
        guard let process = history.workers[worker] else { return "worker \(worker)" }
        let place =
            process.isRemote
            ? "on another host or in another pid namespace" : "pid \(process.pid)"
        return "worker \(worker) (\(place), boot \(process.bootID))"
    }

    private static func text(_ nanoseconds: Int64) -> String {
        let microseconds = max(0, nanoseconds) / 1000
        switch microseconds {
        case ..<1000: return "\(microseconds) us"
        case ..<1_000_000: return "\(microseconds / 1000).\(microseconds % 1000 / 100) ms"
        case ..<120_000_000:
            return "\(microseconds / 1_000_000).\(microseconds % 1_000_000 / 100_000) s"
        default:
            let seconds = microseconds / 1_000_000
            return "\(seconds / 60) min \(seconds % 60) s"
        }
    }

    // MARK: For a program

    var json: [UInt8] {
        var json = JSONText()
        json.object { json in
            json.member("id", history.id.description)
            if let lane = history.lane {
                json.member("name", lane.name)
                json.member("queue", lane.queue)
            }
            json.member("forgotten", history.isForgotten)
            if let record = history.record {
                json.member("name", record.name)
                json.member("queue", record.submission.queue)
                json.member("status", record.status.rawValue)
                json.member("attempt", Int(record.attempt))
                json.member("failures", Int(record.failures))
                json.member("deaths", Int(record.deaths))
                json.key("record")
                json.raw(record.json)
            }
            if let compacted = history.compacted {
                json.key("compacted")
                json.object { json in
                    json.member("attempts", Int(compacted.attempts))
                    json.member("failures", Int(compacted.failures))
                    json.member("deaths", Int(compacted.deaths))
                }
            }
            json.key("events")
            json.array { json in for step in steps { add(step, to: &json) } }
            json.member("damaged", objects: history.damaged) { json, record in
                json.member("sequence", record.sequence)
                json.member("position", record.position)
            }
        }
        return json.bytes
    }

    private func add(_ step: Step, to json: inout JSONText) {
        json.object { json in
            json.member("at", step.event.at)
            json.member("sequence", step.event.sequence)
            json.member("event", Self.name(step.event.what))
            if step.attempt > 0 { json.member("attempt", Int(step.attempt)) }
            addDetails(step, to: &json)
        }
    }

    private static func name(_ what: TaskHistory.What) -> String {
        switch what {
        case .added: "added"
        case .leased: "leased"
        case .ended: "ended"
        case .released: "released"
        case .died: "died"
        case .refused: "refused"
        case .cancelled: "cancelled"
        case .requeued: "requeued"
        case .forgotten: "forgotten"
        }
    }

    private func addDetails(_ step: Step, to json: inout JSONText) {
        let microseconds = step.nanoseconds.map { Int(max(0, $0) / 1000) }
        switch step.event.what {
        case .added(let submission, let due):
            json.member("priority", Int(submission.priority))
            if let due { json.member("notBefore", due) }
            if let parent = submission.parent { json.member("parent", parent.description) }
        case .leased(let lease, let worker):
            json.member("lease", lease.description)
            add(worker, to: &json)
            if let microseconds { json.member("waitedMicroseconds", microseconds) }
        case .ended(let result, let status, let worker, let due):
            json.member("lease", result.lease.description)
            add(worker, to: &json)
            json.member("status", status.rawValue)
            json.member("startedAt", result.startedAt)
            json.member("finishedAt", result.finishedAt)
            if let microseconds { json.member("ranMicroseconds", microseconds) }
            if let due { json.member("notBefore", due) }
            add(result.outcome, to: &json)
        case .released(let lease, let cause, let status, let isSuspect, let isCounted):
            json.member("lease", lease.description)
            json.member("cause", "\(cause)")
            json.member("status", status.rawValue)
            json.member("suspect", isSuspect)
            json.member("counted", isCounted)
        case .died(let evidence): add(evidence, to: &json)
        case .refused(let lease, let worker, let began, let ended):
            json.member("lease", lease.description)
            add(worker, to: &json)
            json.member("startedAt", began)
            json.member("finishedAt", ended)
        case .cancelled(let reason, let lease):
            if let lease { json.member("lease", lease.description) }
            json.member("reason", reason)
        case .requeued(let epoch): json.member("epoch", Int(epoch))
        case .forgotten: break
        }
    }

    private func add(_ evidence: StoredEvidence, to json: inout JSONText) {
        let exit = evidence.exit
        json.member("lease", evidence.holding.lease.description)
        json.member("worker", evidence.worker.description)
        json.member("pid", Int(exit.pid))
        if exit.wasSignal {
            json.member("signal", Int(exit.code))
            json.member("signalName", SignalName.of(exit.code))
        } else {
            json.member("exitCode", Int(exit.code))
        }
        json.member("maxResidentBytes", Int(clamping: exit.maxResidentBytes))
        json.member("userMicroseconds", Int(clamping: exit.userMicroseconds))
        json.member("systemMicroseconds", Int(clamping: exit.systemMicroseconds))
        json.member("stderr", String(decoding: exit.errorTail, as: UTF8.self))
    }

    private func add(_ outcome: TaskOutcome, to json: inout JSONText) {
        switch outcome {
        case .success(let result, _): json.member("resultBytes", result.count)
        case .error(let failure), .retry(let failure, _, _):
            json.key("error")
            json.object { json in
                json.member("type", failure.type)
                json.member("message", failure.message)
            }
        case .cancel(let reason): json.member("reason", reason)
        }
    }

    private func add(_ worker: WorkerID, to json: inout JSONText) {
        json.member("worker", worker.description)
        guard let process = history.workers[worker] else { return }
        if process.isRemote {
            json.member("remote", true)
        } else {
            json.member("pid", Int(process.pid))
        }
        json.member("boot", process.bootID.description)
    }
}
