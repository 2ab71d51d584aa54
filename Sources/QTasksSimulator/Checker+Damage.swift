// Part of QTasks. License: see LICENSE.
//
// After bits turned over: what was acknowledged is there, or is reported (P9).

import AppendLog
import QTasksModel
import QTasksStorage

extension Checker {
    /// Storage found its log damaged, and said so: whatever is missing has to be among what it said.
    func damageReported(_ store: OpenedStore) {
        let recovery = store.log.recovery
        // bytes that nobody can read may have held any record
        guard recovery.damaged.isEmpty, store.unreadable == 0 else { return }
        let known = store.state.tasks.index
        for task in ledger.tasks.values.sorted(by: { $0.id < $1.id })
        where known.number(of: task.id) == nil && acknowledged[task.id] != nil {
            let isReported = recovery.lost.contains {
                $0.sequences.contains(task.placement.sequence)
            }
            if !isReported { fail("P9: \(name(task.id)) is gone, and that isn't reported") }
        }
    }
}
