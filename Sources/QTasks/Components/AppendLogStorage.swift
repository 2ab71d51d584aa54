// Part of QTasks. License: see LICENSE.

public import QTasksModel
import QTasksProcess
import QTasksWire
import ZeroMQ

/// Storage on the append log, in this process: the same core and the same files as a running
/// system's Storage.
///
/// One directory has one of them at a time. It has a thread of its own, which sleeps while nothing
/// is asked; any task may call anything, and what is asked while a sync runs goes into the next one
/// (group commit). Cancelling a caller doesn't take back what it asked for.
///
/// A lease outlives the process: whoever opens the store again finds the task in `process`, and
/// either its worker's result comes or it is released.
public final class AppendLogStorage: Storage {
    /// The directory of the store.
    public let directory: String

    private let mailbox: StorageMailbox
    private let durability: Durability

    /// Opens the store in `directory`, or makes one there.
    ///
    /// Takes as long as reading the store does.
    ///
    /// - Parameters:
    ///   - directory: In a folder that exists; made with mode 0700 where it isn't there.
    ///   - config: Of which durability, deliveries and the longest payload are heeded.
    /// - Throws: ``QTasksError/Code/badHome`` where another process has it, or where it is no store
    ///   of this version; ``QTasksError/Code/storageUnavailable`` where it can't be read or written.
    public init(
        at directory: String,
        config: QueueConfig = QueueConfig()
    ) async throws(QTasksError) {
        self.directory = directory
        durability = config.durability
        let mailbox: StorageMailbox
        do {
            mailbox = StorageMailbox(directory: directory, doorbell: try Doorbell())
        } catch {
            throw QTasksError(.internalError, "the store can't be opened", cause: error)
        }
        self.mailbox = mailbox
        let opening = await withCheckedContinuation { (opened: StorageMailbox.Answer<Void>) in
            do throws(ProcessError) {
                try RoleThread.run("qtasks-log") {
                    AppendLogStorageLoop.run(mailbox, directory, config, opened: opened)
                }
            } catch {
                let reason = QTasksError(.internalError, "no thread for the store", cause: error)
                opened.resume(returning: .failure(reason))
            }
        }
        try opening.get()
    }

    deinit {
        mailbox.close(nil)
    }

    @discardableResult
    public func add(_ task: TaskSubmission) async throws -> TaskStatus {
        var envelope = WireWriter(reserving: 256 + task.arguments.count)
        try task.write(to: &envelope)
        let bytes = envelope.bytes
        let durability = task.durability ?? durability
        return try await ask { .add(bytes, durability, $0) }
    }

    public func lease(_ id: TaskID, to worker: WorkerID) async throws -> TaskHandover? {
        try await ask { .lease(id, worker, $0) }
    }

    @discardableResult
    public func release(
        _ id: TaskID,
        lease: Lease,
        because reason: ReleaseReason
    ) async throws -> TaskStatus? {
        try await ask { .release(Holding(id: id, lease: lease), reason, $0) }
    }

    public func save(_ result: AttemptResult) async throws -> SaveVerdict {
        try await ask { .save(result, $0) }
    }

    public func record(of id: TaskID) async throws -> TaskRecord? {
        try await ask { .record(id, $0) }
    }

    public func unfinished(
        after sequence: UInt64,
        atMost count: Int
    ) async throws -> [TaskRecord] {
        precondition(count > 0, "a part has at least one task")
        var after = sequence
        while true {
            let places = try await ask { .unfinished(after: after, atMost: count, $0) }
            guard let last = places.last else { return [] }
            var records: [TaskRecord] = []
            for place in places {
                guard let record = try await record(of: place.id) else { continue }
                // it may have ended since
                if !record.status.isFinal { records.append(record) }
            }
            if !records.isEmpty { return records }
            after = last.sequence
        }
    }

    /// Has everything that was asked done, and closes the store; later calls fail with
    /// ``QTasksError/Code/storageUnavailable``.
    ///
    /// Without it the same happens in the background once the last reference is gone.
    ///
    /// - Throws: ``QTasksError/Code/storageUnavailable`` where the last records may not be durable.
    public func close() async throws(QTasksError) {
        try await withCheckedContinuation { mailbox.close($0) }.get()
    }

    private func ask<Value: Sendable>(
        _ order: (StorageMailbox.Answer<Value>) -> StorageMailbox.Order
    ) async throws(QTasksError) -> Value {
        try await withCheckedContinuation { mailbox.post(order($0)) }.get()
    }
}
