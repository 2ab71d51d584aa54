// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc
import Testing

@testable import QTasksProcess

@Suite struct `Signals of a process` {
    @Test func `are read one by one, also where they were blocked`() throws {
        let ended = try waitForThread {
            block([SIGUSR1, SIGUSR2])
            let signals = try SignalDescriptor([SIGUSR1, SIGUSR2])
            #expect(signals.next() == nil)
            pthread_kill(pthread_self(), SIGUSR2)
            #expect(Polling.isReadable(signals.descriptor, withinMilliseconds: 0))
            #expect(signals.next() == SIGUSR2)
            #expect(signals.next() == nil)
        }
        #expect(ended)
    }

    @Test func `that were ignored and blocked can still be read`() async {
        await #expect(processExitsWith: .success) {
            block([SIGTERM])
            Signals.ignoreTerminalSignals()
            let signals = try SignalDescriptor([SIGTERM])
            pthread_kill(pthread_self(), SIGTERM)
            #expect(signals.next() == SIGTERM)
        }
    }

    @Test func `from the terminal don't end a role`() async {
        await #expect(processExitsWith: .exitCode(5)) {
            Signals.ignoreTerminalSignals()
            for number in [SIGINT, SIGTERM, SIGHUP, SIGPIPE] { raise(number) }
            exit(5)
        }
    }

    @Test func `of children come also where the parent had them ignored`() async {
        await #expect(processExitsWith: .success) {
            signal(SIGCHLD, SIG_IGN)
            Signals.inheritNothing()
            let child = try ChildProcess.spawn(executable: "/bin/true")
            #expect(waitForEnd(child)?.cause == .exited(code: 0))
        }
    }
}

private func block(_ signals: [Int32]) {
    var mask = sigset_t()
    sigemptyset(&mask)
    for number in signals { sigaddset(&mask, number) }
    pthread_sigmask(SIG_BLOCK, &mask, nil)
}

@Suite struct `Limits of the process` {
    @Test func `are raised for descriptors and lowered for core dumps`() async {
        await #expect(processExitsWith: .success) {
            var limit = rlimit()
            getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            limit.rlim_cur = limit.rlim_max / 2
            setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            #expect(Limits.raiseOpenFiles() == UInt64(limit.rlim_max))
            Limits.disableCoreDumps()
            getrlimit(__rlimit_resource_t(RLIMIT_CORE.rawValue), &limit)
            #expect(limit.rlim_cur == 0)
        }
    }
}
