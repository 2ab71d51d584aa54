// Part of QTasks. License: see LICENSE.

import AppendLog
import ArgumentParser
import Glibc
import QTasksModel
import QTasksProcess
import QTasksStorage

/// `log`: the log on disk, whether a system runs there or not.
struct LogCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "log",
        abstract: "Look into the log on disk, check it, and mend it.",
        discussion: """
            All but compact and repair read HOME/store directly: while a system runs there or not, \
            without asking it, without locking anything, and without slowing it down.
            """,
        subcommands: [
            LogAtCommand.self, LogVerifyCommand.self, LogDumpCommand.self, LogStatsCommand.self,
            LogExportCommand.self, LogCompactCommand.self, LogRepairCommand.self,
        ]
    )
}

extension HomeOptions {
    /// The home's paths.
    var directories: HomeDirectory {
        get throws { try HomeDirectory(at: app.home) }
    }

    /// The store at the home, to read.
    ///
    /// - Throws: ``QTasksError`` that names the store and the way out.
    func openReader() throws -> StoreReader {
        let path = try directories.storePath
        return try QTasksError.naming(store: path) { () throws(AppendLogError) in
            try StoreReader(path)
        }
    }
}

extension QTasksError {
    /// Does something with a store, and puts what goes wrong into words for whoever called a command.
    static func naming<Result>(
        store path: String,
        _ body: () throws -> Result
    ) throws -> Result {
        do {
            return try body()
        } catch let error as AppendLogError {
            throw QTasksError(store: path, error)
        }
    }

    private init(store path: String, _ error: AppendLogError) {
        switch error {
        case .system("open", _, ENOENT), .system("opendir", _, ENOENT):
            if Self.hasSegments(path) {
                self.init(
                    .damaged,
                    "the file 'meta' of the store '\(path)' is gone; stop the system and salvage what "
                        + "there is with 'log repair --to NEWDIR'",
                    cause: error
                )
            } else {
                self.init(
                    .noSystem,
                    "there is no store at '\(path)'; name another home with --home or QTASKS_HOME",
                    cause: error
                )
            }
        case .notAStore, .metaUnreadable:
            self.init(
                .damaged,
                "the store '\(path)' has no whole meta page; stop the system and salvage what there is "
                    + "with 'log repair --to NEWDIR'",
                cause: error
            )
        case .corrupt:
            self.init(.damaged, "\(error); 'log verify' tells what else is", cause: error)
        case .newerFormat, .unknownKind: self.init(.badHome, "\(error)", cause: error)
        case .locked(_, let holder):
            let who = holder.map { "process \($0)" } ?? "a process"
            self.init(
                .stopping,
                "\(who) has the store '\(path)' open; stop the system first",
                cause: error
            )
        case .system, .payloadTooLarge, .outOfSpace, .unsuitableFileSystem:
            self.init(.internalError, "\(error)", cause: error)
        }
    }

    private static func hasSegments(_ path: String) -> Bool {
        let names = (try? PosixFiles().list(path)) ?? []
        return names.contains { $0.hasPrefix("segment-") }
    }
}

/// Which tasks are wanted.
struct TaskFilter: ParsableArguments {
    @Option(
        help: "Only tasks in this status: new, scheduled, process, success, error, cancel, dead."
    )
    var status: String?

    @Option(help: "Only tasks with this name.")
    var name: String?

    @Option(help: "Only tasks of this queue.")
    var queue: String?

    func validate() throws {
        if let status, TaskStatus(rawValue: status) == nil {
            let known = TaskStatus.allCases.map(\.rawValue).joined(separator: ", ")
            throw ValidationError("--status is '\(status)'; it takes \(known)")
        }
    }

    func admits(_ entry: TaskEntry, in tasks: TaskFold) -> Bool {
        if let status, entry.status.rawValue != status { return false }
        guard name != nil || queue != nil else { return true }
        let lane = tasks.lane(of: entry)
        return (name ?? lane.name) == lane.name && (queue ?? lane.queue) == lane.queue
    }
}

extension CommandOutput {
    /// Tells whoever reads along that durable records can't be read.
    static func warn(ofLost lost: [LostRecords]) {
        guard !lost.isEmpty else { return }
        let count = lost.reduce(0) { $0 + $1.sequences.count }
        note("Warning: \(count) records of the log can't be read; 'log verify' tells which")
    }
}

extension JSONText {
    mutating func member(_ name: String, _ position: RecordPosition) {
        key(name)
        object { json in
            json.member("segment", Int(position.segment))
            json.member("offset", Int(position.offset))
        }
    }

    mutating func member(_ name: String, _ number: UInt64) {
        member(name, Int(clamping: number))
    }

    mutating func member(_ name: String, _ time: Timestamp) {
        member(name, time.description)
    }

    mutating func member(_ name: String, _ lost: [LostRecords]) {
        member(name, objects: lost) { json, lost in
            json.member("first", lost.sequences.lowerBound)
            json.member("last", lost.sequences.upperBound)
            json.member("position", lost.position)
        }
    }

    mutating func object(_ damaged: DamagedBytes) {
        object { json in
            json.member("what", "bytes")
            json.member("position", damaged.position)
            json.member("bytes", damaged.bytes)
        }
    }
}

extension RecordPosition {
    /// As people write it.
    var text: String { "\(segment):\(offset)" }
}
