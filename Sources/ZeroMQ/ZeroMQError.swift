// Part of QTasks. License: see LICENSE.

import CZeroMQ
import Glibc

/// A call to libzmq, or to Linux on its behalf, that failed, and why.
///
/// libzmq reports every failure as an `errno` value; which ones a call may set is listed under
/// ERRORS on its manual page, for example `zmq_msg_send(3)`.
public struct ZeroMQError: Error, Equatable {
    /// The function that failed, as its manual page spells it.
    public let call: String

    /// What the call was about, such as an endpoint or an option; `nil` where the call says it all.
    public let subject: String?

    /// The `errno` value the call set.
    public let code: Int32

    /// Whether the same call may succeed if it is simply made again.
    public var isTransient: Bool {
        code == EAGAIN || code == EINTR
    }

    /// `EAGAIN`: nothing to receive, or no room to send.
    public var isAgain: Bool {
        code == EAGAIN
    }

    /// `EHOSTUNREACH`: a ROUTER knows no peer of that routing id.
    public var isHostUnreachable: Bool {
        code == EHOSTUNREACH
    }

    /// `EADDRINUSE`: another socket has the address.
    ///
    /// Never set for ipc, where the later bind wins.
    public var isAddressInUse: Bool {
        code == EADDRINUSE
    }

    /// `ETERM`: the context is closing; the socket can only be closed too.
    public var isTerminated: Bool {
        code == ETERM
    }
}

extension ZeroMQError: CustomStringConvertible {
    public var description: String {
        let target = subject.map { " '\($0)'" } ?? ""
        return "\(call)\(target): \(String(cString: zmq_strerror(code))) (errno \(code))"
    }
}

/// Makes one call and turns its -1 into an error.
///
/// `errno` is read straight after the call: whatever ran in between could change it.
///
/// - Returns: What the call returned, which is not -1.
/// - Throws: A ``ZeroMQError`` with the `errno` the call set.
@inline(__always)
@discardableResult
func check(
    _ call: String,
    about subject: @autoclosure () -> String? = nil,
    _ body: () -> Int32
) throws(ZeroMQError) -> Int32 {
    let result = body()
    guard result != -1 else {
        let code = zmq_errno()
        throw ZeroMQError(call: call, subject: subject(), code: code)
    }
    return result
}
