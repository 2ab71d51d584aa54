// Part of QTasks. License: see LICENSE.

import QTasksModel
import Synchronization
import ZeroMQ

/// What callers of a ``ConfigConnection`` leave for its thread.
///
/// Any thread may post.
final class ConfigMailbox: Sendable {
    typealias Completion = @Sendable (Result<ConfigRequests.Answer, QTasksError>) -> Void

    enum Order: Sendable {
        case get(String, deadline: UInt64, then: Completion)
        case set(ConfigEntry, deadline: UInt64, then: Completion)
        case watch(UInt64, String, AsyncStream<ConfigEntry>.Continuation)
        case unwatch(UInt64)

        /// Ends it without having been done.
        func fail(_ error: QTasksError) {
            switch self {
            case .get(_, _, let completion), .set(_, _, let completion):
                completion(.failure(error))
            case .watch(_, _, let continuation): continuation.finish()
            case .unwatch: break
            }
        }
    }

    let doorbell: Doorbell
    private let state = Mutex(State())
    private let watchers = Atomic<UInt64>(0)

    private struct State {
        var orders: [Order] = []
        var end: QTasksError?
    }

    init(doorbell: Doorbell) {
        self.doorbell = doorbell
    }

    func nextWatcher() -> UInt64 {
        watchers.add(1, ordering: .relaxed).newValue
    }

    /// Leaves an order, or fails it where the mailbox is closed.
    func post(_ order: Order) {
        let end = state.withLock { state -> QTasksError? in
            if state.end == nil { state.orders.append(order) }
            return state.end
        }
        if let end { order.fail(end) } else { doorbell.ring() }
    }

    /// Takes no more orders; those that lie here are the thread's to fail.
    ///
    /// The first reason stays.
    func close(_ reason: QTasksError) {
        state.withLock { state in
            if state.end == nil { state.end = reason }
        }
        doorbell.ring()
    }

    /// Fails what still lies in a closed mailbox.
    ///
    /// The thread only.
    ///
    /// - Returns: Why it was closed.
    func failRest() -> QTasksError {
        let (orders, end) = take()
        guard let end else { preconditionFailure("only a closed mailbox has a rest") }
        for order in orders { order.fail(end) }
        return end
    }

    /// Everything that was posted, and why this was the last time, if it was.
    ///
    /// The thread only.
    func take() -> (orders: [Order], end: QTasksError?) {
        state.withLock { state in
            defer { state.orders = [] }
            return (state.orders, state.end)
        }
    }
}
