// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire
import Synchronization
import ZeroMQ

/// What callers of an ``AppendLogStorage`` leave for its thread.
///
/// Any thread may post.
final class StorageMailbox: Sendable {
    /// Who waits for one answer.
    typealias Answer<Value: Sendable> = CheckedContinuation<Result<Value, QTasksError>, Never>

    /// A task's ID and its place in line.
    struct Place: Sendable {
        var id: TaskID
        var sequence: UInt64
    }

    enum Order: Sendable {
        case add([UInt8], Durability, Answer<TaskStatus>)
        case lease(TaskID, WorkerID, Answer<TaskHandover?>)
        case release(Holding, ReleaseReason, Answer<TaskStatus?>)
        case save(AttemptResult, Answer<SaveVerdict>)
        case record(TaskID, Answer<TaskRecord?>)
        case unfinished(after: UInt64, atMost: Int, Answer<[Place]>)

        /// Ends it without having been done.
        func fail(_ error: QTasksError) {
            switch self {
            case .add(_, _, let answer): answer.resume(returning: .failure(error))
            case .lease(_, _, let answer): answer.resume(returning: .failure(error))
            case .release(_, _, let answer): answer.resume(returning: .failure(error))
            case .save(_, let answer): answer.resume(returning: .failure(error))
            case .record(_, let answer): answer.resume(returning: .failure(error))
            case .unfinished(_, _, let answer): answer.resume(returning: .failure(error))
            }
        }
    }

    let doorbell: Doorbell
    private let directory: String
    private let state = Mutex(State())

    private struct State {
        var orders: [Order] = []
        var isClosed = false
        var closers: [Answer<Void>] = []
        /// What came of the end, once the thread is through.
        var end: Result<Void, QTasksError>?
    }

    init(directory: String, doorbell: Doorbell) {
        self.directory = directory
        self.doorbell = doorbell
    }

    /// What calls fail with after the end.
    var closed: QTasksError {
        QTasksError(.storageUnavailable, "the store at \(directory) was closed")
    }

    /// Leaves an order, or fails it where the mailbox is closed.
    func post(_ order: Order) {
        let isTaken = state.withLock { state in
            if !state.isClosed { state.orders.append(order) }
            return !state.isClosed
        }
        if isTaken { doorbell.ring() } else { order.fail(closed) }
    }

    /// Takes no more orders; `closer` is answered once the store is closed.
    func close(_ closer: Answer<Void>?) {
        let end = state.withLock { state in
            state.isClosed = true
            if state.end == nil, let closer { state.closers.append(closer) }
            return state.end
        }
        if let end { closer?.resume(returning: end) }
        doorbell.ring()
    }

    /// Everything that was posted, and whether nothing will follow.
    ///
    /// The thread only.
    func take() -> (orders: [Order], isClosed: Bool) {
        state.withLock { state in
            defer { state.orders = [] }
            return (state.orders, state.isClosed)
        }
    }

    /// The thread's last word: fails what still lies here, and answers who waits for the end.
    func ended(_ end: Result<Void, QTasksError>) {
        let (orders, closers) = state.withLock { state in
            state.isClosed = true
            state.end = end
            defer {
                state.orders = []
                state.closers = []
            }
            return (state.orders, state.closers)
        }
        var reason = closed
        if case .failure(let error) = end { reason = error }
        for order in orders { order.fail(reason) }
        for closer in closers { closer.resume(returning: end) }
    }
}
