// Part of QTasks. License: see LICENSE.

import QTasksProcess
import Testing

@testable import QTasksStarter

private let second: UInt64 = 1_000_000_000

/// What the Starter decides, in virtual time.
@Suite struct `The Starter` {
    private func exit(_ code: Int32) -> ExitReport {
        ExitReport(
            pid: 1,
            cause: .exited(code: code),
            maxResidentBytes: 0,
            userMicroseconds: 0,
            systemMicroseconds: 0
        )
    }

    private func serving() -> StarterState {
        var starter = StarterState(workers: 2, graceMilliseconds: 10_000)
        starter.begin(now: 0)
        starter.brokerConnected()
        starter.ready()
        _ = starter.takeDeeds()
        return starter
    }

    @Test func `starts workers and Broker, and nothing else`() {
        var starter = StarterState(workers: 2, graceMilliseconds: 0)
        starter.begin(now: 0)
        #expect(
            starter.takeDeeds() == [.start(.worker(0)), .start(.worker(1)), .start(.broker)]
        )
        #expect(starter.nextDeadline == nil, "P8: nothing is awaited")
    }

    @Test func `restarts a dead child at once, then with growing pauses`() {
        var starter = serving()
        starter.ended(.worker(0), exit(1), now: second)
        #expect(starter.takeDeeds().contains(.start(.worker(0))))
        starter.ended(.worker(0), exit(1), now: 2 * second)
        #expect(!starter.takeDeeds().contains(.start(.worker(0))))
        #expect(starter.nextDeadline == 2 * second + second / 10)
        starter.timer(now: 2 * second + second / 10)
        #expect(starter.takeDeeds().contains(.start(.worker(0))))
    }

    @Test func `stops in the seed's order: drain, Broker, workers`() {
        var starter = serving()
        starter.stopRequested(now: second)
        #expect(starter.takeDeeds().contains(.tellDrain(graceMilliseconds: 10_000)))
        starter.drained()
        #expect(starter.takeDeeds() == [.tellStop])
        starter.ended(.broker, exit(0), now: 2 * second)
        let stopping = starter.takeDeeds()
        #expect(stopping.contains(.terminate(.worker(0))))
        #expect(stopping.contains(.terminate(.worker(1))))
        starter.ended(.worker(0), exit(0), now: 2 * second)
        #expect(starter.takeDeeds().isEmpty)
        starter.ended(.worker(1), exit(0), now: 2 * second)
        #expect(starter.takeDeeds() == [.finish(code: 0)])
        #expect(starter.nextDeadline == nil)
    }

    @Test func `takes a request that arrives twice for one, and a second one at its word`() {
        var starter = serving()
        starter.stopRequested(now: second)
        _ = starter.takeDeeds()
        starter.stopRequested(now: second + second / 10)
        #expect(starter.takeDeeds().isEmpty)
        starter.stopRequested(now: 2 * second)
        let deeds = starter.takeDeeds()
        #expect(deeds.contains(.kill(.broker)))
        #expect(deeds.contains(.kill(.worker(0))))
    }

    @Test func `kills what takes longer than the grace period and five seconds`() {
        var starter = serving()
        starter.stopRequested(now: second)
        _ = starter.takeDeeds()
        #expect(starter.nextDeadline == 16 * second)
        starter.timer(now: 16 * second)
        #expect(starter.takeDeeds().contains(.kill(.broker)))
    }

    @Test func `gives up where a part would fail again, and says so with its code`() {
        var starter = serving()
        starter.ended(.broker, exit(78), now: second)
        #expect(starter.takeDeeds().contains(.kill(.worker(0))))
        starter.ended(.worker(0), exit(0), now: second)
        starter.ended(.worker(1), exit(0), now: second)
        #expect(starter.takeDeeds() == [.finish(code: 78)])
    }

    @Test func `restarts a Broker that dies during a drain, so that releases are committed`() {
        var starter = serving()
        starter.stopRequested(now: second)
        _ = starter.takeDeeds()
        starter.ended(.broker, exit(9), now: 2 * second)
        #expect(starter.takeDeeds().contains(.start(.broker)))
        starter.brokerConnected()
        #expect(
            starter.takeDeeds().contains(.tellDrain(graceMilliseconds: 10_000)),
            "the new one is told to drain too"
        )
    }
}
