// Part of QTasks. License: see LICENSE.

import Glibc
import Testing

@testable import QTasksProcess

@Suite struct `A child process` {
    @Test func `reports its exit code and what it used`() throws {
        let child = try ChildProcess.spawn(executable: "/bin/sh", arguments: ["-c", "exit 78"])
        let report = try #require(waitForEnd(child))
        #expect(report.pid == child.pid)
        #expect(report.cause == .exited(code: 78))
        #expect(report.description == "exit code 78")
        #expect(report.maxResidentBytes > 100_000)
        #expect(child.reap() == report, "the report stays")
    }

    @Test func `reports the time it spent on a CPU`() throws {
        let script = "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done"
        let child = try ChildProcess.spawn(executable: "/bin/sh", arguments: ["-c", script])
        let report = try #require(waitForEnd(child))
        #expect(report.userMicroseconds + report.systemMicroseconds > 0)
    }

    @Test func `is killed by its descriptor, and says by what`() throws {
        let child = try ChildProcess.spawn(executable: "/bin/sleep", arguments: ["1000"])
        #expect(child.reap() == nil)
        #expect(!Polling.isReadable(child.pidfd, withinMilliseconds: 0))
        #expect(child.kill())
        let report = try #require(waitForEnd(child))
        #expect(report.cause == .signaled(number: SIGKILL))
        #expect(report.description == "killed by SIGKILL")
        #expect(!child.kill(), "it has been reaped")
        #expect(!child.killGroup(), "its number is free")
    }

    @Test func `takes everything it started with it when its group is killed`() throws {
        let (child, _, grandchild) = try startShellWithGrandchild(
            "sleep 1000 >/dev/null 2>&1 & echo $!; wait"
        )
        #expect(ProcessGroup.isLeader(child.pid))
        #expect(child.killGroup())
        #expect(hasEndedInTime(grandchild))
        #expect(waitForEnd(child)?.cause == .signaled(number: SIGKILL))
    }

    @Test func `leaves nothing of its group behind once it is reaped`() throws {
        let (child, _, grandchild) = try startShellWithGrandchild(
            "sleep 1000 >/dev/null 2>&1 & echo $!"
        )
        defer { grandchild.kill() }  // it would outlive a failed test
        #expect(waitForEnd(child)?.cause == .exited(code: 0))
        #expect(hasEndedInTime(grandchild))
    }

    @Test func `gets the environment it was given, and not what was removed`() throws {
        try #require(getenv("HOME") != nil)
        let child = try ChildProcess.spawn(
            executable: "/bin/sh",
            arguments: [
                "-c", #"test "$A=B" = "ä = ß=B" -a -z "$HOME" -a -n "$PATH""#,
            ],
            environment: ["A": "ä = ß"],
            removing: ["HOME"]
        )
        #expect(waitForEnd(child)?.cause == .exited(code: 0))
    }

    @Test func `starts with default dispositions and no signal blocked`() throws {
        // Ends by the signal only where it is neither blocked nor ignored.
        let script = "kill -TERM $$; exit 3"
        let causes = Outcome()
        let ended = try waitForThread {
            var mask = sigset_t()
            sigfillset(&mask)
            pthread_sigmask(SIG_SETMASK, &mask, nil)
            let child = try ChildProcess.spawn(executable: "/bin/sh", arguments: ["-c", script])
            causes.report = waitForEnd(child)
        }
        #expect(ended)
        #expect(causes.report?.cause == .signaled(number: SIGTERM))
    }

    @Test func `that can't be started is an error with the path in it`() {
        let missing = "/nowhere/program"
        #expect(throws: ProcessError.system(call: "posix_spawn", subject: missing, code: ENOENT)) {
            try ChildProcess.spawn(executable: missing)
        }
    }
}
