// Part of QTasks. License: see LICENSE.
//
// Tasks that have to start by a time, and unique keys (P3).

import QTasksModel
import QTasksStorage
import QTasksWire

extension Checker {
    /// A record that ends a task which nobody leased in time, or leases one.
    func checkStanding(_ record: Ledger.Record) {
        let kind = StoredKind(rawValue: record.kind)
        guard kind == .lease || kind == .cancel,
            let id = record.bytes.withUnsafeBytes({ kind?.taskID(in: $0) }),
            let task = ledger.tasks[id]
        else { return }
        let number = world.scenario.number(of: id)
        let expires = number < 0 ? nil : world.scenario.tasks[number].submission.expires
        let isOver = expires.map { $0 <= world.now.wall } ?? false
        let awaitsStart = task.attempt == 0 && task.epoch == 0
        if kind == .lease {
            if isOver, awaitsStart { fail("\(name(id)) starts after its time") }
        } else if isEndOfTime(record) {
            if !isOver || !awaitsStart { fail("\(name(id)) is ended as if its time were over") }
            statistics.expired += 1
        }
    }

    /// Whether a cancel is Storage's own, and nobody's who asked for it.
    private func isEndOfTime(_ record: Ledger.Record) -> Bool {
        record.bytes.withUnsafeBytes { bytes in
            var reader = WireReader(bytes)
            guard let cancel = try? StoredFinish(from: &reader),
                let entry = try? ResultEntry(cancel.result)
            else { return false }
            return entry.outcome == .cancel(reason: "expired")
        }
    }

    /// A client is told that another task holds the key of the one that he adds.
    func checkRepeat(of id: TaskID, _ holder: TaskID) {
        guard let task = ledger.tasks[holder] ?? ledger.forgotten[holder] else {
            return fail("P1: \(name(id)) is said to be \(name(holder)), which isn't in the log")
        }
        let scenario = world.scenario
        let (one, other) = (scenario.number(of: id), scenario.number(of: holder))
        guard one >= 0, other >= 0, one != other else {
            return fail("\(name(id)) is said to be \(name(holder))")
        }
        let (added, held) = (scenario.tasks[one].submission, scenario.tasks[other].submission)
        guard added.name == held.name, let key = added.unique?.bytes, key == held.unique?.bytes
        else { return fail("\(name(id)) and \(name(holder)) have different keys") }
        for id in [id, holder] where !isSafe(task.placement.sequence, for: id) {
            fail(
                "P1: \(name(holder)) is said to hold a key; its record \(task.placement.sequence) is not "
                    + "\(durability(of: id)) yet"
            )
        }
        repeats.insert(id)
        acknowledged[holder] = task.placement.sequence
        statistics.repeats += 1
    }
}

extension Ledger {
    /// The task that holds a key at that moment.
    func holder(of key: [UInt8], named name: String, at moment: Timestamp) -> Task? {
        tasks.values.first { task in
            guard let unique = task.unique, unique.bytes == key, task.placement.name == name else {
                return false
            }
            switch unique.scope {
            case .whileQueued:
                return task.attempt == 0 && (task.status == .new || task.status == .scheduled)
            case .whileUnfinished: return !task.status.isFinal
            case .window(let seconds):
                let end = task.addedAt.nanoseconds + Int64(seconds) * 1_000_000_000
                return moment.nanoseconds < end
            }
        }
    }
}
