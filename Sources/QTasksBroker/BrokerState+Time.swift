// Part of QTasks. License: see LICENSE.
//
// Tasks that wait for a time: delayed adds and retries.

import HeapModule
import QTasksModel
import QTasksWire

extension BrokerState {
    /// A task waits for its time; what is due already goes to its line at once.
    mutating func schedule(
        _ task: QueuedTask,
        due: UInt64,
        isSuspect: Bool,
        in lane: Lanes.Number
    ) {
        guard due > timedUpTo else { return lanes.push(task, isSuspect: isSuspect, to: lane) }
        lanes.addScheduled(1, to: lane)
        scheduled.insert(
            ScheduledTask(due: due, task: task, isSuspect: isSuspect, lane: lane)
        )
    }

    /// Tasks whose time has come go to their lines.
    mutating func queueDue() {
        timedUpTo = max(timedUpTo, now.monotonic)
        while let task = scheduled.min, task.due <= timedUpTo {
            _ = scheduled.popMin()
            if !withdrawnTimes.isEmpty, withdrawnTimes[task.task.sequence] == task.due {
                withdrawnTimes[task.task.sequence] = nil
                continue
            }
            lanes.addScheduled(-1, to: task.lane)
            lanes.push(task.task, isSuspect: task.isSuspect, to: task.lane)
        }
    }
}
