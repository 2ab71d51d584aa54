// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksProcess
import QTasksWire
import Testing

@testable import QTasksStarter

/// What is kept of a worker's end.
@Suite(.timeLimit(.minutes(1))) struct `Evidence of a death` {
    private func exit(_ pid: Int32) -> ExitMessage {
        ExitMessage(
            pid: pid,
            startTime: 1,
            wasSignal: true,
            code: SIGKILL,
            maxResidentBytes: 2,
            userMicroseconds: 3,
            systemMicroseconds: 4,
            errorTail: Array("last words\n".utf8)
        )
    }

    @Test func `is sent again until the Broker has taken it, in order`() throws {
        var outbox = ExitOutbox()
        let first = outbox.add(exit(1))
        let second = outbox.add(exit(2))
        #expect(outbox.messages == [first, second])
        outbox.taken(1)
        outbox.taken(1)
        #expect(outbox.messages == [second])
        try second.withUnsafeBytes { bytes in
            var reader = WireReader(bytes)
            let number = try MessageHeader.read(from: &reader).number
            #expect(number == 2)
            let read = try ExitMessage(from: &reader)
            #expect(read == exit(2))
        }
    }

    @Test func `is bounded while the Broker stays away`() {
        var outbox = ExitOutbox()
        for pid in 1...1000 { _ = outbox.add(exit(Int32(pid))) }
        #expect(outbox.messages.count == ExitOutbox.kept)
    }

    @Test(arguments: [1, 7, 100, 4096, 10_000])
    func `has the last 4 KiB of what came in pieces`(piece: Int) {
        let all = (0..<30_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        var tail = Tail(limit: 4096)
        for start in stride(from: 0, to: all.count, by: piece) {
            all[start..<min(start + piece, all.count)].withUnsafeBytes { tail.add($0) }
        }
        #expect(tail.bytes == all.suffix(4096))
    }

    /// A child that runs a shell command with its standard error in a pipe of `tails`.
    private func run(_ command: String, _ tails: StderrTails) throws -> (ChildProcess, UInt64) {
        let pipe = try #require(tails.open())
        defer { close(pipe.writeEnd) }
        let child = try ChildProcess.spawn(
            executable: "/bin/sh",
            arguments: ["-c", command],
            stderr: pipe.writeEnd
        )
        return (child, pipe.token)
    }

    private func waitForEnd(of child: ChildProcess) {
        var item = pollfd(fd: child.pidfd, events: Int16(POLLIN), revents: 0)
        while poll(&item, 1, -1) < 0 {}
        _ = child.reap()
    }

    private func pipe() throws -> (read: Int32, write: Int32) {
        var ends: [Int32] = [-1, -1]
        try #require(Glibc.pipe(&ends) == 0)
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        return (ends[0], ends[1])
    }

    @Test func `is read without waiting for descendants that hold the other end`() throws {
        let target = try pipe()
        let tails = try StderrTails(target: target.write)
        // the one that stays has left the group
        let (child, token) = try run("setsid sleep 1000 & echo $! >&2; exit 3", tails)
        waitForEnd(of: child)
        let words = String(decoding: tails.collect(token), as: UTF8.self)
        let stranger = try #require(Int32(words.dropLast()))
        #expect(tails.collect(token).isEmpty)
        tails.flush(withinMilliseconds: 10_000)
        var buffer = [UInt8](repeating: 0, count: 100)
        let count = read(target.read, &buffer, buffer.count)
        #expect(String(decoding: buffer.prefix(count), as: UTF8.self) == words)
        kill(stranger, SIGKILL)
    }

    @Test func `is read to its end where the target is full, and nobody waits for that`() throws {
        // nothing is ever read from the target: the thread is stuck in it
        let target = try pipe()
        let tails = try StderrTails(target: target.write)
        let (flood, _) = try run("head -c 1000000 /dev/zero >&2", tails)
        let (child, token) = try run("echo last words >&2", tails)
        waitForEnd(of: child)
        #expect(tails.collect(token) == Array("last words\n".utf8))
        flood.kill()
        waitForEnd(of: flood)
    }

    @Test func `passes on all that is written, however much that is`() throws {
        let target = try pipe()
        let tails = try StderrTails(target: target.write)
        let (child, token) = try run("yes 'a line of text' | head -c 50000000 >&2", tails)
        var buffer = [UInt8](repeating: 0, count: 1 << 20)
        var sum = 0
        while sum < 50_000_000 {
            let count = read(target.read, &buffer, buffer.count)
            try #require(count > 0)
            sum += count
        }
        waitForEnd(of: child)
        #expect(tails.collect(token).count == 4096)
    }
}
