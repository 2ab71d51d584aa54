// Part of QTasks. License: see LICENSE.

import Glibc
import Testing

@testable import QTasksProcess

@Suite struct `A lock file` {
    private let folder: TemporaryFolder
    private var path: String { folder.path + "/lock" }

    init() throws {
        folder = try TemporaryFolder()
    }

    @Test func `held by another run is refused with the holder's pid`() throws {
        let first = try LockFile.acquire(at: path, runID: "aa")
        #expect(throws: ProcessError.homeInUse(path: path, pid: getpid())) {
            _ = try LockFile.acquire(at: path, runID: "bb")
        }
        _ = consume first
    }

    @Test func `held by another run that lives is refused at once`() throws {
        let first = try LockFile.acquire(at: path, runID: "aa")
        let path = path
        let asking = try waiting {
            // Without end: only a refusal that doesn't wait gets out of it.
            _ = try LockFile.acquire(at: path, runID: "bb", patienceMilliseconds: -1)
        }
        #expect(asking.hasEndedInTime)
        #expect(asking.error as? ProcessError == .homeInUse(path: path, pid: getpid()))
        _ = consume first
    }

    @Test func `tells who holds it, and is free again afterwards`() throws {
        #expect(try LockFile.holder(of: path) == nil, "no file")
        var lock: LockFile? = try LockFile.acquire(at: path, runID: "a-longer-run")
        let holder = LockHolder(runID: "a-longer-run", process: .current)
        #expect(try LockFile.holder(of: path) == holder)
        lock = nil
        #expect(try LockFile.holder(of: path) == nil, "the file stays, the lock doesn't")
        lock = try LockFile.acquire(at: path, runID: "bb")
        #expect(try LockFile.holder(of: path)?.runID == "bb")
        #expect(SmallFile.text(at: path)?.hasSuffix("start \(holder.process.startTime)\n") == true)
        _ = consume lock
    }

    @Test func `is waited for where the holder is of the same run`() throws {
        var first: LockFile? = try LockFile.acquire(at: path, runID: "aa")
        let path = path
        let started = try waiting {
            _ = try LockFile.acquire(
                at: path,
                runID: "aa",
                patienceMilliseconds: patienceMilliseconds
            )
        }
        first = nil
        #expect(started.hasEndedInTime)
        #expect(started.error == nil)
        _ = consume first
    }

    @Test func `is not got by killing oneself`() throws {
        let first = try LockFile.acquire(at: path, runID: "aa")
        #expect(throws: ProcessError.homeInUse(path: path, pid: getpid())) {
            _ = try LockFile.acquire(at: path, runID: "aa", patienceMilliseconds: 1)
        }
        _ = consume first
    }

    @Test func `is left to a holder of the same run that is about to end`() throws {
        // It ends by itself once the kernel says that somebody waits for the lock.
        let waiter = "-> FLOCK .*:$(stat -c %i '\(path)') "
        let child = try startHolder(
            of: "aa",
            until: "until grep -q -e \"\(waiter)\" /proc/locks; do :; done; exit 5"
        )
        defer { child.killGroup() }
        let path = path
        let asking = try waiting {
            _ = try LockFile.acquire(
                at: path,
                runID: "aa",
                patienceMilliseconds: patienceMilliseconds
            )
        }
        #expect(waitForEnd(child)?.cause == .exited(code: 5))
        #expect(asking.hasEndedInTime)
        #expect(asking.error == nil)
    }

    @Test func `is left to a holder of an earlier run, whose home is ours by now`() throws {
        let waiter = "-> FLOCK .*:$(stat -c %i '\(path)') "
        let child = try startHolder(
            of: "the killed one",
            until: "until grep -q -e \"\(waiter)\" /proc/locks; do :; done; exit 5"
        )
        defer { child.killGroup() }
        let path = path
        let asking = try waiting {
            _ = try LockFile.acquire(
                at: path,
                runID: "aa",
                patienceMilliseconds: patienceMilliseconds,
                isHomeOurs: true
            )
        }
        #expect(waitForEnd(child)?.cause == .exited(code: 5), "not killed")
        #expect(asking.hasEndedInTime)
        #expect(asking.error == nil)
    }

    @Test func `is got by killing a holder of the same run that hangs`() throws {
        let child = try startHolder(of: "aa")
        let lock = try LockFile.acquire(at: path, runID: "aa", patienceMilliseconds: 1000)
        #expect(waitForEnd(child)?.cause == .signaled(number: SIGKILL))
        _ = consume lock
    }

    @Test func `is not got by killing who only has the pid of the holder`() throws {
        let child = try startHolder(of: "aa", startedLaterBy: 1)
        #expect(throws: ProcessError.homeInUse(path: path, pid: child.pid)) {
            _ = try LockFile.acquire(at: path, runID: "aa", patienceMilliseconds: 1)
        }
        #expect(child.reap() == nil)
        child.killGroup()
        #expect(waitForEnd(child) != nil)
    }

    @Test func `stays with its holder's process, which doesn't pass it to what it starts`() throws {
        var lock: LockFile? = try LockFile.acquire(at: path, runID: "aa")
        let child = try ChildProcess.spawn(executable: "/bin/sleep", arguments: ["1000"])
        lock = nil
        lock = try LockFile.acquire(at: path, runID: "bb")
        child.kill()
        #expect(waitForEnd(child) != nil)
        _ = consume lock
    }

    /// Another process that holds the lock, and about which the file says so.
    private func startHolder(
        of run: String,
        startedLaterBy ticks: UInt64 = 0,
        until end: String = "exec sleep 1000"
    ) throws -> ChildProcess {
        let (child, line) = try startShell("exec 9<>'\(path)'; flock 9 && echo held; \(end)")
        try #require(line == "held")
        let identity = try #require(ProcessIdentity.of(pid: child.pid))
        let told = ProcessIdentity(pid: child.pid, startTime: identity.startTime + ticks)
        try write(LockHolder(runID: run, process: told).text, to: path)
        return child
    }

    private func write(_ text: String, to path: String) throws {
        let descriptor = open(path, O_WRONLY | O_CLOEXEC)
        try #require(descriptor >= 0)
        defer { close(descriptor) }
        try #require(Glibc.write(descriptor, text, text.utf8.count) == text.utf8.count)
    }
}
