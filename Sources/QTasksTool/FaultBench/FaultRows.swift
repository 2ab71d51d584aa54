// Part of QTasks. License: see LICENSE.

import ArgumentParser
import FoundationEssentials
import Glibc
import QTasks
import QTasksModel

/// How rows with goals are told.
struct GoalOptions: ParsableArguments {
    @Flag(help: "Print one JSON object a row.")
    var json = false

    /// Prints a row.
    ///
    /// - Returns: Whether its goal is reached.
    func report(_ row: GoalRow) -> Bool {
        print(json ? row.json : row.text)
        fflush(nil)
        return row.isReached
    }
}

extension GoalRow {
    /// Times in nanoseconds by their 99th percentile, in milliseconds.
    static func p99(
        _ name: String,
        _ nanoseconds: [Double],
        limit: [Double],
        most: Double
    ) -> GoalRow {
        let value = nanoseconds.sorted().percentile(0.99) / 1e6
        return GoalRow(
            name: name,
            value: value,
            unit: "ms",
            limit: limit.sorted().percentile(0.99) / 1e6,
            goal: "<= \(Int(most))",
            isReached: !nanoseconds.isEmpty && value <= most
        )
    }

    /// What must not happen at all.
    static func none(_ name: String, _ count: Int) -> GoalRow {
        GoalRow(
            name: name,
            value: Double(count),
            unit: "tasks",
            limit: 0,
            goal: "0",
            isReached: count == 0
        )
    }
}

/// What the benchmark's system says of itself.
enum FaultInspection {
    struct Workers: Decodable {
        struct Worker: Decodable {
            var pid: Int32
            var connected: Bool
            var running: Int
        }

        var deaths: Int
        var workers: [Worker]

        /// How many are there and run nothing.
        var free: Int { workers.count { $0.connected && $0.running == 0 } }
    }

    private struct Processes: Decodable {
        struct Process: Decodable {
            var role: String
            var pid: Int32
        }

        var processes: [Process]
    }

    private struct Tasks: Decodable {
        var tasks: [[String: Count]]
    }

    /// A row's members are numbers, but for its name.
    private enum Count: Decodable {
        case name
        case number(Int)

        init(from decoder: any Decoder) throws {
            let container = try decoder.singleValueContainer()
            self = (try? container.decode(Int.self)).map { .number($0) } ?? .name
        }
    }

    static func workers(of app: QueueTasks) async throws -> Workers {
        try JSONDecoder().decode(Workers.self, from: Data(try await app.inspect("workers")))
    }

    static func pid(of role: String, _ app: QueueTasks) async throws -> Int32 {
        let answer = Data(try await app.inspect("app"))
        let processes = try JSONDecoder().decode(Processes.self, from: answer).processes
        guard let process = processes.first(where: { $0.role == role }) else {
            throw QTasksError(.internalError, "there is no \(role)")
        }
        return process.pid
    }

    /// How many tasks there are in all, in whatever state.
    static func tasks(of app: QueueTasks) async throws -> Int {
        try await count(TaskStatus.allCases, of: app)
    }

    /// How many have ended.
    static func ended(of app: QueueTasks) async throws -> Int {
        try await count(TaskStatus.allCases.filter(\.isFinal), of: app)
    }

    private static func count(_ states: [TaskStatus], of app: QueueTasks) async throws -> Int {
        let answer = Data(try await app.inspect("tasks"))
        let rows = try JSONDecoder().decode(Tasks.self, from: answer).tasks
        let states = states.map(\.rawValue)
        return rows.reduce(0) { sum, row in
            states.reduce(sum) { sum, state in
                if case .number(let count)? = row[state] { sum + count } else { sum }
            }
        }
    }
}
