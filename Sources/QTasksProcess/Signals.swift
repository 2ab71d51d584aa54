// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc

/// How this process treats signals: those that matter are read from a ``SignalDescriptor``.
///
/// What it spawns starts with an empty mask and default dispositions.
package enum Signals {
    /// Forgets what a parent left behind: no signal is blocked in this thread and those it starts, and
    /// children report their end.
    ///
    /// First thing in a role. `execve(2)` keeps a mask and ignored signals: under a parent that ignored
    /// SIGCHLD, children would vanish without a report.
    package static func inheritNothing() {
        signal(SIGCHLD, SIG_DFL)
        var mask = sigset_t()
        sigemptyset(&mask)
        pthread_sigmask(SIG_SETMASK, &mask, nil)
    }

    /// For each role below the Starter: Ctrl-C and a service manager signal everybody, but only the
    /// Starter may begin a stop.
    ///
    /// Ignores SIGPIPE too.
    ///
    /// A ``SignalDescriptor`` that is made afterwards catches its signals all the same, so that a
    /// worker can take SIGTERM as its own drain.
    package static func ignoreTerminalSignals() {
        for number in [SIGINT, SIGTERM, SIGHUP, SIGPIPE] { signal(number, SIG_IGN) }
    }

    /// A write to a closed connection is an error at the call, not the end of the process.
    package static func ignoreBrokenPipes() {
        signal(SIGPIPE, SIG_IGN)
    }
}

/// Signals as something to read.
///
/// A handler writes each one's number to a pipe, in whichever thread the kernel chose.
/// `signalfd(2)` would need them blocked in every thread, and a program's `main` may have threads
/// before it gets to us. What this process executes starts with default dispositions.
package struct SignalDescriptor: ~Copyable {
    /// Readable while a signal waits.
    ///
    /// For `poll(2)` and `epoll(7)`.
    package let descriptor: Int32

    private let writeEnd: Int32
    private let signals: [Int32]

    /// Catches the signals from now on, and lets the calling thread take them.
    ///
    /// - Throws: `EMFILE` where the process has no descriptor left, `EINVAL` for what can't be
    ///   caught.
    package init(_ signals: [Int32]) throws(ProcessError) {
        let ends = try Self.pipe(for: signals)
        descriptor = ends.read
        writeEnd = ends.write
        self.signals = signals
    }

    private static func pipe(
        for signals: [Int32]
    ) throws(ProcessError) -> (read: Int32, write: Int32) {
        var ends: [Int32] = [-1, -1]
        guard clinux_pipe(&ends) == 0 else { throw .last("pipe2", "signals") }
        var mask = sigset_t()
        sigemptyset(&mask)
        for number in signals {
            guard clinux_catch_signal(number, ends[1]) == 0 else {
                let error = ProcessError.last("sigaction", SignalName.of(number))
                for end in ends { close(end) }
                throw error
            }
            sigaddset(&mask, number)
        }
        pthread_sigmask(SIG_UNBLOCK, &mask, nil)
        return (ends[0], ends[1])
    }

    deinit {
        for number in signals { clinux_release_signal(number) }
        close(descriptor)
        close(writeEnd)
    }

    /// The next signal that came, or `nil`: never blocks.
    package borrowing func next() -> Int32? {
        var number: UInt8 = 0
        guard read(descriptor, &number, 1) == 1 else { return nil }
        return Int32(number)
    }
}
