// Part of QTasks. License: see LICENSE.

import Glibc
import QTasks

/// The tasks of `bench deaths`, `recovery` and `deadline`: each tells the benchmark when it begins, by the
/// clock that both read.
enum FaultTasks {
    /// Holds its slot until its gate is opened.
    static let hold = "bench.hold"
    /// Computes for so many milliseconds, and nothing else.
    static let compute = "bench.compute"
    /// Rests for so many milliseconds.
    static let tick = "bench.tick"
    /// Has its process stand still, which then hears nothing.
    static let frozen = "bench.frozen"
    /// Goes on for ever, but its process ends as soon as it is asked to.
    static let mortal = "bench.mortal"

    /// A permit for one task that holds at this gate.
    static func gate(_ number: Int, in folder: String) -> String { "\(folder)/gate-\(number)" }

    static func register(with app: QueueTasks) {
        app.syncTask(hold) { (gate: Int, context: TaskContext) throws -> Int in
            BenchEvent.report(context)
            guard let folder = BenchEvent.folder else { return gate }
            let descriptor = open(Self.gate(gate, in: folder), O_RDONLY | O_CLOEXEC)
            guard descriptor >= 0 else { return gate }
            defer { close(descriptor) }
            var permit: UInt8 = 0
            while read(descriptor, &permit, 1) < 0, errno == EINTR {}
            return BenchTask.answer(gate)
        }

        app.syncTask(compute) { (milliseconds: Int, context: TaskContext) throws -> Int in
            let end = Stopwatch.now() + UInt64(milliseconds) * 1_000_000
            while Stopwatch.now() < end {}
            return Int(context.attempt)
        }

        app.task(tick) { (milliseconds: Int, context: TaskContext) async throws -> Int in
            BenchEvent.report(context)
            try await context.sleep(for: .milliseconds(milliseconds))
            return milliseconds
        }

        app.syncTask(frozen) { (context: TaskContext) throws -> Void in
            BenchEvent.report(context)
            // not before the worker has told the Broker of its limit
            usleep(50_000)
            kill(getpid(), SIGSTOP)
            while true { usleep(100_000) }
        }

        app.syncTask(mortal) { (context: TaskContext) throws -> Void in
            // taken from the worker, which would wait for this task: the kernel ends the process at once
            signal(SIGTERM, SIG_DFL)
            var signals = sigset_t()
            sigemptyset(&signals)
            sigaddset(&signals, SIGTERM)
            pthread_sigmask(SIG_UNBLOCK, &signals, nil)
            BenchEvent.report(context)
            while true { usleep(100_000) }
        }
    }
}
