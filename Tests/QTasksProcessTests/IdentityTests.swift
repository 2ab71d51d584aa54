// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc
import Testing

@testable import QTasksProcess

@Suite struct `A process's identity` {
    @Test func `survives a name with spaces and parentheses`() {
        let fields = (3...52).map(String.init).joined(separator: " ")
        #expect(ProcessIdentity.startTime(inStat: "12 (a) b (c)) \(fields)\n") == 22)
        #expect(ProcessIdentity.startTime(inStat: "12 (a) S 1") == nil)
        #expect(ProcessIdentity.startTime(inStat: "") == nil)
    }

    @Test func `ends with the process, reaped or not`() throws {
        let child = try ChildProcess.spawn(executable: "/bin/sleep", arguments: ["1000"])
        let identity = try #require(ProcessIdentity.of(pid: child.pid))
        #expect(identity.isAlive)
        #expect(identity.startTime >= ProcessIdentity.current.startTime)
        let other = ProcessIdentity(pid: child.pid, startTime: identity.startTime + 1)
        #expect(!other.isAlive, "its number was given to another process")
        child.kill()
        try #require(Polling.isReadable(child.pidfd, withinMilliseconds: patienceMilliseconds))
        #expect(!identity.isAlive)
        #expect(child.reap() != nil)
        #expect(!identity.isAlive)
        #expect(try PidDescriptor.open(identity) == nil)
    }

    @Test func `of nobody is nil`() {
        #expect(ProcessIdentity.of(pid: 0) == nil)
        #expect(ProcessIdentity.of(pid: -1) == nil)
    }
}

@Suite struct `The boot ID` {
    @Test func `is the kernel's, without the hyphens`() throws {
        let text = try #require(SmallFile.text(at: "/proc/sys/kernel/random/boot_id"))
        #expect(BootID.current.description + "\n" == text.filter { $0 != "-" })
        #expect(BootID("0f") == nil)
    }
}

@Suite struct `The peer of a Unix socket` {
    @Test func `is told by the kernel, with a handle of the process`() throws {
        var pair: [Int32] = [-1, -1]
        let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        try #require(socketpair(AF_UNIX, kind, 0, &pair) == 0)
        defer { pair.forEach { close($0) } }
        guard case .local(let identity, let handle) = PeerIdentity(descriptor: pair[0]) else {
            Issue.record("a peer on this host must be local")
            return
        }
        #expect(identity == .current)
        #expect(!handle.hasEnded)
        #expect(fcntl(handle.descriptor, F_GETFD) & FD_CLOEXEC != 0)
    }

    @Test func `is remote where the socket isn't one of this host's`() throws {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        guard case .remote = PeerIdentity(descriptor: descriptor) else {
            Issue.record("TCP tells no pid")
            return
        }
    }
}
