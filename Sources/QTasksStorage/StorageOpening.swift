// Part of QTasks. License: see LICENSE.

import AppendLog
import Logging
import QTasksModel
import QTasksWire

extension StorageLoop {
    /// Opens the store; says what it found.
    ///
    /// - Parameters:
    ///   - settings: The store's directory among them.
    ///   - logger: Hears what was found.
    ///   - onProgress: Called on the log's threads.
    /// - Returns: The log, what follows from its records, and who keeps house.
    /// - Throws: Where the store can't be opened; it is then as it was, or was only mended.
    static func open(
        _ settings: StorageState.Settings,
        logger: Logger,
        onProgress: @escaping @Sendable () -> Void
    ) throws(AppendLogError) -> OpenedStore {
        let space = try? PosixFiles().space(of: settings.directory)
        let store = try OpenedStore(
            settings,
            options: .store(settings.config, space: space),
            keeping: StorageKeeper.Settings(settings.config),
            onProgress: onProgress
        )
        report(store, in: settings.directory, to: logger)
        return store
    }

    private static func report(
        _ store: OpenedStore,
        in directory: String,
        to logger: Logger
    ) {
        let log = store.log
        logger.info(
            "the store is open",
            metadata: [
                "event": "opened", "path": "\(directory)", "incarnation": "\(log.incarnation)",
                "records": "\(log.recovery.records)",
                "checkpoint": "\(log.recovery.checkpoint.map { "\($0)" } ?? "none")",
                "tasks": "\(store.state.tasks.index.count)", "clean": "\(log.recovery.wasClean)",
            ]
        )
        if log.isInMemory {
            logger.warning(
                "the store is on a file system in memory: nothing survives a loss of power",
                metadata: ["event": "in memory", "path": "\(directory)"]
            )
        }
        for lost in log.recovery.lost {
            logger.error(
                "records of the store are damaged; everything else is there",
                metadata: [
                    "event": "records lost", "path": "\(directory)",
                    "sequences": "\(lost.sequences)",
                ]
            )
        }
        for bytes in log.recovery.damaged {
            logger.error(
                "bytes of the store are damaged, and may have held a task",
                metadata: [
                    "event": "bytes damaged", "path": "\(directory)",
                    "segment": "\(bytes.position.segment)",
                    "offset": "\(bytes.position.offset)", "bytes": "\(bytes.bytes)",
                ]
            )
        }
        for record in store.damaged {
            guard let id = record.id else { continue }
            logger.error(
                "a record of a task is damaged; 'log repair' may read it",
                metadata: [
                    "event": "record damaged", "task": "\(id)", "sequence": "\(record.sequence)",
                ]
            )
        }
        let unknown = store.unreadable + store.state.tasks.unknownRecords
        if unknown > 0 {
            logger.error(
                "records of the store make no sense to this version and were left out",
                metadata: [
                    "event": "records unknown",
                    "count": "\(unknown)",
                ]
            )
        }
    }
}
