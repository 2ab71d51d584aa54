// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc
import Synchronization

/// How a large file goes while others wait for the same disk.
///
/// Where blocks are freed the file system may have the disk discard them (mount option `discard`), and a
/// sync of another file waits for that: 10 ms and more for a segment that is unlinked. Freed a MiB at a
/// time it waits for a fraction of one. But a file that somebody has mapped must not be shortened: a look at
/// what is gone is a SIGBUS. So who reads holds a shared lock, see flock(2), and who removes shortens only
/// what it has an exclusive one of.
extension PosixFiles {
    /// How much is freed at a time, in bytes.
    private static let stepBytes = 1 << 20

    /// The same where room is wanted more than anything else.
    private static let hurriedStepBytes = 16 << 20

    /// How long others have the disk to themselves between two steps, in nanoseconds.
    private static let pause = 1_000_000

    public func removeInSteps(
        _ path: String,
        isHurried: () -> Bool
    ) throws(AppendLogError) {
        // a reader's lock, or one that can't be had, is no reason for the file to stay
        guard let file = try? open(path, .readWrite) else { return try remove(path) }
        defer { close(file) }
        let isMine = flock(file.rawValue, LOCK_EX | LOCK_NB) == 0
        try remove(path)
        guard isMine, var left = try? size(file) else { return }
        while left > 0 {
            let hurries = isHurried()
            left = max(0, left - (hurries ? Self.hurriedStepBytes : Self.stepBytes))
            let isShort = Self.step.withLock { _ in ftruncate(file.rawValue, left) == 0 }
            guard isShort else { return }
            if hurries { continue }
            var pause = timespec(tv_sec: 0, tv_nsec: Self.pause)
            nanosleep(&pause, nil)
        }
    }

    /// The lock goes with the last descriptor and mapping of this opening of the file: the kernel keeps it
    /// for a mapping whose descriptor is closed.
    public func hold(_ file: LogFileHandle) throws(AppendLogError) {
        var about = stat()
        guard flock(file.rawValue, LOCK_SH | LOCK_NB) == 0, fstat(file.rawValue, &about) == 0 else {
            let code = errno == EWOULDBLOCK ? ENOENT : errno
            throw .system(call: "open", path: path(of: file), errno: code)
        }
        // between our opening and our lock it may have been removed, and shortened, as a whole
        guard about.st_nlink > 0 else {
            throw .system(call: "open", path: path(of: file), errno: ENOENT)
        }
    }
}
