// Part of QTasks. License: see LICENSE.

import Glibc
import QTasks

/// Tasks that harm the process that they run in, or what is around it.
///
/// Each takes how often it does so: from then on it behaves, and its task ends well. One that is never
/// done with it ends as `dead`.
enum OddTasks {
    static let names = ["segfault", "exit", "eat", "spin", "hog", "fork", "close", "shout"]

    /// What a forked child is called by, so that one that outlives its worker can be told.
    static let childSeconds = "98765.4321"

    static func register(with app: QueueTasks) {
        registerSudden(with: app)
        registerEndless(with: app)
        registerUntidy(with: app)
    }

    /// Those that end their process at once.
    private static func registerSudden(with app: QueueTasks) {
        app.task("segfault") { (times: Int, context: TaskContext) async throws -> Int in
            Executions.note(context)
            guard context.attempt <= times else { return times }
            // an address that nothing is at, and that the optimizer doesn't know
            let nowhere = UnsafeMutablePointer<UInt8>(bitPattern: 8 + Int(context.attempt))
            nowhere?.pointee = 1
            return times
        }

        app.syncTask("exit") { (times: Int, context: TaskContext) throws -> Int in
            Executions.note(context)
            if context.attempt <= times { exit(3) }
            return times
        }

        // until RLIMIT_AS says no; then as most programs do
        app.syncTask("eat") { (times: Int, context: TaskContext) throws -> Int in
            Executions.note(context)
            guard context.attempt <= times else { return times }
            let size = 8 << 20
            while true {
                // not malloc(3), which the optimizer takes out where nobody reads what it gave
                let bytes = mmap(
                    nil,
                    size,
                    PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS,
                    -1,
                    0
                )
                guard let bytes, bytes != MAP_FAILED else { abort() }
                memset(bytes, 1, size)
            }
        }
    }

    /// Those that heed neither cancellation nor their limit.
    private static func registerEndless(with app: QueueTasks) {
        app.syncTask("spin", timeout: .milliseconds(300)) {
            (times: Int, context: TaskContext) throws -> Int in
            Executions.note(context)
            if context.attempt <= times { spinForEver() }
            return times
        }

        // on the pool's own threads, of which there are few
        app.task("hog", timeout: .milliseconds(300)) {
            (times: Int, context: TaskContext) async throws -> Int in
            Executions.note(context)
            if context.attempt <= times { spinForEver() }
            return times
        }
    }

    /// Those that leave something behind, or take something away.
    private static func registerUntidy(with app: QueueTasks) {
        app.syncTask("fork") { (times: Int, context: TaskContext) throws -> Int in
            Executions.note(context)
            guard context.attempt <= times else { return times }
            for _ in 0..<3 { startSleeper() }
            return times
        }

        // whatever is left of its process without them: the limit ends it
        app.syncTask("close", timeout: .seconds(1)) {
            (times: Int, context: TaskContext) throws -> Int in
            Executions.note(context)
            if context.attempt <= times {
                for descriptor: Int32 in 3..<1024 { close(descriptor) }
            }
            return times
        }

        app.syncTask("shout") { (megabytes: Int, context: TaskContext) throws -> Int in
            Executions.note(context)
            let line = Array((String(repeating: "shout ", count: 170) + "\n").utf8)
            for _ in 0..<(megabytes << 20) / line.count {
                guard !context.isCancelled, write(STDERR_FILENO, line, line.count) > 0 else {
                    break
                }
            }
            return megabytes
        }
    }

    private static func spinForEver() {
        var turns: UInt64 = 0
        while true { turns &+= UInt64(truncatingIfNeeded: getppid()) }
    }

    /// A child of a child, which nobody waits for; none where a neighbour has eaten all memory.
    private static func startSleeper() {
        let words = ["/bin/sh", "-c", "sleep \(childSeconds) & exec sleep \(childSeconds)"]
        var arguments = words.map { strdup($0) } + [nil]
        defer { for argument in arguments { free(argument) } }
        var pid: pid_t = 0
        posix_spawn(&pid, "/bin/sh", nil, nil, &arguments, environ)
    }
}
