// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc
import QTasksProcess
import Testing

@testable import ZeroMQ

extension TemporaryFolder {
    func endpoint(_ name: String) -> String {
        "ipc://\(path)/\(name)"
    }
}

/// Waiting took longer than a test should.
struct TookTooLong: Error {}

/// Waits for one thing at a time, with a limit, and keeps other sockets turning meanwhile.
struct Patience: ~Copyable {
    private static let limitNanoseconds: UInt64 = 8_000_000_000

    private var loop: PollLoop

    init() throws {
        loop = try PollLoop()
    }

    /// The next message of the first item's socket, as arrays.
    mutating func receive(
        on socket: borrowing Socket,
        while others: [PollItem] = []
    ) throws -> [[UInt8]] {
        var frames = Frames()
        try receive(into: &frames, on: socket, while: others)
        return frames.all
    }

    mutating func receive(
        into frames: inout Frames,
        on socket: borrowing Socket,
        while others: [PollItem] = []
    ) throws {
        while try !socket.receive(into: &frames) {
            try turn([socket.pollItem] + others) { _ in true }
        }
    }

    /// Until a send on `socket` would be taken.
    mutating func room(on socket: borrowing Socket) throws {
        try turn([socket.pollItem.orWritable]) { $0.isWritable(0) }
    }

    /// Turns the loop until `isEnough`.
    mutating func turn(_ items: [PollItem], until isEnough: (Ready) -> Bool) throws {
        try loop.setTimer(at: MonotonicClock.nowNanoseconds() + Self.limitNanoseconds)
        while true {
            let ready = try loop.wait(items)
            if ready.timerFired { throw TookTooLong() }
            if isEnough(ready) { return }
        }
    }
}

extension PollLoop {
    /// Waits as ``wait(_:)`` does, but not for ever where the loop is broken.
    mutating func waitPatiently(_ items: [PollItem] = []) throws -> Ready {
        let token: UInt64 = 1 << 40
        let limit = timerfd_create(CLOCK_BOOTTIME, 0)
        defer { close(limit) }
        var time = itimerspec()
        time.it_value.tv_sec = 8
        timerfd_settime(limit, 0, &time, nil)
        try watch(descriptor: limit, token: token)
        let ready = try wait(items)
        try unwatch(descriptor: limit)
        if ready.tokens.contains(token) { throw TookTooLong() }
        return ready
    }
}

extension Frames {
    /// A copy of every frame.
    var all: [[UInt8]] {
        (0..<count).map { bytes(at: $0) }
    }
}

/// Runs `body` on a thread of its own, and waits for its end when asked.
final class OtherThread {
    private final class Body: Sendable {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    private var thread = pthread_t()

    init(_ run: @escaping @Sendable () -> Void) {
        let body = Unmanaged.passRetained(Body(run)).toOpaque()
        let failure = pthread_create(
            &thread,
            nil,
            { body in
                guard let body else { return nil }
                Unmanaged<Body>.fromOpaque(body).takeRetainedValue().run()
                return nil
            },
            body
        )
        precondition(failure == 0, "no thread to test with")
    }

    /// Interrupts the thread with a signal.
    func signal(_ number: Int32) {
        pthread_kill(thread, number)
    }

    func join() {
        pthread_join(thread, nil)
    }
}
