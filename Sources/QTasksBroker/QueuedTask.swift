// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire

/// A queued task in its line: 16 bytes.
///
/// Its ID is Storage's to know until it is leased.
///
/// Ordered as tasks are leased: higher priority first, then the add's sequence (P6).
struct QueuedTask: Comparable {
    var sequence: UInt64
    /// Storage's number for it in this session.
    var handle: UInt32
    var priority: Int16

    init(_ place: QueuedPlace, priority: Int16) {
        sequence = place.sequence
        handle = place.handle
        self.priority = priority
    }

    init(_ placement: Placement) {
        self.init(placement.place, priority: placement.priority)
    }

    var place: QueuedPlace { QueuedPlace(sequence: sequence, handle: handle) }

    static func < (left: Self, right: Self) -> Bool {
        left.priority != right.priority
            ? left.priority > right.priority : left.sequence < right.sequence
    }
}

/// A task that waits for a time: 32 bytes.
///
/// Ordered by time among those of one clock.
struct ScheduledTask: Comparable {
    let due: DueTime
    private let sequence: UInt64
    private let handle: UInt32
    private let laneNumber: UInt32
    private let priority: Int16
    let isSuspect: Bool

    init(due: DueTime, task: QueuedTask, isSuspect: Bool, lane: Lanes.Number) {
        self.due = due
        sequence = task.sequence
        handle = task.handle
        laneNumber = UInt32(lane)
        priority = task.priority
        self.isSuspect = isSuspect
    }

    var task: QueuedTask {
        QueuedTask(QueuedPlace(sequence: sequence, handle: handle), priority: priority)
    }

    var lane: Lanes.Number { Int(laneNumber) }

    static func < (left: Self, right: Self) -> Bool {
        left.due != right.due
            ? left.due.rawValue < right.due.rawValue : left.task < right.task
    }

    static func == (left: Self, right: Self) -> Bool {
        left.due == right.due && left.task == right.task
    }
}
