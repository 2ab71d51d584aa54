// Part of QTasks. License: see LICENSE.
//
// Tasks that wait for a time: delayed adds and retries by the time since boot, and adds that are due at a
// moment of the wall clock, which may be set.

import HeapModule
import QTasksModel
import QTasksWire

extension BrokerState {
    /// A task waits for its time; what is due already goes to its line at once.
    mutating func schedule(
        _ task: QueuedTask,
        due: DueTime,
        isSuspect: Bool,
        in lane: Lanes.Number
    ) {
        let isDue = due.boot.map { $0 <= timedUpTo } ?? due.isReached(at: now)
        guard !isDue else { return lanes.push(task, isSuspect: isSuspect, to: lane) }
        lanes.addScheduled(1, to: lane)
        let waiting = ScheduledTask(due: due, task: task, isSuspect: isSuspect, lane: lane)
        if due.isByWall {
            scheduledByWall.set(Int(task.handle), rank: waiting)
        } else {
            scheduled.insert(waiting)
        }
    }

    /// Tasks whose time has come go to their lines.
    mutating func queueDue() {
        timedUpTo = max(timedUpTo, now.monotonic)
        while let task = scheduled.min, task.due.rawValue <= timedUpTo {
            _ = scheduled.popMin()
            if withdrawnTimes.isEmpty || !forgetWithdrawn(task) { queue(task) }
        }
        while let task = scheduledByWall.firstRank, task.due.isReached(at: now) {
            scheduledByWall.set(Int(task.task.handle), rank: nil)
            queue(task)
        }
    }

    /// Whether a task that was to wait until now was withdrawn.
    private mutating func forgetWithdrawn(_ task: ScheduledTask) -> Bool {
        let sequence = task.task.sequence
        guard let times = withdrawnTimes[sequence],
            let index = times.firstIndex(of: task.due.rawValue)
        else { return false }
        withdrawnTimes[sequence]?.remove(at: index)
        if times.count == 1 { withdrawnTimes[sequence] = nil }
        return true
    }

    private mutating func queue(_ due: ScheduledTask) {
        lanes.addScheduled(-1, to: due.lane)
        lanes.push(due.task, isSuspect: due.isSuspect, to: due.lane)
    }

    /// A task waits for its time no more.
    ///
    /// - Returns: Whether it still did; else it is in its line.
    mutating func withdrawTime(of place: QueuedPlace, _ due: DueTime) -> Bool {
        guard let boot = due.boot else {
            guard scheduledByWall.contains(Int(place.handle)) else { return false }
            scheduledByWall.set(Int(place.handle), rank: nil)
            return true
        }
        guard boot > timedUpTo else { return false }
        withdrawnTimes[place.sequence, default: []].append(boot)
        return true
    }
}
