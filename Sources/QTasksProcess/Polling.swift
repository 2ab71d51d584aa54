// Part of QTasks. License: see LICENSE.

import Glibc

/// `poll(2)` on one descriptor.
enum Polling {
    /// Waits until there is something to read, or the time is up.
    ///
    /// - Parameters:
    ///   - descriptor: What to watch.
    ///   - withinMilliseconds: 0 asks without waiting. A signal handler that ran starts it anew.
    /// - Returns: `false` where the time is up.
    static func isReadable(_ descriptor: Int32, withinMilliseconds: Int32) -> Bool {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        var count = poll(&entry, 1, withinMilliseconds)
        while count < 0, errno == EINTR {
            count = poll(&entry, 1, withinMilliseconds)
        }
        return count > 0 && entry.revents & Int16(POLLIN) != 0
    }
}
