// Part of QTasks. License: see LICENSE.

import CZeroMQ
import Glibc

/// The I/O threads of libzmq, and all sockets that go through them.
///
/// A process needs one.
///
/// Each ``Socket`` keeps its context alive. The last reference gone, the context ends its threads;
/// every socket is closed by then and lingers at most as long as its options say, so with the
/// default of zero this takes no noticeable time. See `zmq_ctx_term(3)`.
///
/// Only sockets of one context reach each other over `inproc`.
public final class Context: Sendable {
    // Never changes, and libzmq lets any thread use a context (zmq_ctx_new(3), "Thread safety").
    nonisolated(unsafe) let handle: UnsafeMutableRawPointer

    /// Starts nothing yet: libzmq makes its threads with the first socket.
    ///
    /// - Parameter ioThreads: Threads that move bytes; one carries about 1 GB/s. Zero suffices
    ///   where only `inproc` is used.
    /// - Throws: `EMFILE` where the process has no descriptor left. See `zmq_ctx_new(3)`.
    public init(ioThreads: Int = 1) throws(ZeroMQError) {
        precondition(ioThreads >= 0, "a context has no negative number of threads")
        guard let handle = zmq_ctx_new() else {
            throw ZeroMQError(call: "zmq_ctx_new", subject: nil, code: zmq_errno())
        }
        do {
            try check("zmq_ctx_set", about: "ZMQ_IO_THREADS") {
                zmq_ctx_set(handle, ZMQ_IO_THREADS, Int32(clamping: ioThreads))
            }
        } catch {
            zmq_ctx_term(handle)
            throw error
        }
        self.handle = handle
    }

    deinit {
        // EINTR: a signal came first, and zmq_ctx_term(3) leaves it to us to ask again.
        while zmq_ctx_term(handle) == -1 && zmq_errno() == EINTR {}
    }
}
