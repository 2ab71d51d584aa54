// Part of QTasks. License: see LICENSE.

import ArgumentParser
import FoundationEssentials
import QTasksModel

/// `stats`: what the system is doing.
struct StatsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stats",
        abstract: "Show what the system is doing.",
        subcommands: [InspectCommand.self]
    )
}

/// `stats inspect TOPIC`.
struct InspectCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "inspect",
        abstract: "Show the system's processes (app), tasks by name, workers, or queues."
    )

    enum Topic: String, CaseIterable, ExpressibleByArgument {
        case app
        case tasks
        case workers
        case queues
    }

    @OptionGroup var place: HomeOptions

    @Argument(help: "app, tasks, workers or queues.")
    var topic: Topic

    @Flag(help: "Print one JSON object.")
    var json = false

    func run() async throws {
        let answer = try await place.app.inspect(topic.rawValue)
        guard json else {
            for line in try InspectText(answer, topic: topic).lines { CommandOutput.print(line) }
            return
        }
        CommandOutput.print(answer)
    }
}

/// An inspection as lines for a person.
private struct InspectText {
    let lines: [String]

    private struct App: Decodable {
        struct Process: Decodable {
            var role: String
            var pid: Int
            var parent: Int?
        }

        var home: String
        var incarnation: Int
        var processes: [Process]
    }

    private struct Workers: Decodable {
        struct Worker: Decodable {
            var pid: Int
            var connected: Bool
            var slots: Int
            var running: Int
            var names: [String]
        }

        var deaths: Int
        var workers: [Worker]
    }

    private struct Counts: Decodable {
        struct Row: Decodable {
            var name: String?
            var queue: String?
            var workers: Int?
            var unroutable: Int?
            var paused: Bool?
            var concurrency: Int?
            var rate: String?
            var keyConcurrency: Int?
            var keyRate: String?
            var maxQueued: Int?
            var ageing: Int?
            var new: Int
            var scheduled: Int
            var process: Int
            var success: Int
            var error: Int
            var cancel: Int
            var dead: Int
        }

        var tasks: [Row]?
        var queues: [Row]?
    }

    init(_ json: [UInt8], topic: InspectCommand.Topic) throws {
        let decoder = JSONDecoder()
        let data = Data(json)
        switch topic {
        case .app: lines = Self.lines(try decoder.decode(App.self, from: data))
        case .workers: lines = Self.lines(try decoder.decode(Workers.self, from: data))
        case .tasks, .queues: lines = Self.lines(try decoder.decode(Counts.self, from: data))
        }
    }

    private static func lines(_ app: App) -> [String] {
        ["home \(app.home), store opened \(app.incarnation) times"]
            + app.processes.map { process in
                let parent = process.parent.map { ", started by \($0)" } ?? ""
                return "\(process.role) \(process.pid)\(parent)"
            }
    }

    private static func lines(_ workers: Workers) -> [String] {
        workers.workers.map { worker in
            let state = worker.connected ? "" : " (not connected)"
            let names = worker.names.joined(separator: ", ")
            return "\(worker.pid)\(state): runs \(worker.running) of \(worker.slots): \(names)"
        } + ["\(workers.deaths) workers have died"]
    }

    private static func lines(_ counts: Counts) -> [String] {
        let rows = counts.tasks ?? counts.queues ?? []
        if rows.isEmpty { return ["nothing yet"] }
        return rows.map { row in
            var parts = [
                "\(row.new) new", "\(row.scheduled) scheduled", "\(row.process) running",
                "\(row.success) success", "\(row.error) error", "\(row.cancel) cancel",
                "\(row.dead) dead",
            ]
            if let workers = row.workers { parts.append("\(workers) workers can run it") }
            if let unroutable = row.unroutable, unroutable > 0 {
                parts.append("\(unroutable) that no worker can run")
            }
            if row.paused == true { parts.append("paused") }
            let limits: [(String, String?)] = [
                ("concurrency", row.concurrency.map { "\($0)" }), ("rate", row.rate),
                ("key-concurrency", row.keyConcurrency.map { "\($0)" }),
                ("key-rate", row.keyRate), ("max-queued", row.maxQueued.map { "\($0)" }),
                ("ageing", row.ageing.map { "\($0)" }),
            ]
            for case (let name, let limit?) in limits { parts.append("\(name) \(limit)") }
            return "\(row.name ?? row.queue ?? ""): " + parts.joined(separator: ", ")
        }
    }
}

/// `ping`: whether Broker and Storage answer.
struct PingCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ping",
        abstract:
            "Exit with 0 when Broker and Storage answer, with 1 when they don't within --timeout."
    )

    @OptionGroup var place: HomeOptions

    @Option(help: "Seconds to wait.")
    var timeout: Seconds?

    @Flag(help: "Print one JSON object.")
    var json = false

    func run() async throws {
        let start = ContinuousClock.now
        do {
            try await place.app.ping(timeout: timeout?.duration ?? .seconds(1))
        } catch let error as QTasksError where error.code != .noSystem && error.code != .badHome {
            CommandOutput.complain(error.message)
            throw ExitCode(1)
        }
        report(microseconds: Int((ContinuousClock.now - start) / .microseconds(1)))
    }

    private func report(microseconds: Int) {
        guard json else {
            CommandOutput.print("Broker and Storage answer, after \(microseconds) us")
            return
        }
        var text = JSONText()
        text.object { json in
            json.member("ok", true)
            json.member("microseconds", microseconds)
        }
        CommandOutput.print(text.bytes)
    }
}
