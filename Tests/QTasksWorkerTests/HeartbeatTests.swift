// Part of QTasks. License: see LICENSE.

import QTasksWire
import Testing

@testable import QTasksWorker

@Suite
struct `A worker's heartbeats` {
    private static let watched = WatchedMessage(
        intervalMilliseconds: 2000,
        silenceMilliseconds: 10_000
    )

    @Test func `are offered, and not sent unless the Broker asks for them (P8)`() throws {
        var bench = try Bench.inSession()
        #expect(bench.hello?.sendsHeartbeats == true)
        #expect(bench.state.nextDeadline == nil)
        try bench.pass(100 * Bench.second)
        #expect(!bench.said.contains(.heartbeat))
    }

    @Test func `are as far apart as the Broker says`() throws {
        var bench = try Bench.inSession()
        try bench.hear(Self.watched.encoded())
        bench.said = []
        try bench.pass(2 * Bench.second - 1)
        #expect(bench.said.isEmpty)
        try bench.pass(1)
        #expect(bench.said == [.heartbeat])
        try bench.pass(20 * Bench.second)
        #expect(bench.said.count == 11)
    }

    @Test func `wait while something else is said`() throws {
        var bench = try Bench.inSession(slots: 1)
        try bench.hear(Self.watched.encoded())
        try bench.work([1])
        try bench.pass(Bench.second)
        bench.said = []
        try bench.finish(1)
        try #require(bench.said.count == 1, "it has room again")
        try bench.pass(2 * Bench.second - 1)
        #expect(!bench.said.contains(.heartbeat))
        try bench.pass(1)
        #expect(bench.said.contains(.heartbeat))
    }

    @Test func `end with the session, and with those before HELLO`() throws {
        var bench = Bench()
        try bench.hear(Self.watched.encoded())
        #expect(bench.state.nextDeadline == nil, "nobody has greeted it")
        try bench.welcome()
        try bench.reconcile([])
        try bench.hear(Self.watched.encoded())
        try bench.welcome(incarnation: 2)
        try bench.reconcile([])
        bench.said = []
        try bench.pass(100 * Bench.second)
        #expect(bench.said.isEmpty)
    }

    @Test func `go on while a leaving worker finishes what runs`() throws {
        var bench = try Bench.inSession()
        try bench.hear(Self.watched.encoded())
        try bench.work([1])
        bench.state.leave()
        try bench.turn()
        bench.said = []
        try bench.pass(4 * Bench.second)
        #expect(bench.said == [.heartbeat, .heartbeat])
    }
}
