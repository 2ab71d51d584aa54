// Part of QTasks. License: see LICENSE.

import CZeroMQ
import Synchronization

/// One end of a ZeroMQ pattern.
///
/// libzmq forbids using a socket from two threads at once. The type is noncopyable and not
/// `Sendable`, so the compiler holds that rule: whoever owns the value owns the thread of use.
/// Nothing here waits: ``PollLoop`` does.
public struct Socket: ~Copyable {
    /// The patterns, each with libzmq's own number for it.
    public enum Kind: Int32, Sendable {
        case pair = 0  // ZMQ_PAIR
        case pub = 1  // ZMQ_PUB
        case sub = 2  // ZMQ_SUB
        case dealer = 5  // ZMQ_DEALER
        case router = 6  // ZMQ_ROUTER
        case pull = 7  // ZMQ_PULL
        case push = 8  // ZMQ_PUSH
        case xpub = 9  // ZMQ_XPUB
    }

    public let kind: Kind

    let handle: UnsafeMutableRawPointer

    /// Told from every other socket's, also where libzmq uses a handle again.
    private let number: UInt64
    private static let numbers = Atomic<UInt64>(0)
    private let bindsOnly: Bool
    private let context: Context  // keeps the context alive: zmq_ctx_term waits for this socket

    /// Opens a socket that is neither bound nor connected.
    ///
    /// - Throws: `EMFILE` past the context's socket limit (1023); `EINVAL` with the option's name
    ///   where this kind does not know it or the value is not one. See `zmq_socket(3)`.
    public init(_ kind: Kind, in context: Context, options: SocketOptions) throws(ZeroMQError) {
        guard let handle = zmq_socket(context.handle, kind.rawValue) else {
            throw ZeroMQError(call: "zmq_socket", subject: "\(kind)", code: zmq_errno())
        }
        do {
            try options.apply(to: handle)
        } catch {
            zmq_close(handle)
            throw error
        }
        self.kind = kind
        self.handle = handle
        number = Self.numbers.add(1, ordering: .relaxed).newValue
        self.context = context
        bindsOnly = options.maxMessageBytes != nil
    }

    deinit {
        zmq_close(handle)
    }

    /// Accepts connections on `endpoint`, such as `tcp://127.0.0.1:*` or `ipc:///run/q.sock`.
    ///
    /// An ipc path that another socket holds is silently taken over, and the file stays when the
    /// socket is closed: whoever binds holds a lock first and removes the file himself.
    ///
    /// - Throws: `EADDRINUSE` where another socket has the address, `EINVAL` where it is not one.
    ///   See `zmq_bind(3)`.
    public borrowing func bind(to endpoint: String) throws(ZeroMQError) {
        try check("zmq_bind", about: endpoint) { zmq_bind(handle, endpoint) }
    }

    /// Keeps a connection to `endpoint`, from now on and also when nobody is there yet.
    ///
    /// The options must not limit the size of messages: a connecting socket that meets a larger one
    /// gives up its connection for ever.
    ///
    /// - Throws: `EINVAL` where `endpoint` is not one. See `zmq_connect(3)`.
    public borrowing func connect(to endpoint: String) throws(ZeroMQError) {
        precondition(!bindsOnly, "maxMessageBytes is for sockets that bind")
        try check("zmq_connect", about: endpoint) { zmq_connect(handle, endpoint) }
    }

    /// Stops accepting on `endpoint`, and cuts what it has accepted there.
    ///
    /// - Throws: `ENOENT` where it was not bound to it. See `zmq_unbind(3)`.
    public borrowing func unbind(from endpoint: String) throws(ZeroMQError) {
        try check("zmq_unbind", about: endpoint) { zmq_unbind(handle, endpoint) }
    }

    /// Gives up the connection to `endpoint`.
    ///
    /// - Throws: `ENOENT` where it was not connected to it. See `zmq_disconnect(3)`.
    public borrowing func disconnect(from endpoint: String) throws(ZeroMQError) {
        try check("zmq_disconnect", about: endpoint) { zmq_disconnect(handle, endpoint) }
    }

    /// Asks for messages that begin with `prefix`; the empty one asks for all.
    ///
    /// SUB only.
    ///
    /// - Throws: `EINVAL` on another kind of socket.
    public borrowing func subscribe(_ prefix: [UInt8]) throws(ZeroMQError) {
        try check("zmq_setsockopt", about: "ZMQ_SUBSCRIBE") {
            zmq_setsockopt(handle, ZMQ_SUBSCRIBE, prefix, prefix.count)
        }
    }

    /// Takes back one ``subscribe(_:)`` with the same prefix.
    ///
    /// - Throws: `EINVAL` on another kind of socket.
    public borrowing func unsubscribe(_ prefix: [UInt8]) throws(ZeroMQError) {
        try check("zmq_setsockopt", about: "ZMQ_UNSUBSCRIBE") {
            zmq_setsockopt(handle, ZMQ_UNSUBSCRIBE, prefix, prefix.count)
        }
    }

    /// Where the last ``bind(to:)`` or ``connect(to:)`` led, wildcards filled in; empty before.
    public var lastEndpoint: String {
        get throws(ZeroMQError) {
            var text = [UInt8](repeating: 0, count: 512)
            var count = text.count
            try check("zmq_getsockopt", about: "ZMQ_LAST_ENDPOINT") {
                zmq_getsockopt(handle, ZMQ_LAST_ENDPOINT, &text, &count)
            }
            return String(decoding: text.prefix(count).prefix { $0 != 0 }, as: UTF8.self)
        }
    }

    /// The socket as ``PollLoop`` knows it.
    ///
    /// Owns nothing: must not outlive the socket.
    public var pollItem: PollItem {
        var descriptor: Int32 = -1
        var bytes = MemoryLayout<Int32>.size
        guard zmq_getsockopt(handle, ZMQ_FD, &descriptor, &bytes) == 0 else {
            preconditionFailure("every socket has a ZMQ_FD")
        }
        return PollItem(
            handle: handle,
            number: number,
            descriptor: descriptor,
            events: Int16(ZMQ_POLLIN)
        )
    }
}
