// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksProcess
import Synchronization
import Testing

@Suite(.timeLimit(.minutes(1)))
struct `A program that a test starts` {
    /// A running `cat`, and the other ends of its pipes.
    private final class Cat: Sendable {
        let child: Mutex<ChildProcess?>
        private let input: Int32
        private let output: Int32

        init() throws {
            let (inputEnd, input) = try Program.pipe()
            let (output, outputEnd) = try Program.pipe()
            defer { for end in [inputEnd, outputEnd] { close(end) } }
            (self.input, self.output) = (input, output)
            child = Mutex(
                try ChildProcess.spawnTied(
                    "/bin/cat",
                    [],
                    stdin: inputEnd,
                    stdout: outputEnd,
                    stderr: -1
                )
            )
        }

        deinit {
            close(output)
        }

        /// Returns once it runs, which is after its death signal was armed.
        func waitUntilItRuns() {
            var byte: UInt8 = 1
            _ = write(input, &byte, 1)
            while read(output, &byte, 1) < 0, errno == EINTR {}
        }

        /// Its input ends.
        func end() { close(input) }
    }

    @Test func `lives on when the thread that asked for it ends`() async throws {
        let (cat, thread) = try await RoleThread.runToEnd(name: "short") {
            let cat = try Cat()
            cat.waitUntilItRuns()
            return (cat, try Self.ownThread())
        }.get()
        // what the kernel does at a thread's end is done once nothing is to be seen of it any more
        while access(thread, F_OK) == 0 { sched_yield() }
        cat.end()
        let report = try #require(
            cat.child.withLock { child -> ExitReport? in
                guard let child else { return nil }
                var item = pollfd(fd: child.pidfd, events: Int16(POLLIN), revents: 0)
                while poll(&item, 1, -1) < 0 {}
                return child.reap()
            }
        )
        #expect(report.cause == .exited(code: 0), "it read to the end of its input")
    }

    /// Where /proc has the thread that asks.
    private static func ownThread() throws -> String {
        var buffer = [CChar](repeating: 0, count: 256)
        let count = readlink("/proc/thread-self", &buffer, buffer.count)
        guard count > 0 else { throw Failure("/proc/thread-self: errno \(errno)") }
        return "/proc/" + String(decoding: buffer[..<count].map(UInt8.init), as: UTF8.self)
    }
}
