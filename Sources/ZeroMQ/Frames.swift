// Part of QTasks. License: see LICENSE.

import CZeroMQ
import Glibc

/// The frames of one received message.
///
/// One value is filled again and again.
///
/// What it holds must be read or copied in the turn of the loop that received it: the bytes lie in
/// libzmq's receive arena, and a message of 100 bytes, kept, keeps 8 KiB with it.
///
/// Memory is bounded: of a message with more frames than there is room for, the further ones are
/// dropped and ``overflowed`` is true.
public struct Frames: ~Copyable {
    /// The frames that are there; zero before the first receive, and after one that found nothing.
    public private(set) var count = 0

    /// Whether the message had more frames than ``capacity``.
    public private(set) var overflowed = false

    /// The frames there is room for.
    public let capacity: Int

    // `capacity` messages and one more for what overflows. All are initialised at all times; those
    // from `count` on are empty.
    private let messages: UnsafeMutablePointer<zmq_msg_t>

    /// - Parameter capacity: Frames to make room for, 64 bytes each; at least 1.
    public init(capacity: Int = 8) {
        precondition(capacity >= 1, "a message has at least one frame")
        self.capacity = capacity
        messages = .allocate(capacity: capacity + 1)
        messages.initialize(repeating: zmq_msg_t(), count: capacity + 1)
        for index in 0...capacity {
            zmq_msg_init(messages + index)
        }
    }

    deinit {
        for index in 0...capacity {
            zmq_msg_close(messages + index)
        }
        messages.deallocate()
    }

    /// Lends the bytes of one frame for the time of the call.
    @inlinable
    public borrowing func withBytes<Result, Failure: Error>(
        at index: Int,
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try body(rawBytes(at: index))
    }

    /// A copy of one frame.
    public borrowing func bytes(at index: Int) -> [UInt8] {
        Array(rawBytes(at: index))
    }

    public borrowing func isEmpty(at index: Int) -> Bool {
        rawBytes(at: index).isEmpty
    }

    /// One frame for longer than its turn, without a copy: it is shared with libzmq.
    ///
    /// For large ones that are passed on; a small one keeps the 8 KiB with it that it came in.
    public borrowing func keep(at index: Int) -> ReceivedBytes {
        precondition(index >= 0 && index < count, "the message has no such frame")
        return ReceivedBytes(sharing: messages + index)
    }

    /// One frame as a routing id: on a ROUTER the first frame is always one.
    public borrowing func routingID(at index: Int) -> RoutingID {
        RoutingID(rawBytes(at: index))
    }

    /// libzmq's descriptor of the connection that brought the message; `nil` over `inproc`, and
    /// while the frames are empty.
    ///
    /// It is libzmq's to close, at any moment: ask it who the peer is, at once, and keep the
    /// answer, not the number. See `ZMQ_SRCFD` on `zmq_msg_get(3)`.
    public var sourceDescriptor: Int32? {
        guard count > 0 else { return nil }
        let descriptor = zmq_msg_get(messages + (count - 1), ZMQ_SRCFD)
        return descriptor == -1 ? nil : descriptor
    }

    /// Gives the frames' memory back to libzmq.
    public mutating func clear() {
        for index in 0..<count {
            release(messages + index)
        }
        count = 0
        overflowed = false
    }

    /// The bytes of one frame, valid until the frames are cleared or filled again.
    @usableFromInline
    borrowing func rawBytes(at index: Int) -> UnsafeRawBufferPointer {
        precondition(index >= 0 && index < count, "the message has no such frame")
        let message = messages + index
        return UnsafeRawBufferPointer(start: zmq_msg_data(message), count: zmq_msg_size(message))
    }

    /// Fills itself with the next message, if there is one.
    fileprivate mutating func receive(
        from socket: borrowing Socket
    ) throws(ZeroMQError) -> Bool {
        clear()
        guard try receiveFrame(into: messages, from: socket) else { return false }
        count = 1
        var last = messages
        while zmq_msg_more(last) != 0 {
            last = messages + count  // at `capacity` the spare one, filled over and over
            guard try receiveFrame(into: last, from: socket) else {
                preconditionFailure("libzmq hands out a message when all of its frames are there")
            }
            if count < capacity { count += 1 } else { overflowed = true }
        }
        if overflowed { release(messages + capacity) }
        return true
    }

    /// - Returns: False where there is nothing to receive.
    private func receiveFrame(
        into message: UnsafeMutablePointer<zmq_msg_t>,
        from socket: borrowing Socket
    ) throws(ZeroMQError) -> Bool {
        while zmq_msg_recv(message, socket.handle, ZMQ_DONTWAIT) == -1 {
            let code = zmq_errno()
            switch code {
            case EAGAIN: return false
            case EINTR: continue
            default:
                throw ZeroMQError(call: "zmq_msg_recv", subject: "\(socket.kind)", code: code)
            }
        }
        return true
    }

    private func release(_ message: UnsafeMutablePointer<zmq_msg_t>) {
        zmq_msg_close(message)
        zmq_msg_init(message)
    }
}

/// A received frame that lives on: libzmq counts who holds its bytes.
public final class ReceivedBytes {
    public let bytes: UnsafeRawBufferPointer
    private let message: UnsafeMutablePointer<zmq_msg_t>

    fileprivate init(sharing source: UnsafeMutablePointer<zmq_msg_t>) {
        message = .allocate(capacity: 1)
        message.initialize(to: zmq_msg_t())
        zmq_msg_init(message)
        guard zmq_msg_copy(message, source) == 0 else {
            preconditionFailure("a message that was received can be shared")
        }
        bytes = UnsafeRawBufferPointer(start: zmq_msg_data(message), count: zmq_msg_size(message))
    }

    deinit {
        zmq_msg_close(message)
        message.deallocate()
    }
}

// The bytes are only read; zmq_msg_close(3) counts atomically, on whatever thread it is called.
extension ReceivedBytes: @unchecked Sendable {}

extension Socket {
    /// Takes the next whole message, if one is there.
    ///
    /// Never waits.
    ///
    /// - Parameter frames: What held the message before, and now holds this one; empty where there
    ///   was none.
    /// - Returns: Whether there was a message.
    /// - Throws: `ETERM` once the context is closing; `ENOTSUP` on a socket that only sends.
    ///   See `zmq_msg_recv(3)`.
    public borrowing func receive(into frames: inout Frames) throws(ZeroMQError) -> Bool {
        try frames.receive(from: self)
    }
}
