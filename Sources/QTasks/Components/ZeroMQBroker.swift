// Part of QTasks. License: see LICENSE.

package import QTasksClient
public import QTasksModel
import QTasksWire

/// The Broker of a system on this host, or at an endpoint: a connection that comes back by itself
/// and says again what was not answered.
///
/// Starts a thread at the first call. Any number of tasks and threads may call at once; what is
/// asked in one moment travels as one message.
public final class ZeroMQBroker: Broker {
    package let connection: ClientConnection

    package init(_ connection: ClientConnection) {
        self.connection = connection
    }

    /// A system at an endpoint, such as `tcp://127.0.0.1:5570`, whether it is there yet or not.
    public init(endpoint: String) {
        connection = ClientConnection(to: .endpoint(endpoint))
    }

    /// The system in a home directory.
    ///
    /// With `waitForSystem` calls wait for a system that isn't running yet; else they fail at once
    /// with ``QTasksError/Code/noSystem``.
    ///
    /// - Throws: ``QTasksError/Code/badHome`` where that can't be a home directory.
    public init(home: String, waitForSystem: Bool = false) throws(QTasksError) {
        connection = ClientConnection(to: try .home(home, waitForSystem: waitForSystem))
    }

    @discardableResult
    public func add(_ tasks: [TaskSubmission], timeout: Duration?) async throws -> [TaskID] {
        let request = ClientRequest.add(try EnvelopeBatch(tasks), wait: false)
        return try Self.check(try await connection.call(request, timeout: timeout))
    }

    public func get(_ id: TaskID, timeout: Duration?) async throws -> TaskRecord? {
        let reply = try await connection.call(.get([id]), timeout: timeout)
        guard case .reports(let reports, _) = reply, let report = reports.first else {
            preconditionFailure("a get is answered with one report")
        }
        switch report {
        case .record(let record): return try record.decoded()
        case .notFound: return nil
        case .failed(let error): throw error
        case .timedOut: throw QTasksError(.timeout, "no word of task \(id) in time")
        }
    }

    public func ends(
        of ids: [TaskID],
        timeout: Duration?
    ) async throws -> [Result<TaskEnd, QTasksError>] {
        Self.ends(in: try await connection.call(.wait(ids), timeout: timeout))
    }

    public func run(
        _ tasks: [TaskSubmission],
        timeout: Duration?
    ) async throws -> [Result<TaskEnd, QTasksError>] {
        let request = ClientRequest.add(try EnvelopeBatch(tasks), wait: true)
        return Self.ends(in: try await connection.call(request, timeout: timeout))
    }

    public func inspect(_ topic: String, timeout: Duration?) async throws -> [UInt8] {
        guard
            case .inspected(let text) = try await connection.call(.inspect(topic), timeout: timeout)
        else { preconditionFailure("an inspect is answered with text") }
        return text
    }

    public func compactLog(timeout: Duration?) async throws -> LogCompaction {
        guard case .compacted(let compacted) = try await connection.call(.compact, timeout: timeout)
        else { preconditionFailure("a compact is answered with what it came to") }
        return LogCompaction(
            bytesBefore: Int(clamping: compacted.bytesBefore),
            bytesAfter: Int(clamping: compacted.bytesAfter)
        )
    }

    public func cancel(
        _ ids: [TaskID],
        reason: String,
        timeout: Duration?
    ) async throws -> [Result<TaskStatus, QTasksError>] {
        try await change(ChangeMessage(.cancel, reason: reason, ids: ids), timeout: timeout)
    }

    public func requeue(
        _ ids: [TaskID],
        timeout: Duration?
    ) async throws -> [Result<TaskStatus, QTasksError>] {
        try await change(ChangeMessage(.requeue, ids: ids), timeout: timeout)
    }

    public func forget(
        _ ids: [TaskID],
        timeout: Duration?
    ) async throws -> [Result<TaskStatus, QTasksError>] {
        try await change(ChangeMessage(.forget, ids: ids), timeout: timeout)
    }

    private func change(
        _ message: ChangeMessage,
        timeout: Duration?
    ) async throws -> [Result<TaskStatus, QTasksError>] {
        guard !message.ids.isEmpty else { return [] }
        guard
            case .changed(let receipts) = try await connection.call(
                .change(message),
                timeout: timeout
            )
        else { preconditionFailure("a change is answered with receipts") }
        var byID: [TaskID: Result<TaskStatus, QTasksError>] = [:]
        for receipt in receipts { byID[receipt.id] = receipt.result(of: message.change) }
        return message.ids.map { id in
            byID[id] ?? .failure(QTasksError(.malformed, "the Broker said nothing of task \(id)"))
        }
    }

    /// Changes a queue's rules, or asks for them by a change of nothing.
    public func change(
        _ queue: String,
        _ change: QueueChange,
        timeout: Duration?
    ) async throws -> QueueRules {
        let message = QueueMessage(queue: queue, change: change)
        guard
            case .queueRules(let rules) = try await connection.call(
                .queue(message),
                timeout: timeout
            )
        else { preconditionFailure("a queue's change is answered with its rules") }
        return rules
    }

    public func restartWorkers(timeout: Duration?) async throws {
        guard case .restarted(let failure) = try await connection.call(.restart, timeout: timeout)
        else { preconditionFailure("a restart is answered with how it went") }
        guard failure.isEmpty else {
            throw QTasksError(.badConfiguration, "the workers were not all replaced: \(failure)")
        }
    }

    public func ping(timeout: Duration?) async throws {
        guard case .pong(let pong) = try await connection.call(.ping, timeout: timeout) else {
            preconditionFailure("a ping is answered with a pong")
        }
        guard pong.isStorageUp else {
            throw QTasksError(
                .storageUnavailable,
                "the Broker of \(connection.address.description) answers, its Storage doesn't"
            )
        }
    }

    /// Ends the connection; calls that are under way fail.
    ///
    /// Blocks for a few milliseconds.
    public func close() {
        connection.close()
    }
}

// MARK: - For threads that may block

extension ZeroMQBroker {
    func addBlocking(
        _ tasks: [TaskSubmission],
        timeout: Duration?
    ) throws(QTasksError) -> [TaskID] {
        let request = ClientRequest.add(try EnvelopeBatch(tasks), wait: false)
        return try Self.check(try connection.callBlocking(request, timeout: timeout))
    }

    func endsBlocking(
        of ids: [TaskID],
        timeout: Duration?
    ) throws(QTasksError) -> [Result<TaskEnd, QTasksError>] {
        Self.ends(in: try connection.callBlocking(.wait(ids), timeout: timeout))
    }
}

// MARK: - What replies mean

extension ZeroMQBroker {
    private static func check(_ reply: ClientReply) throws(QTasksError) -> [TaskID] {
        guard case .added(let ids, let failures) = reply else {
            preconditionFailure("an add is answered with its failures")
        }
        if let first = failures.min(by: { $0.key < $1.key }) { throw first.value }
        return ids
    }

    private static func ends(in reply: ClientReply) -> [Result<TaskEnd, QTasksError>] {
        guard case .reports(let reports, let ids) = reply, reports.count == ids.count else {
            preconditionFailure("a wait is answered with a report for each task")
        }
        return reports.indices.map { end(of: ids[$0], reports[$0]) }
    }

    private static func end(
        of id: TaskID,
        _ report: TaskReport
    ) -> Result<TaskEnd, QTasksError> {
        switch report {
        case .record(let record):
            do throws(QTasksError) {
                return .success(
                    TaskEnd(id: id, status: record.status, outcome: try record.outcome())
                )
            } catch {
                return .failure(error)
            }
        case .notFound:
            return .failure(QTasksError(.notFound, "there is no task \(id), or no longer"))
        case .failed(let error):
            return .failure(error)
        case .timedOut(let last):
            return .failure(.unfinished(id, last))
        }
    }
}

extension QTasksError {
    /// A wait's time is over.
    fileprivate static func unfinished(_ id: TaskID, _ last: RecordBytes?) -> QTasksError {
        guard let record = try? last?.decoded() else {
            return QTasksError(.timeout, "task \(id) has not ended in time; it goes on")
        }
        let why =
            record.isUnroutable
            ? "no connected worker can run '\(record.name)'; it stays queued until one can"
            : "'\(record.name)' has not ended in time; its status is '\(record.status.rawValue)'"
        return QTasksError(
            .timeout,
            "task \(id): \(why)",
            cause: UnfinishedTask(record: record)
        )
    }
}

/// The cause of a ``QTasksError/Code/timeout``: the task as it stood when the time was over.
public struct UnfinishedTask: Error {
    public let record: TaskRecord
}

extension UnfinishedTask: CustomStringConvertible {
    public var description: String {
        "attempt \(record.attempt), status '\(record.status.rawValue)'"
    }
}

extension ChangeReceipt {
    /// What it comes to for whoever asked.
    fileprivate func result(of change: TaskChange) -> Result<TaskStatus, QTasksError> {
        switch (verdict, status) {
        case (.done, let status?): return .success(status)
        case (.notPossible, let status?):
            let message =
                switch change {
                case .cancel: "task \(id) has ended already, as \(status.rawValue)"
                case .requeue:
                    "task \(id) is in status \(status.rawValue): error, dead and cancel can be "
                        + "queued again"
                case .forget:
                    status.isFinal
                        ? "task \(id) is in status \(status.rawValue): only dead ones are forgotten on "
                            + "demand, others once their retention is over (run --retention)"
                        : "task \(id) is in status \(status.rawValue), and only dead ones are forgotten: "
                            + "'cancel' ends it"
                }
            return .failure(QTasksError(.conflict, message))
        case (.refused(let refusal), _):
            return .failure(QTasksError(refusal.code.errorCode, "task \(id): \(refusal.message)"))
        case (.unknown, _), (.done, nil), (.notPossible, nil):
            return .failure(QTasksError(.notFound, "there is no task \(id), or no longer"))
        }
    }
}
