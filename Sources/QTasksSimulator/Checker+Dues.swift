// Part of QTasks. License: see LICENSE.
//
// When a delayed task may be leased, whatever the log says of it and the wall clock is set to.

import QTasksModel
import QTasksStorage
import QTasksWire

/// A moment on both clocks; within one boot the one counts that nobody sets.
struct Due {
    /// Of the record that delays the task.
    var sequence: UInt64
    var bootID: TaskID
    var monotonic: UInt64
    var wall: Timestamp

    /// The same by the clock of the boot that Storage was opened in last, as the wall clock was set then.
    var reckoned: UInt64

    /// By this world's time, which nobody sets and no boot ends.
    var elapsed: UInt64
}

extension Due {
    mutating func reckon(_ now: Now, in boot: TaskID) {
        guard bootID != boot else { return }
        let left = max(0, wall.nanoseconds - now.wall.nanoseconds)
        reckoned = now.monotonic + UInt64(left)
    }
}

extension Checker {
    /// A delay is elapsed time.
    ///
    /// After a restart of the host it is not over before it is by the wall clock, as that was when the store
    /// was opened (H35): while the system runs, a step changes nothing.
    func checkDue(_ record: Ledger.Record) {
        record.bytes.withUnsafeBytes { bytes in
            switch StoredKind(rawValue: record.kind) {
            case .add:
                guard let id = StoredKind.add.taskID(in: bytes) else { return }
                let number = world.scenario.number(of: id)
                attempts[id] = nil
                dues[id] = nil
                guard number >= 0,
                    case .after(let wait) = world.scenario.tasks[number].submission.start
                else { return }
                dues[id] = [due(after: wait, record.sequence)]
            case .finish:
                var reader = WireReader(bytes)
                guard let finish = try? StoredFinish(from: &reader), finish.status == .scheduled,
                    let entry = try? ResultEntry(finish.result),
                    case .retry(_, let wait, _) = entry.outcome
                else { return }
                dues[entry.id, default: []].append(due(after: wait, record.sequence))
            case .lease:
                guard let id = StoredKind.lease.taskID(in: bytes) else { return }
                checkLease(of: id)
            default: break
            }
        }
    }

    private func due(after milliseconds: UInt64, _ sequence: UInt64) -> Due {
        let now = world.now
        let wait = milliseconds * .millisecond
        return Due(
            sequence: sequence,
            bootID: world.bootID,
            monotonic: now.monotonic + wait,
            wall: Timestamp(nanoseconds: now.wall.nanoseconds + Int64(wait)),
            reckoned: now.monotonic + wait,
            elapsed: world.time + wait
        )
    }

    private func checkLease(of id: TaskID) {
        // one that was leased before is due since then
        guard ledger.tasks[id]?.status == .scheduled else { return }
        guard let due = dues[id]?.last else { return checkMoment(of: id) }
        // what has really passed is never too early, whatever the wall clock was set to meanwhile
        guard due.reckoned > world.now.monotonic, due.elapsed > world.time else { return }
        fail("\(name(id)) is leased before its delay is over")
    }

    // MARK: Moments of the wall clock

    /// How long after the last fault ``checkMoments()`` looks, in nanoseconds.
    static let momentsPause = 500 * UInt64.second

    /// Far longer than anything else holds up a task then (``Scenario/patience``), in nanoseconds.
    private static let momentsSlack = 300 * Int64(UInt64.second)

    /// Whether tasks wait for a moment of the wall clock.
    var knowsMoments: Bool {
        world.scenario.tasks.contains {
            if case .at = $0.submission.start { true } else { false }
        }
    }

    /// The moment that a task waits for by the wall clock.
    private func moment(of id: TaskID) -> Timestamp? {
        let number = world.scenario.number(of: id)
        guard number >= 0, case .at(let moment) = world.scenario.tasks[number].submission.start
        else { return nil }
        return moment
    }

    /// `at` means the wall clock, whatever it was set to meanwhile: never early by it.
    private func checkMoment(of id: TaskID) {
        guard let moment = moment(of: id), moment > world.now.wall else { return }
        fail("\(name(id)) is leased before its moment on the wall clock")
    }

    /// A step forward fires it: long after the last fault nothing waits whose moment has passed.
    func checkMoments() {
        for (id, task) in ledger.tasks where task.status == .scheduled {
            guard dues[id]?.isEmpty ?? true, let moment = moment(of: id),
                moment.nanoseconds + Self.momentsSlack <= world.now.wall.nanoseconds
            else { continue }
            fail("\(name(id)) waits though the wall clock is past its moment")
        }
    }

    /// Storage has opened the store, and reads from it when tasks are due: it has records up to `last`.
    func reckonDues(upTo last: UInt64) {
        for id in dues.keys {
            dues[id]?.removeAll { $0.sequence > last }
            for index in dues[id]?.indices ?? 0..<0 {
                dues[id]?[index].reckon(world.now, in: world.bootID)
            }
        }
    }
}
