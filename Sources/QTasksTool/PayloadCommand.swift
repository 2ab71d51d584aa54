// Part of QTasks. License: see LICENSE.

import ArgumentParser
import FoundationEssentials
import Glibc
import QTasks

/// The task of `bench payload`: it takes bytes and gives as many as the first eight of them say.
enum PayloadTask {
    static let name = "payload"

    /// Arguments of `bytes` bytes that ask for a result of `result` bytes.
    static func input(_ bytes: Int, result: Int, marked mark: UInt8) -> [UInt8] {
        var input = [UInt8](repeating: mark, count: max(8, bytes))
        for index in 0..<8 { input[index] = UInt8(truncatingIfNeeded: result >> (8 * index)) }
        return input
    }

    static func answer(_ input: [UInt8]) -> [UInt8] {
        let count = input.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
        return [UInt8](repeating: input.last ?? 0, count: count)
    }

    @discardableResult
    static func register(with app: QueueTasks) -> AsyncTask<[UInt8], [UInt8]> {
        app.task(name) { (input: [UInt8], _: TaskContext) async throws -> [UInt8] in answer(input) }
    }
}

/// `bench payload`: round trips with large arguments and results, and what they cost each process.
struct PayloadCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "payload",
        abstract: "Round trips with large arguments and results, and each process's CPU time."
    )

    @OptionGroup var options: BenchOptions

    @Option(help: "Round trips of each row.")
    var rounds = 40

    @Option(help: "Bytes of the large payloads, row by row.")
    var sizes: [Int] = [100, 65_536, 1 << 20, 10 << 20]

    @Option(help: "Tasks of 10 MiB to queue for the row on memory; 0 leaves it out.")
    var queued = 100

    func run() async throws {
        BenchTask.enable()
        var config = QueueConfig()
        config.workers = options.workers
        config.logLevel = "warning"
        try config.set(.durability, to: options.durability, saying: "--durability")
        let app = QueueTasks("bench")
        let task = PayloadTask.register(with: app)
        let isRight = try await app.withTemporarySystem(config: config) { _ in
            var isRight = true
            for size in sizes {
                isRight = try await row("arguments", task, size, 8) && isRight
                isRight = try await row("result", task, 8, size) && isRight
            }
            return isRight
        }
        guard isRight else { throw ExitCode(1) }
        guard queued > 0 else { return }
        config.workers = 0
        try await app.withTemporarySystem(config: config) { _ in try await memory(task) }
    }

    private func row(
        _ what: String,
        _ task: AsyncTask<[UInt8], [UInt8]>,
        _ arguments: Int,
        _ result: Int
    ) async throws -> Bool {
        let input = PayloadTask.input(arguments, result: result, marked: 7)
        for _ in 0..<5 { _ = try await task.run(input, timeout: .seconds(60)) }
        var times: [Duration] = []
        var isVerified = true
        let before = RoleProcess.all()
        for round in 0..<rounds {
            let mark = UInt8(truncatingIfNeeded: round)
            let input = PayloadTask.input(arguments, result: result, marked: mark)
            let begin = ContinuousClock.now
            let answer = try await task.run(input, timeout: .seconds(60))
            times.append(ContinuousClock.now - begin)
            isVerified = isVerified && answer.count == result && answer.last == input.last
        }
        let after = RoleProcess.all()
        times.sort()
        var numbers: [(key: String, value: Double)] = [
            ("bytes", Double(max(arguments, result))), ("rounds", Double(rounds)),
            ("p50_us", times[times.count / 2] / .microseconds(1)),
            ("p90_us", times[times.count * 9 / 10] / .microseconds(1)),
        ]
        for role in ["broker", "storage", "worker"] {
            let ticks = RoleProcess.ticks(of: role, after) - RoleProcess.ticks(of: role, before)
            let microseconds = Double(ticks) * 1_000_000 / Double(sysconf(Int32(_SC_CLK_TCK)))
            numbers.append(("\(role)_cpu_us", (microseconds / Double(rounds)).rounded()))
        }
        options.report(BenchRow(name: "payload-\(what)", numbers: numbers, isVerified: isVerified))
        return isVerified
    }

    /// What Broker and Storage hold while large tasks wait.
    private func memory(_ task: AsyncTask<[UInt8], [UInt8]>) async throws {
        let before = RoleProcess.all()
        for round in 0..<queued {
            let mark = UInt8(truncatingIfNeeded: round)
            let input = PayloadTask.input(10 << 20, result: 8, marked: mark)
            try await task.addTask(input, timeout: .seconds(60))
        }
        let after = RoleProcess.all()
        var numbers: [(key: String, value: Double)] = [("tasks", Double(queued))]
        for role in ["broker", "storage"] {
            numbers.append(("\(role)_before_kib", RoleProcess.anonymousKiB(of: role, before)))
            numbers.append(("\(role)_kib", RoleProcess.anonymousKiB(of: role, after)))
        }
        options.report(BenchRow(name: "payload-memory", numbers: numbers, isVerified: true))
    }
}

/// A process of the benchmark's own system, as `/proc` shows it.
private struct RoleProcess {
    var name: String
    var ticks: Int
    var anonymousKiB: Int

    /// Everything below this process.
    static func all() -> [RoleProcess] {
        var found: [Int32: (parent: Int32, RoleProcess)] = [:]
        for entry in (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? [] {
            guard let pid = Int32(entry), let process = read(pid) else { continue }
            found[pid] = process
        }
        return found.values.compactMap { parent, process in
            var pid = parent
            while pid > 1, pid != getpid() { pid = found[pid]?.parent ?? 0 }
            return pid == getpid() ? process : nil
        }
    }

    static func ticks(of role: String, _ all: [RoleProcess]) -> Int {
        all.filter { $0.name == "qtasks-\(role)" }.reduce(0) { $0 + $1.ticks }
    }

    static func anonymousKiB(of role: String, _ all: [RoleProcess]) -> Double {
        Double(all.filter { $0.name == "qtasks-\(role)" }.reduce(0) { $0 + $1.anonymousKiB })
    }

    private static func read(_ pid: Int32) -> (parent: Int32, RoleProcess)? {
        guard let stat = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8),
            let open = stat.firstIndex(of: "("), let close = stat.lastIndex(of: ")"),
            let status = try? String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)
        else { return nil }
        let fields = stat[close...].split(separator: " ")
        let resident = status.split(separator: "\n").first { $0.hasPrefix("RssAnon:") }
        let number = resident?.split(separator: " ").dropLast().last.flatMap { Int($0) }
        let process = RoleProcess(
            name: String(stat[stat.index(after: open)..<close]),
            ticks: (Int(fields[12]) ?? 0) + (Int(fields[13]) ?? 0),
            anonymousKiB: number ?? 0
        )
        return (Int32(fields[2]) ?? 0, process)
    }
}
