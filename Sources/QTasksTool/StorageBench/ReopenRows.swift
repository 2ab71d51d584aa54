// Part of QTasks. License: see LICENSE.

import AppendLog
import FoundationEssentials
import Glibc
import QTasks
import QTasksModel
import QTasksProcess
import QTasksStorage

/// How fast a system is back with a store of many queued tasks, and what it then holds in memory.
///
/// The time runs from the start of the processes to the first answer of Broker and Storage, with every
/// task in its queue.
struct ReopenRows {
    private let folder: TemporaryFolder

    init(_ folder: TemporaryFolder) {
        self.folder = folder
    }

    func million(isClean: Bool) async throws -> GoalRow {
        let name = isClean ? "reopen-1m-clean" : "reopen-1m-killed"
        let most = isClean ? 0.5 : 1.5
        let home = try folder.make(name)
        defer { TemporaryFolder.remove(home) }
        let limit = try fill(home, 1_000_000, isClean: isClean)
        let (seconds, _) = try await reopen(home, 1_000_000)
        return row(name, seconds, limit, most)
    }

    /// `reopen-10m` and `ram-per-task`, after a kill.
    func many(_ count: Int, alone: Bool) async throws -> [GoalRow] {
        let home = try folder.make("reopen-10m")
        defer { TemporaryFolder.remove(home) }
        let limit = try fill(home, count, isClean: false)
        let (seconds, bytes) = try await reopen(home, count)
        let opening = row("reopen-10m", seconds, limit, 6)
        guard !alone else { return [opening] }
        let each = Double(bytes) / Double(count)
        let ram = GoalRow(
            name: "ram-per-task",
            value: each,
            unit: "bytes",
            limit: 20,  // an ID and a place in line
            goal: "<= 96",
            isReached: each <= 96
        )
        return [opening, ram]
    }

    /// `ram-per-task-unique`: the same where each task holds a unique key.
    func unique(_ count: Int) async throws -> GoalRow {
        let home = try folder.make("ram-unique")
        defer { TemporaryFolder.remove(home) }
        _ = try fill(home, count, isClean: false, isUnique: true)
        let (_, bytes) = try await reopen(home, count)
        let each = Double(bytes) / Double(count)
        return GoalRow(
            name: "ram-per-task-unique",
            value: each,
            unit: "bytes",
            limit: 36,  // an ID and a place in line, and 128 bits of a key
            goal: "<= 128",
            isReached: each <= 128
        )
    }

    private func row(_ name: String, _ seconds: Double, _ limit: Double, _ most: Double) -> GoalRow
    {
        GoalRow(
            name: name,
            value: seconds,
            unit: "s",
            limit: limit,
            goal: "<= \(most)",
            isReached: seconds <= most
        )
    }

    /// Makes a store of queued tasks, and leaves it as a clean stop or a kill does.
    ///
    /// - Returns: How long just reading its files takes, in seconds.
    private func fill(
        _ home: String,
        _ count: Int,
        isClean: Bool,
        isUnique: Bool = false
    ) throws -> Double {
        let directory = "\(home)/store"
        try autoreleased {
            let store = try BenchStore(directory, config: QueueConfig())
            var left = count
            while left > 0 {
                let part = min(left, 1000)
                _ = try store.add(part, isUnique: isUnique)
                try store.turn()
                store.waitForDisk()
                left -= part
            }
            if isClean {
                try store.close()
            } else {
                try store.log.flush()
                while try store.turn().pace == .waiting { store.wait() }
            }
        }
        return StoreFiles.secondsToRead(directory)
    }

    /// A scope at whose end a log that isn't closed goes as if the process had been killed.
    private func autoreleased(_ body: () throws -> Void) rethrows {
        try body()
    }

    /// Starts a system over the store.
    ///
    /// - Returns: When it served, and what Storage and Broker then held in memory of their own.
    private func reopen(_ home: String, _ count: Int) async throws -> (Double, Int) {
        var config = QueueConfig()
        config.workers = 0
        config.logLevel = "warning"
        let start = Stopwatch.now()
        let system = try await OwnSystem.start(home: home, config: config)
        do {
            try await system.waitUntilReady(home: home)
            let seconds = Stopwatch.seconds(since: start)
            let app = QueueTasks("bench")
            app.use(home: home)
            let answer = try await app.inspect("tasks")
            let found = try Inspection.queued(in: answer)
            guard found == count else {
                throw QTasksError(.internalError, "of \(count) tasks the system has \(found)")
            }
            // at rest: what opening took has gone back by then
            try await Task.sleep(for: .seconds(2))
            let bytes = try await memory(of: app)
            await system.stop()
            return (seconds, bytes)
        } catch {
            await system.stop()
            throw error
        }
    }

    /// `RssAnon` of Broker and Storage, in bytes: mapped files don't count.
    private func memory(of app: QueueTasks) async throws -> Int {
        let processes = try Inspection.processes(in: try await app.inspect("app"))
        return ["broker", "storage"].reduce(0) { sum, role in
            sum + (processes[role].map(Inspection.anonymousBytes) ?? 0)
        }
    }
}

/// A store's files, as bytes.
enum StoreFiles {
    /// How long just reading them takes: no opening can do better.
    static func secondsToRead(_ directory: String) -> Double {
        let start = Stopwatch.now()
        var buffer = [UInt8](repeating: 0, count: 1 << 20)
        guard let listing = opendir(directory) else { return 0 }
        defer { closedir(listing) }
        while let entry = readdir(listing) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            let file = open("\(directory)/\(name)", O_RDONLY | O_CLOEXEC)
            guard file >= 0 else { continue }
            while read(file, &buffer, buffer.count) > 0 {}
            close(file)
        }
        return Stopwatch.seconds(since: start)
    }
}

/// What inspections tell.
private enum Inspection {
    private struct App: Decodable {
        struct Process: Decodable {
            var role: String
            var pid: Int
        }

        var processes: [Process]
    }

    private struct Tasks: Decodable {
        struct Row: Decodable {
            var new: Int
        }

        var tasks: [Row]
    }

    static func queued(in answer: [UInt8]) throws -> Int {
        try JSONDecoder().decode(Tasks.self, from: Data(answer)).tasks.reduce(0) { $0 + $1.new }
    }

    /// By role.
    static func processes(in answer: [UInt8]) throws -> [String: Int] {
        let app = try JSONDecoder().decode(App.self, from: Data(answer))
        return Dictionary(app.processes.map { ($0.role, $0.pid) }) { first, _ in first }
    }

    static func anonymousBytes(of pid: Int) -> Int {
        guard let file = fopen("/proc/\(pid)/status", "re") else { return 0 }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 256)
        while fgets(&line, 256, file) != nil {
            let bytes = line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
            let text = String(decoding: bytes, as: UTF8.self)
            guard text.hasPrefix("RssAnon:") else { continue }
            return (Int(text.filter(\.isNumber)) ?? 0) * 1024
        }
        return 0
    }
}
