// Part of QTasks. License: see LICENSE.
//
// Sending never waits, and a message of several frames is one call: between two frames nothing else
// may be sent, and what follows a refused first frame would be read as a new message that
// begins with its routing id.

import CZeroMQ
import Glibc

/// What became of a message that was to be sent.
///
/// Never an acknowledgement: a message that was ``sent`` is with libzmq, and goes with its
/// connection.
public enum SendOutcome: Sendable, Equatable {
    /// libzmq has it.
    case sent

    /// `EAGAIN`: nobody is connected, or all who are have no room. Nothing was sent.
    case wouldBlock

    /// `EHOSTUNREACH`: no connection has that routing id. Nothing was sent. Only a ROUTER with
    /// ``SocketOptions/routerMandatory`` tells.
    case unreachable

    /// The connection ended between two frames, and the message with it. The next one is intact.
    /// A ROUTER does not notice and says ``sent``.
    case broken
}

/// A frame that is sent without being copied.
public struct LentFrame: Sendable {
    let lent: LentBytes

    /// - Parameters:
    ///   - bytes: What is sent.
    ///   - whenReturned: Called once libzmq is done with them, sent or not, on any thread.
    public init(_ bytes: [UInt8], whenReturned: (@Sendable () -> Void)? = nil) {
        lent = LentBytes(.array(bytes), whenReturned)
    }

    /// A part of a frame that was received.
    public init(_ received: ReceivedBytes, _ range: Range<Int>) {
        lent = LentBytes(.received(received, range), nil)
    }
}

extension Socket {
    /// From this size on libzmq reads an array in place instead of copying it.
    ///
    /// Measured: copying 4 KiB costs what lending does, about 0.5 us; 64 KiB costs four times that.
    static let lentBytesMin = 4096

    /// Sends a message of one frame.
    ///
    /// A large array is not copied: libzmq holds it until it is out.
    ///
    /// - Throws: `ETERM` once the context is closing; `ENOTSUP` on a socket that only receives. See
    ///   `zmq_msg_send(3)`. The same holds for the other sends.
    @discardableResult
    public borrowing func send(_ bytes: [UInt8]) throws(ZeroMQError) -> SendOutcome {
        try outcome(ofFirst: sendFrame(bytes, more: false))
    }

    /// Sends a copy of `bytes` as a message of one frame.
    @discardableResult
    public borrowing func send(
        _ bytes: UnsafeRawBufferPointer
    ) throws(ZeroMQError) -> SendOutcome {
        try outcome(ofFirst: sendCopy(of: bytes, more: false))
    }

    /// Sends one message of one or more frames.
    ///
    /// Large ones are not copied.
    @discardableResult
    public borrowing func send(frames: [[UInt8]]) throws(ZeroMQError) -> SendOutcome {
        precondition(!frames.isEmpty, "a message has at least one frame")
        let first = try outcome(ofFirst: sendFrame(frames[0], more: frames.count > 1))
        return first == .sent ? sendRest(frames[1...]) : first
    }

    /// Sends one frame to one of a ROUTER's peers.
    ///
    /// A large array is not copied.
    @discardableResult
    public borrowing func send(
        _ bytes: [UInt8],
        to peer: RoutingID
    ) throws(ZeroMQError) -> SendOutcome {
        let first = try address(peer)
        guard first == .sent else { return first }
        return sendFrame(bytes, more: false) == 0 ? .sent : .broken
    }

    /// Sends a copy of `bytes` as one frame to one of a ROUTER's peers.
    @discardableResult
    public borrowing func send(
        _ bytes: UnsafeRawBufferPointer,
        to peer: RoutingID
    ) throws(ZeroMQError) -> SendOutcome {
        let first = try address(peer)
        guard first == .sent else { return first }
        return sendCopy(of: bytes, more: false) == 0 ? .sent : .broken
    }

    /// Sends one message of one or more frames to one of a ROUTER's peers.
    ///
    /// Large ones are not copied.
    @discardableResult
    public borrowing func send(
        frames: [[UInt8]],
        to peer: RoutingID
    ) throws(ZeroMQError) -> SendOutcome {
        precondition(!frames.isEmpty, "a message to a peer has at least one frame")
        let first = try address(peer)
        return first == .sent ? sendRest(frames[...]) : first
    }
}

extension Socket {
    /// Sends a message of two frames, the second without copying it.
    @discardableResult
    public borrowing func send(
        _ bytes: [UInt8],
        with frame: LentFrame
    ) throws(ZeroMQError) -> SendOutcome {
        let first = try outcome(ofFirst: sendFrame(bytes, more: true))
        guard first == .sent else { return first }
        return send(lent: frame.lent, more: false) == 0 ? .sent : .broken
    }

    /// Sends one frame to one of a ROUTER's peers, without copying it.
    @discardableResult
    public borrowing func send(
        _ frame: LentFrame,
        to peer: RoutingID
    ) throws(ZeroMQError) -> SendOutcome {
        let first = try address(peer)
        guard first == .sent else { return first }
        return send(lent: frame.lent, more: false) == 0 ? .sent : .broken
    }
}

extension Socket {
    private func address(_ peer: RoutingID) throws(ZeroMQError) -> SendOutcome {
        try outcome(ofFirst: peer.withBytes { sendCopy(of: $0, more: true) })
    }

    /// Sends the frames behind an accepted first one.
    ///
    /// All of them, also after a failure: a DEALER or PUSH whose connection ended half-way drops
    /// frames up to the next message's start, and would drop the next message if this one never
    /// ended (`lb.cpp`, `_dropping`).
    func sendRest(_ frames: ArraySlice<[UInt8]>) -> SendOutcome {
        var outcome = SendOutcome.sent
        for index in frames.indices {
            let isLast = index == frames.endIndex - 1
            if sendFrame(frames[index], more: !isLast) != 0 { outcome = .broken }
        }
        return outcome
    }

    private func outcome(ofFirst code: Int32) throws(ZeroMQError) -> SendOutcome {
        switch code {
        case 0: return .sent
        case EAGAIN: return .wouldBlock
        case EHOSTUNREACH: return .unreachable
        default: throw ZeroMQError(call: "zmq_msg_send", subject: "\(kind)", code: code)
        }
    }

    /// - Returns: 0, or the `errno` of `zmq_msg_send(3)`; so do those below.
    func sendFrame(_ bytes: [UInt8], more: Bool) -> Int32 {
        if bytes.count >= Self.lentBytesMin {
            return send(lent: LentBytes(.array(bytes), nil), more: more)
        }
        return bytes.withUnsafeBytes { sendCopy(of: $0, more: more) }
    }

    private func sendCopy(of bytes: UnsafeRawBufferPointer, more: Bool) -> Int32 {
        var message = zmq_msg_t()
        return withUnsafeMutablePointer(to: &message) { message in
            guard zmq_msg_init_size(message, bytes.count) == 0 else {
                preconditionFailure("no memory left for a message")
            }
            if let start = bytes.baseAddress {
                memcpy(zmq_msg_data(message), start, bytes.count)
            }
            return transmit(message, more: more)
        }
    }

    func send(lent: LentBytes, more: Bool) -> Int32 {
        let (start, count) = lent.place
        let giveBack: @convention(c) (UnsafeMutableRawPointer?, UnsafeMutableRawPointer?) -> Void =
            {
                guard let lent = $1 else { return }
                Unmanaged<LentBytes>.fromOpaque(lent).release()
            }
        var message = zmq_msg_t()
        return withUnsafeMutablePointer(to: &message) { message in
            let made = zmq_msg_init_data(
                message,
                UnsafeMutableRawPointer(mutating: start),
                count,
                giveBack,
                Unmanaged.passRetained(lent).toOpaque()
            )
            guard made == 0 else { preconditionFailure("no memory left for a message") }
            return transmit(message, more: more)
        }
    }

    private func transmit(_ message: UnsafeMutablePointer<zmq_msg_t>, more: Bool) -> Int32 {
        let flags = more ? ZMQ_DONTWAIT | ZMQ_SNDMORE : ZMQ_DONTWAIT
        while zmq_msg_send(message, handle, flags) == -1 {
            let code = zmq_errno()
            // EINTR: a signal came first, and zmq_msg_send(3) leaves it to us to ask again.
            if code == EINTR { continue }
            zmq_msg_close(message)
            return code
        }
        return 0
    }
}

/// Bytes that libzmq reads in place, and gives back on one of its own threads.
final class LentBytes: Sendable {
    enum Owner: Sendable {
        case array([UInt8])
        case received(ReceivedBytes, Range<Int>)
    }

    private let owner: Owner
    private let whenReturned: (@Sendable () -> Void)?

    init(_ owner: Owner, _ whenReturned: (@Sendable () -> Void)?) {
        self.owner = owner
        self.whenReturned = whenReturned
    }

    convenience init(_ bytes: [UInt8]) {
        self.init(.array(bytes), nil)
    }

    deinit {
        whenReturned?()
    }

    /// The address outlives the closure: an array's buffer does not move while this holds it, and
    /// nobody writes to a buffer that somebody else holds.
    ///
    /// libzmq only reads.
    var place: (start: UnsafeRawPointer?, count: Int) {
        switch owner {
        case .array(let bytes): bytes.withUnsafeBytes { ($0.baseAddress, $0.count) }
        case .received(let received, let range):
            (received.bytes.baseAddress.map { $0 + range.lowerBound }, range.count)
        }
    }
}
