// Part of QTasks. License: see LICENSE.

package import AppendLog
package import QTasksModel
package import QTasksWire

/// A store that is open for writing: the log, what follows from its records, and who keeps house.
package struct OpenedStore {
    package let log: Log
    package var state: StorageState
    package var keeper: StorageKeeper

    /// Records that are whole and make no sense; they were left out.
    package let unreadable: Int

    /// Tasks of which a record was durable and is damaged, as far as its bytes still tell.
    package let damaged: [DamagedTask]

    /// A damaged record, and whose it seems to be.
    package struct DamagedTask: Hashable, Sendable {
        package var sequence: UInt64
        package var position: RecordPosition
        /// `nil` where its bytes don't tell.
        package var id: TaskID?
    }

    /// Opens the store and folds what the newest checkpoint and the records behind it tell.
    ///
    /// It blocks for as long as reading takes.
    ///
    /// - Parameters:
    ///   - settings: The store's directory among them.
    ///   - options: The log's.
    ///   - keeping: What the keeper goes by.
    ///   - now: The time of the opening.
    ///   - files: The file layer.
    ///   - driver: Who does the log's work.
    ///   - onProgress: Called on the log's threads.
    ///   - observe: Shown each record that is replayed, for those who check.
    /// - Throws: Where the store can't be opened; it is then as it was, or was only mended.
    package init(
        _ settings: StorageState.Settings,
        options: LogOptions,
        keeping: StorageKeeper.Settings,
        now: Now = .current,
        files: any LogFiles = PosixFiles(),
        driver: LogDriver = .threads,
        onProgress: (@Sendable () -> Void)? = nil,
        observe: ((borrowing RecordView) -> Void)? = nil
    ) throws(AppendLogError) {
        var state = StorageState(settings: settings, now: now)
        var reading = CheckpointReading()
        var unreadable = 0
        var damaged: [DamagedTask] = []
        let listener = LogListener(
            restore: { part in
                if case .begin = part { unreadable = 0 }
                return state.restore(part, &reading)
            },
            damaged: { damaged.append(DamagedTask($0)) },
            prepare: { kind, payload in
                if let id = StoredKind(rawValue: kind)?.taskID(in: payload) {
                    state.tasks.index.prefetch(id)
                }
            },
            knows: { StoredKind(rawValue: $0) != nil || $0 >= StoredKind.firstIgnorable },
            replay: { record in
                observe?(record)
                do {
                    try state.replay(record)
                } catch {
                    unreadable += 1
                }
            }
        )
        log = try Log.open(
            at: settings.directory,
            options: options,
            files: files,
            driver: driver,
            onProgress: onProgress,
            listener: listener
        )
        log.stamp = UInt64(clamping: state.tasks.latest.nanoseconds)
        state.opened()
        self.state = state
        keeper = StorageKeeper(settings: keeping)
        self.unreadable = unreadable
        self.damaged = damaged
    }
}

extension OpenedStore.DamagedTask {
    package init(_ record: borrowing RecordView) {
        sequence = record.sequence
        position = record.position
        id = StoredKind(rawValue: record.kind).flatMap { $0.taskID(in: record.payload) }
    }
}

extension StoredKind {
    /// The task that a record of this kind speaks of, read from the one place where its ID lies: also
    /// from a record that is damaged elsewhere.
    package func taskID(in payload: UnsafeRawBufferPointer) -> TaskID? {
        var reader = WireReader(payload)
        switch self {
        case .lease, .release, .requeue, .evidence, .expire: _ = try? reader.raw(8, "time")
        case .stale: _ = try? reader.raw(24, "time and worker")
        case .finish, .cancel:
            guard let finish = try? StoredFinish(from: &reader) else { return nil }
            return finish.result.id
        case .add, .carried:
            guard (try? reader.raw(8, "time")) != nil, let flags = try? reader.u8("flags") else {
                return nil
            }
            let bytes = (flags & 1 == 0 ? 0 : 32) + (flags & 4 == 0 ? 0 : 4) + 4
            guard (try? reader.raw(bytes, "due, interval and byte count")) != nil else {
                return nil
            }
        case .worker, .queue: return nil
        }
        return try? reader.id("task ID")
    }
}

extension StorageState {
    /// One record of the log, at opening.
    ///
    /// - Throws: Where its bytes are not what its kind has; it is then left out.
    package mutating func replay(_ record: borrowing RecordView) throws(WireError) {
        let place = StoredPlace(
            sequence: record.sequence,
            position: record.position,
            bytes: record.bytesOnDisk
        )
        try replay(
            kind: record.kind,
            payload: record.payload,
            at: place,
            isCopy: record.source != nil
        )
    }
}

extension LogOptions {
    /// The sizes of a system's store.
    ///
    /// A small file system, or a small quota, gets small segments.
    ///
    /// - Parameters:
    ///   - config: The system's settings.
    ///   - space: What the file system has.
    /// - Returns: Sizes with room for the longest payload.
    package static func store(_ config: QueueConfig, space: LogFileSystemSpace?) -> LogOptions {
        let record = config.maxPayload + 1 << 20
        let least = record + 1 << 20
        let room = [space?.totalBytes, config.quota].compactMap { $0 }.min() ?? .max
        var options = LogOptions(
            segmentBytes: max(least, min(64 << 20, room / 16)),
            recordBytesMax: record
        )
        options.quotaBytes = config.quota
        options.freeShare = 0.05
        return options
    }
}
