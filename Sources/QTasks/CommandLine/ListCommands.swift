// Part of QTasks. License: see LICENSE.

import AppendLog
import ArgumentParser
import QTasksModel
import QTasksStorage

/// `list`: tasks as they are now.
struct ListCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "List tasks, oldest first.",
        discussion: """
            Read from the log on disk, while a system runs there or not. 'log export' prints whole \
            records.
            """
    )

    @OptionGroup var place: HomeOptions
    @OptionGroup var filter: TaskFilter

    @Option(help: "Tasks to print at most. (default: all)")
    var limit: Int?

    @Flag(help: "Print one JSON object a task.")
    var json = false

    func validate() throws {
        if let limit, limit < 0 { throw ValidationError("--limit is \(limit); it takes 0 or more") }
    }

    func run() async throws {
        let listing = try TaskListing(place)
        for number in listing.numbers(filter).prefix(limit ?? .max) {
            listing.print(number, json: json)
        }
    }
}

/// `dead`: tasks whose workers died of them.
struct DeadCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dead",
        abstract: "Look at tasks whose workers died as often as they may be delivered.",
        subcommands: [
            DeadListCommand.self, DeadShowCommand.self, DeadRequeueCommand.self,
            DeadPurgeCommand.self,
        ]
    )
}

/// `dead list`.
struct DeadListCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "List them, oldest first."
    )

    @OptionGroup var place: HomeOptions

    @Flag(help: "Print one JSON object a task.")
    var json = false

    func run() async throws {
        let listing = try TaskListing(place)
        for number in listing.numbers(.only(.dead)) { listing.print(number, json: json) }
    }
}

/// `dead show ID`: what each death was.
struct DeadShowCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show",
        abstract: "Print a task's whole life, as 'explain' does: how each worker ended is in it."
    )

    @OptionGroup var explain: ExplainCommand

    func run() async throws { try await explain.run() }
}

/// `dead requeue`: has them run once more.
struct DeadRequeueCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "requeue",
        abstract: "Queue them again: those that are named, or with --all every one."
    )

    @OptionGroup var place: HomeOptions

    @Argument(help: "The tasks' IDs.")
    var ids: [String] = []

    @Flag(help: "All that are dead now.")
    var all = false

    @Flag(help: "Print one JSON object a task.")
    var json = false

    func validate() throws {
        guard ids.isEmpty == all else {
            throw ValidationError("name tasks, or say --all for every dead one")
        }
    }

    func run() async throws {
        let listing = all ? try TaskListing(place) : nil
        let named = try TaskID.parsed(ids)
        let ids = listing.map { $0.numbers(.only(.dead)).map($0.id) } ?? named
        try await TaskChanges(ids: ids, json: json).run(place.app) { app, ids in
            try await app.connectedBroker().requeue(ids, timeout: .seconds(30))
        }
    }
}

/// `dead purge`: forgets them.
struct DeadPurgeCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "purge",
        abstract: "Forget them before their time: those that are named, or with --yes every one.",
        discussion: """
            Nothing brings them back. Exit code 1 where a task is in another status, 2 where there is none: \
            other finished tasks go once their retention is over.
            """
    )

    @OptionGroup var place: HomeOptions

    @Argument(help: "The tasks' IDs.")
    var ids: [String] = []

    @Flag(help: "All that are dead now, where none is named.")
    var yes = false

    @Flag(help: "Print one JSON object a task; for all, one in all.")
    var json = false

    func validate() throws {
        guard !ids.isEmpty || yes else {
            throw ValidationError("this forgets every dead task: name some, or say --yes")
        }
    }

    func run() async throws {
        guard ids.isEmpty else {
            let changes = TaskChanges(ids: try TaskID.parsed(ids), json: json, done: "forgotten")
            return try await changes.run(place.app) { app, ids in
                try await app.connectedBroker().forget(ids, timeout: .seconds(30))
            }
        }
        let listing = try TaskListing(place)
        let dead = listing.numbers(.only(.dead)).map(listing.id)
        let count = try await dead.changed(by: try place.app.connectedBroker()) { broker, ids in
            try await broker.forget(ids, timeout: .seconds(30))
        }
        guard json else { return CommandOutput.print("\(count) tasks forgotten") }
        var text = JSONText()
        text.object { $0.member("forgotten", count) }
        CommandOutput.print(text.bytes)
    }
}

/// `flush`: ends everything that hasn't ended.
struct FlushCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "flush",
        abstract: "Cancel every task that hasn't ended, waiting or running.",
        discussion: "Takes --yes, since only 'requeue' brings them back, one by one."
    )

    @OptionGroup var place: HomeOptions

    @Option(help: "Only tasks of this queue.")
    var queue: String?

    @Flag(help: "Do it.")
    var yes = false

    @Flag(help: "Print one JSON object.")
    var json = false

    func validate() throws {
        guard yes else { throw ValidationError("this cancels every unfinished task: say --yes") }
    }

    func run() async throws {
        var cancelled = 0
        // what was added or went on meanwhile comes with the next look
        while true {
            let listing = try TaskListing(place)
            var filter = TaskFilter.all
            filter.queue = queue
            let open = listing.numbers(filter).filter { !listing.status($0).isFinal }
                .map(listing.id)
            let count = try await cancel(open)
            cancelled += count
            if count == 0 { break }
        }
        guard json else { return CommandOutput.print("\(cancelled) tasks cancelled") }
        var text = JSONText()
        text.object { $0.member("cancelled", cancelled) }
        CommandOutput.print(text.bytes)
    }

    private func cancel(_ ids: [TaskID]) async throws -> Int {
        try await ids.changed(by: try place.app.connectedBroker()) { broker, ids in
            try await broker.cancel(ids, reason: "flush", timeout: .seconds(30))
        }
    }
}

extension [TaskID] {
    /// Changes tasks that were found to be so a moment ago, a few thousand at a time.
    ///
    /// - Returns: How many still were.
    fileprivate func changed(
        by broker: any Broker,
        _ change: (any Broker, [TaskID]) async throws -> [Result<TaskStatus, QTasksError>]
    ) async throws -> Int {
        var count = 0
        for start in stride(from: 0, to: self.count, by: 4096) {
            let batch = Array(self[start..<Swift.min(start + 4096, self.count)])
            for result in try await change(broker, batch) {
                switch result {
                case .success: count += 1
                // it went on by itself
                case .failure(let error) where error.code == .conflict || error.code == .notFound:
                    break
                case .failure(let error): throw error
                }
            }
        }
        return count
    }
}

/// The tasks of a store as they were when it was read.
struct TaskListing {
    private let tasks: TaskFold
    private let reader: StoreReader

    init(_ place: HomeOptions) throws {
        let reader = try place.openReader()
        let reading = try QTasksError.naming(store: reader.directory) { try reader.readNow() }
        CommandOutput.warn(ofLost: reading.report.lost)
        self.reader = reader
        tasks = reading.tasks
    }

    func numbers(_ filter: TaskFilter) -> [TaskIndex.Number] {
        tasks.numbersInAddOrder.filter { filter.admits(tasks.index[$0], in: tasks) }
    }

    func id(_ number: TaskIndex.Number) -> TaskID { tasks.index[number].id }

    func status(_ number: TaskIndex.Number) -> TaskStatus { tasks.index[number].status }

    func print(_ number: TaskIndex.Number, json: Bool) {
        let entry = tasks.index[number]
        let lane = tasks.lane(of: entry)
        guard json else {
            let queue = lane.queue == TaskName.defaultQueue ? "" : " in \(lane.queue)"
            let counts =
                (entry.attempt > 1 ? ", attempt \(entry.attempt)" : "")
                + (entry.deaths > 0 ? ", \(entry.deaths) deaths" : "")
            return CommandOutput.print(
                "\(entry.id) \(entry.status.rawValue) \(lane.name)\(queue)\(counts)"
            )
        }
        var text = JSONText()
        text.object { text in
            text.member("id", entry.id.description)
            text.member("status", entry.status.rawValue)
            text.member("name", lane.name)
            text.member("queue", lane.queue)
            text.member("priority", Int(entry.priority))
            text.member("attempt", Int(entry.attempt))
            text.member("failures", Int(entry.failures))
            text.member("deaths", Int(entry.deaths))
            text.member("epoch", Int(entry.epoch))
        }
        CommandOutput.print(text.bytes)
    }
}

extension TaskFilter {
    static var all: TaskFilter {
        var filter = TaskFilter()
        filter.status = nil
        filter.name = nil
        filter.queue = nil
        return filter
    }

    static func only(_ status: TaskStatus) -> TaskFilter {
        var filter = all
        filter.status = status.rawValue
        return filter
    }
}
