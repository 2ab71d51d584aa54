// Part of QTasks. License: see LICENSE.

import AppendLog
import ArgumentParser
import QTasksClient
import QTasksModel
import QTasksProcess
import QTasksStorage

/// `log compact`: removes what nobody can ask for any more.
struct LogCompactCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compact",
        abstract: "Remove what nobody can ask for any more, also where history would keep it.",
        discussion: """
            A running system does it by itself when it pays; this asks it to do so now, and waits for \
            the end. Without a running system the store is opened, compacted and closed. Every segment \
            but the one that is written to is compacted: the history of 'log at' and 'explain' then \
            begins later.
            """
    )

    @OptionGroup var place: HomeOptions

    @Option(help: "Seconds to wait for a running system. (default: as long as it takes)")
    var timeout: Seconds?

    @Flag(help: "Print one JSON object.")
    var json = false

    func run() async throws {
        let app = place.app
        let result: LogCompaction
        if try BrokerAddress.home(app.home).absence() == nil {
            result = try await app.compactLog(timeout: timeout?.duration)
        } else {
            let config = try app.config.merging()
            result = try StoppedStore(try place.directories, config).compact()
        }
        report(result)
    }

    private func report(_ result: LogCompaction) {
        guard json else {
            return CommandOutput.print(
                "\(result.bytesBefore) bytes before, \(result.bytesAfter) after"
            )
        }
        var text = JSONText()
        text.object { json in
            json.member("bytesBefore", result.bytesBefore)
            json.member("bytesAfter", result.bytesAfter)
        }
        CommandOutput.print(text.bytes)
    }
}

/// A store that no system serves, with the home's locks held so that none begins to.
private struct StoppedStore {
    private let home: HomeDirectory
    private let config: QueueConfig

    init(_ home: HomeDirectory, _ config: QueueConfig) {
        self.home = home
        self.config = config
    }

    func compact() throws -> LogCompaction {
        _ = try QTasksError.naming(store: home.storePath) { () throws(AppendLogError) in
            try StoreReader(home.storePath)  // opening would make a store where there is none
        }
        let lock = try acquire()
        let result = Result {
            try QTasksError.naming(store: home.storePath) { try compactLocked() }
        }
        extendLifetime(lock)
        return try result.get()
    }

    private func acquire() throws(QTasksError) -> LockFile {
        do throws(ProcessError) {
            return try LockFile.acquire(at: home.lockPath, runID: RunID.make())
        } catch {
            throw QTasksError(.stopping, "the home '\(home.path)' is in use", cause: error)
        }
    }

    private func compactLocked() throws -> LogCompaction {
        let settings = StorageState.Settings(config, directory: home.storePath)
        let space = try? PosixFiles().space(of: home.storePath)
        var store = try OpenedStore(
            settings,
            options: .store(config, space: space),
            keeping: StorageKeeper.Settings(config)
        )
        if let damage = store.log.recovery.firstDamage { throw Self.damaged(damage, home) }
        let bytesBefore = store.log.bytesUsed
        let progress = ProgressLine()
        let problem = store.compactAll { left in progress.show("\(left) segments to go") }
        progress.clear()
        let bytesAfter = store.log.bytesReferred
        try store.log.close()
        switch problem {
        case .damaged(let position): throw Self.damaged(position, home)
        case .noRoom:
            throw QTasksError(
                .storageUnavailable,
                "the disk of '\(home.storePath)' has no room to copy what is alive"
            )
        case nil: return LogCompaction(bytesBefore: bytesBefore, bytesAfter: bytesAfter)
        }
    }

    private static func damaged(_ position: RecordPosition, _ home: HomeDirectory) -> QTasksError {
        QTasksError(
            .damaged,
            "segment \(position.segment) of the store in '\(home.storePath)' is damaged at byte "
                + "\(position.offset), and nothing is compacted; 'log repair' makes a new store"
        )
    }
}
