// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksProcess
import Synchronization
import ZeroMQ

extension ChildProcess {
    /// Starts a program that ends with this process, however that ends: `setpriv` arms the death
    /// signal and becomes the program, so that its pid is the child's.
    ///
    /// It is started from a thread of its own, which stays until it has ended. For the signal comes
    /// with the end of the *thread* that started it, and a test has none that stays: the main actor
    /// is served by threads of a pool, which lets them go after some seconds without work, while
    /// the test awaits a task say.
    ///
    /// - Throws: What `posix_spawn(3)` or `pthread_create(3)` say; nothing runs then.
    static func spawnTied(
        _ path: String,
        _ arguments: [String],
        environment: [String: String] = [:],
        stdin: Int32,
        stdout: Int32,
        stderr: Int32
    ) throws -> ChildProcess {
        let start = try Start()
        try RoleThread.run("test-program") {
            let held = start.fill {
                try spawn(
                    executable: "/usr/bin/setpriv",
                    arguments: ["--pdeathsig", "KILL", path] + arguments,
                    environment: environment,
                    stdin: stdin,
                    stdout: stdout,
                    stderr: stderr
                )
            }
            guard held >= 0 else { return }
            var item = pollfd(fd: held, events: Int16(POLLIN), revents: 0)
            while poll(&item, 1, -1) < 0 {}
            close(held)
        }
        return try start.wait()
    }
}

/// A child's way from the thread that starts it to the one that waits for it.
private final class Start: Sendable {
    private let child = Mutex<Result<ChildProcess, any Error>?>(nil)
    private let bell: Doorbell

    init() throws {
        bell = try Doorbell()
    }

    /// - Returns: The child's pidfd once more, since the other thread may drop the child at any
    ///   time; -1 where there is none.
    func fill(_ spawn: sending () throws -> ChildProcess) -> Int32 {
        let held = child.withLock { child in
            do {
                let spawned = try spawn()
                let held = fcntl(spawned.pidfd, F_DUPFD_CLOEXEC, 0)
                child = .success(spawned)
                return held
            } catch {
                child = .failure(error)
                return -1
            }
        }
        bell.ring()
        return held
    }

    func wait() throws -> ChildProcess {
        var item = pollfd(fd: bell.descriptor, events: Int16(POLLIN), revents: 0)
        while poll(&item, 1, -1) < 0 {}
        let filled = child.withLock { child in
            defer { child = nil }
            return child
        }
        guard let filled else { preconditionFailure("the bell rings when it is filled") }
        return try filled.get()
    }
}
