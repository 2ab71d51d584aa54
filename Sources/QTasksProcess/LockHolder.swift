// Part of QTasks. License: see LICENSE.

/// What a lock file says about who holds it: three lines that a person can read, too.
///
/// ```
/// run 5f0c2e...        the system's run: 32 hexadecimal digits
/// pid 4711
/// start 8812345        clock ticks since boot, /proc/PID/stat field 22
/// ```
///
/// Whether that is still so only the lock itself tells.
package struct LockHolder: Sendable, Equatable {
    package let runID: String
    package let process: ProcessIdentity

    init(runID: String, process: ProcessIdentity) {
        self.runID = runID
        self.process = process
    }

    var text: String {
        "run \(runID)\npid \(process.pid)\nstart \(process.startTime)\n"
    }

    /// Reads the first three lines; what follows is the rest of an older, longer text.
    init?(text: String) {
        let lines = text.split(separator: "\n", maxSplits: 3, omittingEmptySubsequences: false)
        guard lines.count == 4,
            let run = Self.value(of: "run", in: lines[0]),
            let pid = Self.value(of: "pid", in: lines[1]).flatMap({ Int32($0) }),
            let start = Self.value(of: "start", in: lines[2]).flatMap({ UInt64($0) })
        else { return nil }
        runID = String(run)
        process = ProcessIdentity(pid: pid, startTime: start)
    }

    private static func value(of name: String, in line: Substring) -> Substring? {
        line.hasPrefix("\(name) ") ? line.dropFirst(name.utf8.count + 1) : nil
    }
}
