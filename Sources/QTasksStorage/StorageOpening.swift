// Part of QTasks. License: see LICENSE.

import AppendLog
import Logging
import QTasksModel
import QTasksWire

extension StorageLoop {
    /// Opens the store and folds its records; says what it found.
    ///
    /// - Parameters:
    ///   - settings: The store's directory among them.
    ///   - logger: Hears what was found.
    ///   - onProgress: Called on the log's threads.
    /// - Returns: The log, and what follows from its records.
    /// - Throws: Where the store can't be opened; it is then as it was, or was only mended.
    static func open(
        _ settings: StorageState.Settings,
        logger: Logger,
        onProgress: @escaping @Sendable () -> Void
    ) throws(AppendLogError) -> (Log, StorageState) {
        var state = StorageState(settings: settings, now: .current)
        var unreadable = 0
        let options = LogOptions(recordBytesMax: settings.config.maxPayload + 1 << 20)
        let log = try Log.open(
            at: settings.directory,
            options: options,
            onProgress: onProgress
        ) { record in
            let place = StoredPlace(sequence: record.sequence, position: record.position)
            do {
                try state.replay(kind: record.kind, payload: record.payload, at: place)
            } catch {
                unreadable += 1
            }
        }
        report(log, state, unreadable: unreadable, in: settings.directory, to: logger)
        return (log, state)
    }

    private static func report(
        _ log: Log,
        _ state: StorageState,
        unreadable: Int,
        in directory: String,
        to logger: Logger
    ) {
        logger.info(
            "the store is open",
            metadata: [
                "event": "opened", "path": "\(directory)", "incarnation": "\(log.incarnation)",
                "records": "\(log.recovery.records)", "tasks": "\(state.tasks.index.count)",
                "clean": "\(log.recovery.wasClean)",
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
        if unreadable + state.tasks.unknownRecords > 0 {
            logger.error(
                "records of the store make no sense to this version and were left out",
                metadata: [
                    "event": "records unknown",
                    "count": "\(unreadable + state.tasks.unknownRecords)",
                ]
            )
        }
    }
}
