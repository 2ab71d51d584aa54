// Part of QTasks. License: see LICENSE.

import Glibc
package import Logging
package import QTasksModel
import QTasksProcess
import Synchronization
package import ZeroMQ

/// A program's connection to a Broker: any number of tasks and threads may call at once.
///
/// Does nothing until the first call, which starts a thread. Calls of one moment travel together.
/// A broken connection is no error: it comes back by itself, and what was unanswered is said again.
package final class ClientConnection: Sendable {
    private enum Life {
        case idle
        case running(ClientInbox)
        case closed
    }

    package let address: BrokerAddress
    private let context: Context?
    private let logger: Logger
    private let life = Mutex(Life.idle)
    private let callNext = Atomic<UInt64>(1)

    /// A connection that isn't open yet.
    ///
    /// `context` is for `inproc` endpoints; otherwise the connection makes its own.
    package init(
        to address: BrokerAddress,
        in context: Context? = nil,
        logger: Logger = Logger(label: "qtasks.client")
    ) {
        self.address = address
        self.context = context
        self.logger = logger
    }

    deinit {
        // without waiting: the last reference may go anywhere
        if let inbox = stop() { try? inbox.post(.stop) }
    }

    /// Asks the Broker, and waits for the answer without holding a thread.
    ///
    /// With `nil` for a timeout it waits as long as it takes.
    ///
    /// - Throws: ``QTasksError``; `CancellationError` where the caller's Swift task was cancelled
    ///   (an add may have been taken by then).
    package func call(_ request: ClientRequest, timeout: Duration?) async throws -> ClientReply {
        try Task.checkCancellation()
        let inbox = try openInbox()
        let number = callNext.wrappingAdd(1, ordering: .relaxed).oldValue
        let deadline = Self.deadline(after: timeout)
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let waiter = Waiter.continuation(continuation)
                do throws(QTasksError) {
                    try inbox.post(.begin(call: number, request, deadline: deadline, waiter))
                } catch {
                    return waiter.resume(.failure(error))
                }
                // cancelled before the call was there to be forgotten
                if Task.isCancelled { try? inbox.post(.forget(call: number)) }
            }
        } onCancel: {
            try? inbox.post(.forget(call: number))
        }
    }

    /// Asks the Broker, and blocks the calling thread until the answer is there.
    ///
    /// Not for Swift's cooperative pool, whose threads must not block.
    package func callBlocking(
        _ request: ClientRequest,
        timeout: Duration?
    ) throws(QTasksError) -> ClientReply {
        let inbox = try openInbox()
        let number = callNext.wrappingAdd(1, ordering: .relaxed).oldValue
        let end = OneShot<Result<ClientReply, any Error>>()
        let deadline = Self.deadline(after: timeout)
        try inbox.post(.begin(call: number, request, deadline: deadline, .thread(end)))
        switch end.wait() {
        case .success(let reply): return reply
        case .failure(let error as QTasksError): throw error
        case .failure(let error):
            throw QTasksError(.internalError, "a call ended without an answer", cause: error)
        }
    }

    /// Ends every call with ``QTasksError/Code/connectionLost``, and the thread.
    ///
    /// Later calls fail. Blocks for the few milliseconds that libzmq needs.
    package func close() {
        guard let inbox = stop() else { return }
        try? inbox.post(.stop)
        _ = inbox.ended.wait()
    }

    private func stop() -> ClientInbox? {
        life.withLock { life in
            defer { life = .closed }
            guard case .running(let inbox) = life else { return nil }
            return inbox
        }
    }

    private func openInbox() throws(QTasksError) -> ClientInbox {
        let inbox = try life.withLock { life throws(QTasksError) in
            switch life {
            case .running(let inbox): return inbox
            case .closed: throw QTasksError(.connectionLost, "the connection was closed")
            case .idle:
                if let absence = address.absence() { throw absence }
                let inbox = try start()
                life = .running(inbox)
                return inbox
            }
        }
        if !inbox.isInSession.load(ordering: .relaxed), let absence = address.absence() {
            throw absence
        }
        return inbox
    }

    private func start() throws(QTasksError) -> ClientInbox {
        let inbox: ClientInbox
        do throws(ZeroMQError) {
            inbox = try ClientInbox()
        } catch {
            throw .failed(address, error)
        }
        // the thread takes this one's mask: signals are for the program's own threads
        var all = sigset_t()
        var before = sigset_t()
        sigfillset(&all)
        pthread_sigmask(SIG_BLOCK, &all, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
        let (address, context, logger) = (address, context, logger)
        do throws(ProcessError) {
            try RoleThread.run("qtasks-client") {
                ClientLoop.run(address, in: context, inbox: inbox, logger: logger)
                inbox.ended.set(true)
            }
        } catch {
            throw QTasksError(.internalError, "no thread for the connection", cause: error)
        }
        return inbox
    }

    private static func deadline(after timeout: Duration?) -> UInt64? {
        guard let timeout else { return nil }
        let parts = timeout.components
        let now = MonotonicClock.nowNanoseconds()
        guard parts.seconds < 1 << 32 else { return nil }
        let nanoseconds = parts.seconds * 1_000_000_000 + parts.attoseconds / 1_000_000_000
        return now + UInt64(max(0, nanoseconds))
    }
}
