// Part of QTasks. License: see LICENSE.

import QTasksModel
import Synchronization
import ZeroMQ

/// Who waits for a call's end.
enum Waiter: Sendable {
    case continuation(CheckedContinuation<ClientReply, any Error>)
    case thread(OneShot<Result<ClientReply, any Error>>)

    func resume(_ result: Result<ClientReply, any Error>) {
        switch self {
        case .continuation(let continuation): continuation.resume(with: result)
        case .thread(let end): end.set(result)
        }
    }
}

/// What callers hand to the loop's thread.
final class ClientInbox: Sendable {
    enum Command: Sendable {
        case begin(call: UInt64, ClientRequest, deadline: UInt64?, Waiter)
        case forget(call: UInt64)
        case stop
    }

    private struct Content {
        var commands: [Command] = []
        /// Why nothing is taken any more.
        var end: QTasksError?
    }

    let doorbell: Doorbell

    /// Whether a Broker is known to be at the other end.
    let isInSession = Atomic(false)

    /// Set when the loop's thread is done with everything.
    let ended = OneShot<Bool>()

    private let content = Mutex(Content())

    init() throws(ZeroMQError) {
        doorbell = try Doorbell()
    }

    /// Any thread.
    ///
    /// - Throws: Why the loop has ended; it then never sees the command.
    func post(_ command: Command) throws(QTasksError) {
        let end = content.withLock { content in
            if content.end == nil { content.commands.append(command) }
            return content.end
        }
        if let end { throw end }
        doorbell.ring()
    }

    /// The loop's thread only.
    func take() -> [Command] {
        content.withLock { content in
            defer { content.commands = [] }
            return content.commands
        }
    }

    /// Takes nothing any more.
    ///
    /// - Returns: What was still in it.
    func close(saying error: QTasksError) -> [Command] {
        content.withLock { content in
            content.end = error
            defer { content.commands = [] }
            return content.commands
        }
    }
}
