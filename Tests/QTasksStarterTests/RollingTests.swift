// Part of QTasks. License: see LICENSE.

import QTasksProcess
import Testing

@testable import QTasksStarter

private let second: UInt64 = 1_000_000_000

/// The rolling restart, and other ends of workers that are in order, in virtual time.
@Suite struct `A rolling restart` {
    private func exit(_ code: Int32) -> ExitReport {
        ExitReport(
            pid: 1,
            cause: .exited(code: code),
            maxResidentBytes: 0,
            userMicroseconds: 0,
            systemMicroseconds: 0
        )
    }

    private func serving(endsWhenIdle: Bool = false) -> StarterState {
        var starter = StarterState(
            workers: 2,
            graceMilliseconds: 10_000,
            endsWhenIdle: endsWhenIdle
        )
        starter.begin(now: 0)
        starter.brokerConnected()
        starter.ready()
        return starter
    }

    /// What was to be done, without the log's lines.
    private func deeds(_ starter: inout StarterState) -> [StarterState.Deed] {
        starter.takeDeeds().filter { if case .log = $0 { false } else { true } }
    }

    @Test func `lets a worker go only once its successor has joined, one after the other`() {
        var starter = serving()
        _ = starter.takeDeeds()
        starter.rollRequested(now: second)
        #expect(deeds(&starter) == [.start(.worker(2))])
        starter.joined(.worker(2), now: second)
        #expect(deeds(&starter) == [.retire(.worker(0))])
        starter.ended(.worker(0), exit(0), now: 2 * second)
        #expect(deeds(&starter) == [.start(.worker(3))])
        starter.joined(.worker(3), now: 2 * second)
        #expect(deeds(&starter) == [.retire(.worker(1))])
        starter.ended(.worker(1), exit(0), now: 3 * second)
        #expect(deeds(&starter) == [.tellRolled(failure: "")])
        #expect(!starter.isRolling)
        #expect(starter.nextDeadline == nil, "P8: nothing is awaited")
    }

    @Test func `ends where a new worker doesn't come up, and the old ones work on`() {
        var starter = serving()
        _ = starter.takeDeeds()
        starter.rollRequested(now: second)
        starter.ended(.worker(2), exit(78), now: 2 * second)
        let after = deeds(&starter)
        #expect(after.count == 2)
        guard case .tellRolled(let failure) = after.last else {
            Issue.record("\(after)")
            return
        }
        #expect(failure.contains("exit code 78"))
        starter.ended(.worker(0), exit(1), now: 3 * second)
        #expect(deeds(&starter) == [.start(.worker(0))])
    }

    @Test func `ends where a new worker takes too long to join, and leaves no third one`() {
        var starter = serving()
        _ = starter.takeDeeds()
        starter.rollRequested(now: second)
        _ = starter.takeDeeds()
        #expect(starter.nextDeadline == 31 * second)
        starter.timer(now: 31 * second)
        #expect(deeds(&starter).first == .kill(.worker(2)))
        starter.ended(.worker(2), exit(1), now: 32 * second)
        #expect(deeds(&starter).isEmpty)
    }

    @Test func `needs nobody let go who died meanwhile, and starts no second successor`() {
        var starter = serving()
        starter.rollRequested(now: second)
        _ = starter.takeDeeds()
        starter.ended(.worker(0), exit(1), now: second)
        #expect(deeds(&starter).isEmpty)
        starter.joined(.worker(2), now: 2 * second)
        #expect(deeds(&starter) == [.start(.worker(3))])
    }

    @Test func `that is asked for twice is one, and one that is interrupted by a stop is told so`()
    {
        var starter = serving()
        starter.rollRequested(now: second)
        _ = starter.takeDeeds()
        starter.rollRequested(now: second)
        #expect(deeds(&starter).isEmpty)
        starter.stopRequested(now: second)
        #expect(
            deeds(&starter) == [
                .tellRolled(failure: "the system is being stopped"),
                .tellDrain(graceMilliseconds: 10_000),
            ]
        )
        starter.joined(.worker(2), now: 2 * second)
        #expect(deeds(&starter).isEmpty)
    }

    @Test(arguments: [true, false])
    func `isn't needed for a worker that ends in order: its successor comes at once`(
        isToldBefore: Bool
    ) {
        var starter = serving()
        // a second death within ten seconds would cost a pause
        starter.ended(.worker(0), exit(1), now: second)
        _ = starter.takeDeeds()
        if isToldBefore { starter.endsInOrder(.worker(0), now: 2 * second) }
        starter.ended(.worker(0), exit(0), now: 2 * second)
        if !isToldBefore { starter.endsInOrder(.worker(0), now: 2 * second) }
        #expect(deeds(&starter) == [.start(.worker(0))])
        #expect(starter.nextDeadline == nil)
    }

    @Test func `aside, a system that ends when idle stops once the Broker finds it so`() {
        var starter = serving(endsWhenIdle: true)
        #expect(deeds(&starter).contains(.tellEndWhenIdle))
        starter.idle(now: second)
        #expect(deeds(&starter).isEmpty, "the Broker drains already")
        starter.drained()
        #expect(deeds(&starter) == [.tellStop])
        starter.ended(.broker, exit(0), now: 2 * second)
        #expect(deeds(&starter).contains(.terminate(.worker(0))))
    }
}
