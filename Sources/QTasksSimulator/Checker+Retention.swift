// Part of QTasks. License: see LICENSE.
//
// When finished tasks may be forgotten, and that they are (P3, P8).

import QTasksModel
import QTasksStorage
import QTasksWire

extension Checker {
    /// How long what was said of a task before it was forgotten may still be on its way: processes are
    /// stopped for 1.5 s at most.
    private static let underWay = 5 * UInt64.second

    /// How much later than it could a task may be forgotten: 10 s so that many go at a time, and twice a
    /// rounding to seconds.
    private static let lateness = 12 * Int64(UInt64.second)

    // MARK: One task

    /// A finished task stays at least as long as was asked for, by the clock of this world, whatever the
    /// log's own stamps say.
    func beforeExpiry(_ record: Ledger.Record) {
        switch StoredKind(rawValue: record.kind) {
        case .add:
            guard let id = id(in: record, .add) else { return fail("an ADD that can't be read") }
            if ledger.forgotten[id] != nil { statistics.addedAgain += 1 }
        case .expire:
            guard let id = id(in: record, .expire) else {
                return fail("an EXPIRE that can't be read")
            }
            statistics.forgotten += 1
            forgottenAt[id] = world.time
            changes.forgotten(id, record.sequence)
            // a task that isn't there, or goes on, is the ledger's to complain about
            guard let task = ledger.tasks[id], task.status.isFinal else { return }
            expiring.append((record.sequence, task.status))
            // a clock that is set back makes nobody wait longer than he asked for
            let time = world.time - (appendedTime[task.lastSequence] ?? 0)
            if isPurged(task) {
                world.count(.deadPurged)
            } else if let until = keptUntil(task), until > world.now.wall,
                time < seconds(task) * .second,
                // and a time that was over stays over
                !appendedOn.contains(where: { $0.key > task.lastSequence && $0.value >= until })
            {
                fail("P3: \(name(id)) is forgotten at \(world.now.wall), not \(until)")
            }
            if let end = told.removeValue(forKey: id) {
                compare(end, id)
                formerlyTold.insert(id)
            }
        default: break
        }
    }

    /// Whether an operator asked for a dead task to be forgotten.
    private func isPurged(_ task: Ledger.Task) -> Bool {
        task.status == .dead && changes.forgets.values.contains(task.id)
    }

    private func id(in record: Ledger.Record, _ kind: StoredKind) -> TaskID? {
        record.bytes.withUnsafeBytes { kind.taskID(in: $0) }
    }

    /// Until when a task that has ended has to be kept.
    private func keptUntil(_ task: Ledger.Task) -> Timestamp? {
        guard let ended = appendedOn[task.lastSequence] else {
            fail("\(name(task.id)) was ended by nobody")
            return nil
        }
        return Timestamp(nanoseconds: ended.nanoseconds + Int64(seconds(task) * .second))
    }

    private func seconds(_ task: Ledger.Task) -> UInt64 {
        if let own = task.keptFor { return max(own, Retention.secondsMin) }
        let rule = world.scenario.config.retention.standard
        let age = task.status.isFailure ? rule.failureSeconds : rule.seconds
        guard let most = rule.count else { return age }
        // the oldest go first, and none before the least
        let newer = ledger.tasks.values.filter { other in
            other.status.isFinal && other.keptFor == nil
                && other.status.isFailure == task.status.isFailure
                && other.placement.name == task.placement.name
                && other.lastSequence > task.lastSequence
        }
        return newer.count >= most ? Retention.secondsMin : age
    }

    // MARK: What is said of it

    /// Whether what is said of this ID may be of the task that was forgotten.
    func isJustForgotten(_ id: TaskID) -> Bool {
        guard ledger.forgotten[id] != nil, let since = forgottenAt[id] else { return false }
        return world.time - since <= Self.underWay
    }

    /// Whether somebody may be told that there is no such task.
    func mayBeUnknown(_ id: TaskID) -> Bool {
        if lost.contains(id) { return true }
        guard ledger.forgotten[id] != nil else { return false }
        guard let task = ledger.tasks[id] else { return true }
        guard let added = appendedTime[task.placement.sequence] else { return false }
        return world.time - added <= Self.underWay
    }

    // MARK: The end

    /// Whoever is kept too long is forgotten by now, and Storage knows when the next one goes.
    func checkRetention() {
        guard let storage = world.broker?.child, let state = storage.state else {
            return fail("there is no Storage")
        }
        do {
            try ledger.compare(with: state.tasks)
        } catch {
            fail((error as? Ledger.Complaint)?.text ?? "\(error)")
        }
        let end = world.now.wall.nanoseconds + Int64(world.end - world.time)
        // what is kept until some time of the wall clock is kept longer where that was set back, and is
        // looked at when the clock of this boot says so
        let slack = Int64(world.clockMoves)
        let ended = ledger.tasks.values.filter(\.status.isFinal).sorted { $0.id < $1.id }
        var next: Int64?
        for task in ended {
            guard let until = keptUntil(task)?.nanoseconds else { return }
            if until + Self.lateness + slack < end { fail("nobody forgets \(name(task.id))") }
            next = min(next ?? .max, until)
        }
        let deadline = storage.restDeadline.map {
            world.now.wall.nanoseconds + Int64(world.worldTime(ofBoot: $0)) - Int64(world.time)
        }
        switch (deadline, next) {
        case (nil, nil): break
        case (let deadline?, let next?):
            if deadline <= end || deadline < next - slack
                || deadline > next + Self.lateness + slack
            {
                fail("P8: Storage wakes up at \(deadline) to forget what is kept until \(next)")
            }
        case (let deadline?, nil): fail("P8: Storage wakes up at \(deadline) for nothing")
        case (nil, let next?): fail("Storage won't wake up to forget what is kept until \(next)")
        }
    }
}
