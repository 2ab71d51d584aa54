// Part of QTasks. License: see LICENSE.

import Glibc

/// What this module could not get from the kernel, and what to do about it.
package enum ProcessError: Error, Sendable, Equatable {
    /// A system call failed: its name as on its manual page, what it was about, and `errno`.
    case system(call: String, subject: String, code: Int32)

    /// Another run holds the lock at `path`; `pid` is the holder's, where it could be told.
    case homeInUse(path: String, pid: Int32?)

    /// `path` can't serve as a home or as part of one: why, and what would make it usable.
    case unusableHome(path: String, reason: String, remedy: String)

    /// The variables that hand a role to this process make no sense.
    case badHandover(String)

    /// Takes `errno` as the call that has just failed left it.
    static func last(_ call: String, _ subject: String) -> ProcessError {
        .system(call: call, subject: subject, code: errno)
    }
}

extension ProcessError: CustomStringConvertible {
    package var description: String {
        switch self {
        case .system(let call, let subject, let code):
            "\(call) '\(subject)': \(String(cString: strerror(code))) (errno \(code))"
        case .homeInUse(let path, let pid?):
            "\(path) is held by process \(pid): stop that system first, or use another --home"
        case .homeInUse(let path, nil):
            "\(path) is held by a process that can't be seen from here: stop that system first, "
                + "or use another --home"
        case .unusableHome(let path, let reason, let remedy):
            "\(path) \(reason): \(remedy)"
        case .badHandover(let reason):
            "the role handed to this process can't be read: \(reason)"
        }
    }
}
