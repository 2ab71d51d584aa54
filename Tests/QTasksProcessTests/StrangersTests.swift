// Part of QTasks. License: see LICENSE.

import Glibc
import Testing

@testable import QTasksProcess

/// Each in a process of its own: adopting concerns every child of a process.
@Suite struct `Reaping strangers` {
    @Test func `takes orphans, and leaves known children to who knows them`() async {
        await #expect(processExitsWith: .success) {
            try Strangers.adopt()
            let (child, stranger, handle) = try startShellWithGrandchild(
                "sleep 1000 >/dev/null 2>&1 & echo $!"
            )
            try #require(Polling.isReadable(child.pidfd, withinMilliseconds: patienceMilliseconds))
            #expect(Strangers.reapNext(known: [child.pid]) == .known(pid: child.pid))
            #expect(child.reap()?.cause == .exited(code: 0))
            #expect(hasEndedInTime(handle))
            guard case .stranger(let report) = Strangers.reapNext(known: []) else {
                Issue.record("the orphan was not adopted")
                return
            }
            #expect(report.pid == stranger)
            #expect(report.cause == .signaled(number: SIGKILL))
            #expect(Strangers.reapNext(known: []) == .none)
        }
    }
}

@Suite struct `The guard against dead parents` {
    @Test func `ends a process whose parent is gone before it does anything`() async {
        await #expect(processExitsWith: .exitCode(0)) {
            ParentGuard.arm(expectedParent: getpid())  // nobody is its own parent
            exit(3)
        }
    }

    @Test func `arms the kernel's SIGKILL and goes on where the parent lives`() async {
        await #expect(processExitsWith: .exitCode(7)) {
            ParentGuard.arm(expectedParent: getppid())
            // Swift can't call a variadic function by name; 2 is PR_GET_PDEATHSIG.
            typealias Control = @convention(c) (Int32, UnsafeMutablePointer<Int32>) -> Int32
            let address = try #require(dlsym(nil, "prctl"))
            var signal: Int32 = 0
            let result = unsafeBitCast(address, to: Control.self)(2, &signal)
            exit(result == 0 && signal == SIGKILL ? 7 : 3)
        }
    }
}
