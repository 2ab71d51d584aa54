// Part of QTasks. License: see LICENSE.

import Glibc
import Synchronization
import Testing

@testable import ZeroMQ

@Suite(.timeLimit(.minutes(1)))
struct `A poll loop` {
    @Test func `fires its timer once, and not early`() throws {
        var loop = try PollLoop()
        let deadline = MonotonicClock.nowNanoseconds() + 20_000_000
        try loop.setTimer(at: deadline)
        try loop.setTimer(at: deadline)
        #expect(try !loop.poll([]).timerFired)
        #expect(try loop.waitPatiently().timerFired)
        #expect(MonotonicClock.nowNanoseconds() >= deadline)
        #expect(try !loop.poll([]).timerFired)
    }

    @Test(arguments: [0, 1, 1_000_000_000] as [UInt64])
    func `fires at once for a time that has passed, again and again`(deadline: UInt64) throws {
        var loop = try PollLoop()
        for _ in 1...3 {
            try loop.setTimer(at: deadline)
            #expect(try loop.waitPatiently().timerFired)
        }
    }

    @Test func `forgets a deadline that was taken back`() throws {
        var loop = try PollLoop()
        try loop.setTimer(at: 1)
        try loop.setTimer(at: nil)
        #expect(try !loop.poll([]).timerFired)
        try loop.setTimer(at: .max)
        #expect(try !loop.poll([]).timerFired)
        try loop.setTimer(at: 1)
        #expect(try loop.waitPatiently().timerFired)
    }

    @Test func `names the descriptors that are ready, until they are read or unwatched`() throws {
        var loop = try PollLoop()
        let bells = [try Doorbell(), try Doorbell(), try Doorbell()]
        for (token, bell) in bells.enumerated() {
            try loop.watch(descriptor: bell.descriptor, token: UInt64(token))
        }
        #expect(try loop.poll([]).tokens == [])
        bells[0].ring()
        bells[2].ring()
        #expect(Set(try loop.waitPatiently().tokens) == [0, 2])
        bells[0].clear()
        #expect(try loop.waitPatiently().tokens == [2])
        try loop.unwatch(descriptor: bells[2].descriptor)
        #expect(try loop.poll([]).tokens == [])
        #expect(throws: ZeroMQError.self) { try loop.unwatch(descriptor: bells[2].descriptor) }
    }

    @Test func `reports a crowd of descriptors over several turns`() throws {
        var loop = try PollLoop()
        let bells = try (0..<200).map { _ in try Doorbell() }
        for (token, bell) in bells.enumerated() {
            try loop.watch(descriptor: bell.descriptor, token: UInt64(token))
            bell.ring()
        }
        var seen: Set<UInt64> = []
        while seen.count < bells.count {
            for token in try loop.waitPatiently().tokens {
                #expect(seen.insert(token).inserted)
                bells[Int(token)].clear()
            }
        }
        #expect(try loop.poll([]).tokens == [])
    }

    @Test func `tells sockets apart, and finds what an earlier turn left unread`() throws {
        let context = try Context()
        var loop = try PollLoop()
        let idle = try Socket(.pull, in: context, options: .pull(maxMessageBytes: nil))
        let busy = try Socket(.pull, in: context, options: .pull(maxMessageBytes: nil))
        try idle.bind(to: "inproc://first")
        try busy.bind(to: "inproc://second")
        let push = try Socket(.push, in: context, options: .push)
        try push.connect(to: "inproc://second")
        let items = [idle.pollItem, busy.pollItem, push.pollItem.orWritable]
        for number in 1...3 as ClosedRange<UInt8> { try push.send([number]) }

        var frames = Frames()
        for _ in 1...3 {
            let ready = try loop.waitPatiently(items)
            #expect(ready.readable == 0b010)
            #expect(ready.writable == 0b100)
            #expect(try busy.receive(into: &frames))
        }
        #expect(frames.bytes(at: 0) == [3])
        #expect(try loop.poll(Array(items.prefix(2))).readable == 0)
    }

    @Test func `goes on after a signal`() throws {
        var action = sigaction()
        action.__sigaction_handler.sa_handler = { _ in }
        sigaction(SIGURG, &action, nil)
        let started = try Doorbell()
        let deadline = MonotonicClock.nowNanoseconds() + 50_000_000
        let waiter = OtherThread {
            started.ring()
            #expect(throws: Never.self) {
                var loop = try PollLoop()
                try loop.setTimer(at: deadline)
                #expect(try loop.waitPatiently().timerFired)
            }
        }
        var loop = try PollLoop()
        try loop.watch(descriptor: started.descriptor, token: 1)
        _ = try loop.waitPatiently()
        while MonotonicClock.nowNanoseconds() < deadline - 10_000_000 {
            waiter.signal(SIGURG)
            sched_yield()
        }
        waiter.join()
        #expect(MonotonicClock.nowNanoseconds() >= deadline)
    }
}

@Suite(.timeLimit(.minutes(1)))
struct `A doorbell` {
    @Test func `wakes the loop from another thread`() throws {
        var loop = try PollLoop()
        let bell = try Doorbell()
        try loop.watch(descriptor: bell.descriptor, token: 42)
        let ringer = OtherThread { bell.ring() }
        #expect(try loop.waitPatiently().tokens == [42])
        bell.clear()
        ringer.join()
        bell.clear()
        #expect(try loop.poll([]).tokens == [])
    }

    @Test func `counts many rings as one, until it is cleared`() throws {
        var loop = try PollLoop()
        let bell = try Doorbell()
        try loop.watch(descriptor: bell.descriptor, token: 1)
        for _ in 1...3 {
            bell.ring()
            bell.ring()
            #expect(try loop.waitPatiently().tokens == [1])
            bell.clear()
            #expect(try loop.poll([]).tokens == [])
        }
    }

    /// Two threads put numbers into a box and ring; the owner blocks whenever it has found the box
    /// empty.
    ///
    /// A lost ring leaves it blocked for ever.
    @Test func `leaves nothing in the box that was put there before a ring`() throws {
        let each = 20_000
        let box = SharedBox()
        let bell = try Doorbell()
        var loop = try PollLoop()
        try loop.watch(descriptor: bell.descriptor, token: 1)
        let ringers = (0..<2).map { _ in
            OtherThread {
                for _ in 0..<each {
                    box.count.withLock { $0 += 1 }
                    bell.ring()
                }
            }
        }
        var taken = 0
        while taken < 2 * each {
            _ = try loop.waitPatiently()
            bell.clear()
            taken += box.count.withLock { count in
                defer { count = 0 }
                return count
            }
        }
        for ringer in ringers { ringer.join() }
        #expect(taken == 2 * each)
    }

    private final class SharedBox: Sendable {
        let count = Mutex(0)
    }
}
