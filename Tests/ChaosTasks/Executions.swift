// Part of QTasks. License: see LICENSE.

import Glibc
import QTasks

/// The file that tells the checker of every execution, from the worker's side alone.
enum Executions {
    /// Notes the beginning of an execution: the task, its epoch and attempt, the worker, its pid, and
    /// when, in nanoseconds since 1970.
    ///
    /// One `write(2)` with `O_APPEND`: lines of several processes don't mix, and what was written
    /// outlives the process.
    static func note(_ context: TaskContext) {
        guard let path = QueueConfig.environmentVariable("CHAOS_EXECUTIONS") else { return }
        let descriptor = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        let words = [
            "\(context.id)", "\(context.epoch)", "\(context.attempt)", "\(context.worker)",
            "\(getpid())", "\(Timestamp.now.nanoseconds)",
        ]
        let line = Array((words.joined(separator: " ") + "\n").utf8)
        _ = write(descriptor, line, line.count)
    }
}
