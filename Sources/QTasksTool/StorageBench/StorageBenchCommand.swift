// Part of QTasks. License: see LICENSE.

import ArgumentParser
import Glibc
import QTasks
import QTasksProcess

/// `bench storage`: the store by itself, and how fast a system is back with a large one.
struct StorageBenchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "storage",
        abstract: "Measure the store: appending, syncing, reopening, memory, space, stalls.",
        discussion: """
            Each row has a value, the limit of this machine measured in the same run, and a goal. The \
            store is made by Storage's own core in a folder under TMPDIR (up to 6 GB are written); the \
            rows reopen-* and ram-per-task* start a real system over it. Exit code 1 if a row misses \
            its goal. On a machine that does something else meanwhile, or that its hypervisor holds \
            back (standard error tells), the figures say little.
            """
    )

    /// The rows, in the order in which they are measured.
    enum Row: String, CaseIterable, ExpressibleByArgument {
        case appendWritten = "append-written"
        case groupSyncs = "group-syncs"
        case groupRecords = "group-records"
        case reopenMillionClean = "reopen-1m-clean"
        case reopenMillionKilled = "reopen-1m-killed"
        case reopenTenMillion = "reopen-10m"
        case ramPerTask = "ram-per-task"
        case ramPerTaskUnique = "ram-per-task-unique"
        case diskBuried = "disk-buried"
        case stall
    }

    @Flag(help: "Print one JSON object a row.")
    var json = false

    @Option(help: "Measure this row alone; may be given several times.")
    var only: [Row] = []

    @Option(help: "Tasks in the rows reopen-10m and ram-per-task*.")
    var tasks = 10_000_000

    @Option(help: "Tasks that pass through in the row disk-buried.")
    var passing = 5_000_000

    func run() async throws {
        BenchTask.enable()
        let folder = try TemporaryFolder("qtasks-bench")
        defer { folder.remove() }
        var areAllReached = true
        for row in Row.allCases where only.isEmpty || only.contains(row) {
            let stolen = ProcessorTime()
            let results = try await measure(row, in: folder)
            for result in results {
                print(json ? result.json : result.text)
                fflush(nil)
                areAllReached = areAllReached && result.isReached
            }
            if stolen.stolenShare > 0.01, !results.isEmpty {
                let percent = Int((stolen.stolenShare * 100).rounded())
                let note =
                    "\(row.rawValue): the hypervisor took \(percent) % of the processors' time\n"
                write(STDERR_FILENO, note, note.utf8.count)
            }
        }
        guard areAllReached else { throw ExitCode(1) }
    }

    private func measure(_ row: Row, in folder: TemporaryFolder) async throws -> [GoalRow] {
        switch row {
        case .appendWritten: [try AppendRows(folder).written()]
        case .groupSyncs: [try AppendRows(folder).syncs()]
        case .groupRecords: [try AppendRows(folder).records()]
        case .reopenMillionClean: [try await ReopenRows(folder).million(isClean: true)]
        case .reopenMillionKilled: [try await ReopenRows(folder).million(isClean: false)]
        case .reopenTenMillion:
            // the same opening tells both
            try await ReopenRows(folder).many(tasks, alone: only.contains(.reopenTenMillion))
        case .ramPerTask:
            only.contains(.ramPerTask) ? try await ReopenRows(folder).many(tasks, alone: false) : []
        case .ramPerTaskUnique: [try await ReopenRows(folder).unique(tasks)]
        case .diskBuried: [try BuriedRow(folder).measure(passing: passing)]
        case .stall: try StallRow(folder).measure()
        }
    }
}

extension TemporaryFolder {
    /// A fresh folder in it.
    func make(_ name: String) throws -> String {
        let folder = "\(path)/\(name)"
        guard mkdir(folder, 0o700) == 0 else {
            throw QTasksError(.badHome, "\(folder) can't be made: errno \(errno)")
        }
        return folder
    }
}

/// A clock for durations.
enum Stopwatch {
    /// In nanoseconds of `CLOCK_MONOTONIC`.
    static func now() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    static func seconds(since start: UInt64) -> Double {
        Double(now() - start) / 1e9
    }
}

extension [Double] {
    /// The value that this share of all is no greater than; they are sorted.
    func percentile(_ share: Double) -> Double {
        isEmpty ? 0 : self[Swift.min(count - 1, Int(Double(count) * share))]
    }

    var median: Double { sorted().percentile(0.5) }
}
