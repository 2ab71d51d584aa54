// Part of QTasks. License: see LICENSE.

import CZeroMQ

/// How a socket treats messages and connections.
///
/// Applied before it binds or connects.
///
/// High-water marks count whole messages per peer, of whatever size; 0 is no limit. Durations are
/// taken in whole milliseconds. What each option means is on `zmq_setsockopt(3)`.
///
/// Begin with the factory for the socket's role (``router(maxMessageBytes:)``, ``dealer``, ...) and
/// change what differs. An option that the socket's kind does not know makes `Socket.init` throw
/// `EINVAL` with the option's name.
public struct SocketOptions: Sendable {
    /// How long closing keeps trying to deliver.
    ///
    /// Zero, because an answer is what proves delivery, and because a context that waits for a peer
    /// never ends.
    public var linger: Duration = .zero

    /// Messages kept for one peer that does not take them, then ``SendOutcome/wouldBlock``.
    public var sendHighWaterMark = 1000

    /// Messages kept from one peer until they are received; then the peer is no longer read.
    public var receiveHighWaterMark = 1000

    /// The largest frame taken from a peer; a larger one cuts its connection, without a word to
    /// anyone.
    ///
    /// Only for sockets that bind: a connecting one would never connect again.
    public var maxMessageBytes: Int64?

    /// Whether to queue only for connections that are there.
    ///
    /// What was queued for a connection, and what arrived on it unread, goes with it.
    public var immediate = false

    /// Whether to greet the ROUTER at the other end of each new connection with an empty message.
    ///
    /// For DEALER and ROUTER. Needs ``immediate`` to come once per connection.
    public var probeRouter = false

    /// Whether a send to an unknown routing id says so (``SendOutcome/unreachable``) instead of
    /// dropping the message.
    ///
    /// ROUTER only.
    public var routerMandatory = false

    /// Whether a peer may take over another's routing id, and drop its unread messages.
    ///
    /// ROUTER only.
    public var routerHandover = false

    /// The pause before the first try to connect again; libzmq adds a random part as long.
    public var reconnectInterval: Duration = .milliseconds(10)

    /// What doubling the pause between tries ends at.
    public var reconnectIntervalMax: Duration = .milliseconds(200)

    /// How long a new connection may take to speak ZMTP before it is cut and its descriptor freed.
    public var handshakeInterval: Duration = .seconds(3)

    /// Connections that may wait to be accepted.
    ///
    /// See `listen(2)`.
    public var backlog = 4096

    /// Whether every subscription is handed to the application, not only a topic's first.
    ///
    /// XPUB only.
    public var xpubVerbose = false

    /// Whether a subscriber at its high-water mark makes a send fail with
    /// ``SendOutcome/wouldBlock`` instead of missing the message.
    ///
    /// XPUB only.
    public var xpubNoDrop = false

    /// The pause between pings on each connection; `nil` sends none.
    public var heartbeatInterval: Duration?

    /// The silence after which a connection is cut; `nil` is as long as ``heartbeatInterval``.
    public var heartbeatTimeout: Duration?

    /// Encryption; `nil` is plain text.
    public var curve: CurveOptions?

    /// What every role shares.
    public init() {}

    /// Answers many peers: tells of unknown ones, keeps routing ids with their connections.
    ///
    /// It never blocks on a slow peer: the sender bounds what is under way by windows of its own,
    /// since no event tells when one peer of many has room again.
    public static func router(maxMessageBytes: Int64?) -> SocketOptions {
        var options = SocketOptions()
        options.routerMandatory = true
        options.sendHighWaterMark = 0
        options.receiveHighWaterMark = 64
        options.maxMessageBytes = maxMessageBytes
        return options
    }

    /// Talks to one ROUTER; each connection is a session that begins with a probe.
    public static var dealer: SocketOptions {
        var options = SocketOptions()
        options.immediate = true
        options.probeRouter = true
        options.sendHighWaterMark = 0
        options.receiveHighWaterMark = 0
        return options
    }

    /// Hands messages one way while somebody takes them.
    public static var push: SocketOptions {
        var options = SocketOptions()
        options.immediate = true
        return options
    }

    /// Takes messages from many.
    public static func pull(maxMessageBytes: Int64?) -> SocketOptions {
        var options = SocketOptions()
        options.receiveHighWaterMark = 64
        options.maxMessageBytes = maxMessageBytes
        return options
    }

    /// Publishes, and hears of every subscription: also of those that come again after a
    /// reconnect, so that it can tell the subscriber where the stream stands.
    public static var xpub: SocketOptions {
        var options = SocketOptions()
        options.xpubVerbose = true
        return options
    }

    /// Receives what it subscribes to with `Socket.subscribe(_:)`.
    public static var sub: SocketOptions {
        SocketOptions()
    }
}

// ZMQ_ZAP_ENFORCE_DOMAIN: in the header for draft builds only, yet there in every libzmq 4.3.
private let zapEnforceDomain: Int32 = 93

extension SocketOptions {
    /// Sets every option on a socket that is neither bound nor connected.
    func apply(to socket: UnsafeMutableRawPointer) throws(ZeroMQError) {
        let socket = OptionTarget(handle: socket)
        try socket.set(ZMQ_LINGER, "ZMQ_LINGER", to: linger.milliseconds)
        try socket.set(ZMQ_SNDHWM, "ZMQ_SNDHWM", to: Int32(clamping: sendHighWaterMark))
        try socket.set(ZMQ_RCVHWM, "ZMQ_RCVHWM", to: Int32(clamping: receiveHighWaterMark))
        try socket.set(ZMQ_MAXMSGSIZE, "ZMQ_MAXMSGSIZE", to: maxMessageBytes ?? -1)
        try socket.set(ZMQ_BACKLOG, "ZMQ_BACKLOG", to: Int32(clamping: backlog))
        try applyTimes(to: socket)
        try applyFlags(to: socket)
        try applyCurve(to: socket)
    }

    private func applyTimes(to socket: OptionTarget) throws(ZeroMQError) {
        let (first, most) = (reconnectInterval, reconnectIntervalMax)
        try socket.set(ZMQ_RECONNECT_IVL, "ZMQ_RECONNECT_IVL", to: first.milliseconds)
        try socket.set(ZMQ_RECONNECT_IVL_MAX, "ZMQ_RECONNECT_IVL_MAX", to: most.milliseconds)
        try socket.set(ZMQ_HANDSHAKE_IVL, "ZMQ_HANDSHAKE_IVL", to: handshakeInterval.milliseconds)
        if let heartbeatInterval {
            let interval = heartbeatInterval.milliseconds
            let timeout = (heartbeatTimeout ?? heartbeatInterval).milliseconds
            try socket.set(ZMQ_HEARTBEAT_IVL, "ZMQ_HEARTBEAT_IVL", to: interval)
            try socket.set(ZMQ_HEARTBEAT_TIMEOUT, "ZMQ_HEARTBEAT_TIMEOUT", to: timeout)
        }
    }

    /// Sets what is on; off is libzmq's default for each, and most kinds refuse to hear even that.
    private func applyFlags(to socket: OptionTarget) throws(ZeroMQError) {
        try socket.turnOn(ZMQ_IMMEDIATE, "ZMQ_IMMEDIATE", if: immediate)
        try socket.turnOn(ZMQ_PROBE_ROUTER, "ZMQ_PROBE_ROUTER", if: probeRouter)
        try socket.turnOn(ZMQ_ROUTER_MANDATORY, "ZMQ_ROUTER_MANDATORY", if: routerMandatory)
        try socket.turnOn(ZMQ_ROUTER_HANDOVER, "ZMQ_ROUTER_HANDOVER", if: routerHandover)
        try socket.turnOn(ZMQ_XPUB_VERBOSE, "ZMQ_XPUB_VERBOSE", if: xpubVerbose)
        try socket.turnOn(ZMQ_XPUB_NODROP, "ZMQ_XPUB_NODROP", if: xpubNoDrop)
    }

    private func applyCurve(to socket: OptionTarget) throws(ZeroMQError) {
        switch curve {
        case .server(let secretKey, let zapDomain):
            try socket.turnOn(ZMQ_CURVE_SERVER, "ZMQ_CURVE_SERVER", if: true)
            try socket.set(ZMQ_CURVE_SECRETKEY, "ZMQ_CURVE_SECRETKEY", to: secretKey)
            if let zapDomain {
                try socket.set(ZMQ_ZAP_DOMAIN, "ZMQ_ZAP_DOMAIN", to: zapDomain)
                try socket.turnOn(zapEnforceDomain, "ZMQ_ZAP_ENFORCE_DOMAIN", if: true)
            }
        case .client(let keys, let serverKey):
            try socket.set(ZMQ_CURVE_PUBLICKEY, "ZMQ_CURVE_PUBLICKEY", to: keys.publicKey)
            try socket.set(ZMQ_CURVE_SECRETKEY, "ZMQ_CURVE_SECRETKEY", to: keys.secretKey)
            try socket.set(ZMQ_CURVE_SERVERKEY, "ZMQ_CURVE_SERVERKEY", to: serverKey)
        case nil:
            break
        }
    }
}

/// `zmq_setsockopt(3)` for the three types of value that options have.
private struct OptionTarget {
    let handle: UnsafeMutableRawPointer

    func set(_ option: Int32, _ name: String, to value: Int32) throws(ZeroMQError) {
        try check("zmq_setsockopt", about: name) {
            withUnsafeBytes(of: value) { zmq_setsockopt(handle, option, $0.baseAddress, $0.count) }
        }
    }

    func set(_ option: Int32, _ name: String, to value: Int64) throws(ZeroMQError) {
        try check("zmq_setsockopt", about: name) {
            withUnsafeBytes(of: value) { zmq_setsockopt(handle, option, $0.baseAddress, $0.count) }
        }
    }

    func set(_ option: Int32, _ name: String, to value: String) throws(ZeroMQError) {
        try check("zmq_setsockopt", about: name) {
            zmq_setsockopt(handle, option, value, value.utf8.count)
        }
    }

    func turnOn(_ option: Int32, _ name: String, if wanted: Bool) throws(ZeroMQError) {
        if wanted { try set(option, name, to: Int32(1)) }
    }
}

extension Duration {
    /// Whole milliseconds, as libzmq's options count them; what is left over is rounded up, so that
    /// a short time never becomes none.
    fileprivate var milliseconds: Int32 {
        let (seconds, attoseconds) = components
        let attosecondsPerMillisecond: Int64 = 1_000_000_000_000_000
        let rest = (attoseconds + attosecondsPerMillisecond - 1) / attosecondsPerMillisecond
        let (whole, overflow) = seconds.multipliedReportingOverflow(by: 1000)
        return overflow ? .max : Int32(clamping: whole + rest)
    }
}
