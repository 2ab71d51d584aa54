// Part of QTasks. License: see LICENSE.

import ArgumentParser
import Glibc
import QTasks

/// `wordcount count PATH ...`: adds a task for each file, waits for the results, prints them.
struct Count: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Count lines, words and bytes of all files under some paths.",
        discussion: """
            Counts as LC_ALL=C wc does, those files that find PATH -type f finds: hidden ones too, \
            symbolic links not followed. The table goes to standard output, all else to standard \
            error. Exit code 1: something could not be counted.
            """
    )

    @Argument(help: "Files and folders.", completion: .file())
    var paths: [String]

    @Option(help: "Use the system that runs there, instead of a temporary one.")
    var home: String?

    @Option(help: "Worker processes of the temporary system; one for each core unless told.")
    var workers: Int?

    @Flag(help: "Print one JSON object instead of the table.")
    var json = false

    @Flag(help: "Kill a worker while it runs tasks, to see that none is lost.")
    var killAWorker = false

    func validate() throws {
        if let workers, !(1...1024).contains(workers) {
            throw ValidationError("--workers takes a number from 1 to 1024")
        }
        if home != nil && workers != nil {
            throw ValidationError("--workers is for the temporary system, and --home for another")
        }
    }

    func run() async throws {
        let walk = FileWalk(ByteText.arguments(paths))
        for path in walk.passedOver { say("\(path.path.escaped) is \(path.reason)") }
        let killAWorker = killAWorker
        if killAWorker && walk.files.isEmpty {
            throw ValidationError("there is no file under these paths to run a task for")
        }
        let (home, workers) = (home, workers)
        let outcome = try await Interruption.guarding {
            try await Self.withSystem(at: home, workers: workers) { app in
                let kill = killAWorker ? WorkerKill(app: app, isAlone: home == nil) : nil
                return try await Counting(kill: kill).report(on: walk)
            }
        }
        switch outcome {
        case .interrupted(let signal):
            throw ExitCode(128 + signal)
        case .done(let report):
            print(report)
            if report.failures > 0 { throw ExitCode(1) }
        }
    }

    private static func withSystem<Result: Sendable>(
        at home: String?,
        workers: Int?,
        _ body: @Sendable (QueueTasks) async throws -> Result
    ) async throws -> Result {
        let app = Wordcount.shared.app
        if let home {
            app.use(home: home)
            return try await body(app)
        }
        var config = app.config
        if let workers { config.workers = workers }
        return try await app.withTemporarySystem(config: config, body)
    }

    private func print(_ report: Report) {
        if json {
            writeAll(report.json + [UInt8(ascii: "\n")], to: STDOUT_FILENO)
        } else {
            if !report.top.isEmpty {
                say("most frequent words (of each file's \(FileCount.topWords)):")
                for line in report.topLines { say(line) }
            }
            let isTerminal = isatty(STDOUT_FILENO) == 1
            writeAll(report.table(escaping: isTerminal), to: STDOUT_FILENO)
        }
    }

    private func say(_ line: String) {
        writeAll(Array("\(line)\n".utf8), to: STDERR_FILENO)
    }
}
