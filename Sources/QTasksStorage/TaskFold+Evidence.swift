// Part of QTasks. License: see LICENSE.
//
// What is known of the ends of workers goes with the tasks that they held.

import AppendLog
import QTasksModel
import QTasksWire

extension TaskFold {
    /// How a worker ended that held a task, or where compaction has moved what tells it.
    mutating func apply(_ stored: StoredEvidence, at place: StoredPlace) {
        latest = max(latest, stored.at)
        let holding = stored.holding
        unexplained.remove(holding)
        if let number = index.number(of: holding.id), place.sequence < index.core(number).sequence {
            return  // an earlier task's, of the same ID
        }
        keepEvidence(
            EvidenceTable.Item(
                lease: holding.lease,
                sequence: place.sequence,
                position: place.position,
                bytes: place.bytes
            ),
            of: holding.id
        )
    }

    mutating func keepEvidence(_ item: EvidenceTable.Item, of task: TaskID) {
        usage.add(item.bytes, in: item.position.segment)
        if let gone = evidence.insert(item, of: task) {
            usage.remove(gone.bytes, in: gone.position.segment)
        }
    }

    /// A task is gone, or its epoch is over: so is what was known up to then.
    mutating func dropEvidence(of task: TaskID, before sequence: UInt64 = .max) {
        unexplained.removeAll(of: task)
        let dropped = evidence.drop(of: task, before: sequence)
        for item in dropped { usage.remove(item.bytes, in: item.position.segment) }
    }

    /// All is read: what belongs to no task that is there is of no use.
    mutating func dropStrayEvidence() {
        let dropped = evidence.drop { task, item in
            guard let number = index.number(of: task) else { return true }
            return item.sequence < index.core(number).sequence
        }
        for item in dropped { usage.remove(item.bytes, in: item.position.segment) }
    }

    /// A lease ended with its worker's process, whose end may yet be explained.
    mutating func noteDeath(_ holding: Holding, of worker: WorkerTable.Number) {
        // another boot's processes are nobody's to explain, and their numbers are given out again
        guard worker != WorkerTable.none, let process = workers[worker].process,
            process.bootID == bootID
        else { return }
        unexplained.note(holding, workers[worker].id, process)
    }
}
