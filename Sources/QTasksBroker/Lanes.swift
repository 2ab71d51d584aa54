// Part of QTasks. License: see LICENSE.

import HeapModule
import QTasksModel
import QTasksWire

/// The tasks of one name in one queue, in the order in which they are leased.
struct Lane {
    /// What makes a lane: what a worker must know, and where the task waits.
    struct Key: Hashable {
        var queue: String
        var name: String
    }

    let key: Key
    var queued = TaskLine()

    /// Those that run alone, because a process died with them and others in it.
    var suspects = Heap<QueuedTask>()

    /// Adds proposed without a lease whose verdict is still to come: who comes later must not
    /// overtake them.
    var unanswered = 0

    /// Leases on tasks of this lane, and tasks that wait for a time.
    var leased = 0
    var scheduled = 0

    /// Workers that can run it now.
    var workers = 0

    var waiting: Int { queued.count + suspects.count }

    /// Whether nothing would be forgotten if the lane went.
    var isUnused: Bool {
        queued.isEmpty && suspects.isEmpty && unanswered == 0 && leased == 0 && scheduled == 0
    }
}

/// All lanes, by number: what refers to a lane keeps four bytes.
struct Lanes {
    typealias Number = Int

    private(set) var numbers: [Lane.Key: Number] = [:]
    private var lanes: [Lane?] = []
    private var free: [Number] = []

    /// Adds without a lease and without a verdict, in all lanes.
    private(set) var unanswered = 0

    /// Tasks that wait for a worker, in all lanes.
    private(set) var waiting = 0

    /// Tasks among them that run alone.
    private(set) var suspectsWaiting = 0

    subscript(number: Number) -> Lane {
        guard let lane = lanes[number] else { preconditionFailure("lane \(number) was closed") }
        return lane
    }

    var count: Int { numbers.count }

    /// Every open lane with its number.
    var open: [(number: Number, lane: Lane)] {
        lanes.enumerated().compactMap { index, lane in lane.map { (index, $0) } }
    }

    /// The lane's number, and whether it was just opened.
    mutating func number(for key: Lane.Key) -> (number: Number, isNew: Bool) {
        if let number = numbers[key] { return (number, false) }
        let number: Number
        if let reused = free.popLast() {
            number = reused
            lanes[number] = Lane(key: key)
        } else {
            number = lanes.count
            lanes.append(Lane(key: key))
        }
        numbers[key] = number
        return (number, true)
    }

    /// Closes a lane that nothing refers to any more; `true` if it did.
    mutating func closeIfUnused(_ number: Number) -> Bool {
        guard let lane = lanes[number], lane.isUnused else { return false }
        numbers[lane.key] = nil
        lanes[number] = nil
        free.append(number)
        return true
    }

    mutating func push(_ task: QueuedTask, isSuspect: Bool, to number: Number) {
        waiting += 1
        if isSuspect {
            suspectsWaiting += 1
            lanes[number]?.suspects.insert(task)
        } else {
            lanes[number]?.queued.insert(task)
        }
    }

    /// The same for many tasks at once, which differ in nothing but their places.
    mutating func push(_ run: QueuedRun, to number: Number) {
        for place in run.places {
            push(QueuedTask(place, priority: run.priority), isSuspect: run.isSuspect, to: number)
        }
    }

    func head(of number: Number) -> QueuedTask? { lanes[number]?.queued.first }

    func suspectHead(of number: Number) -> QueuedTask? {
        suspectsWaiting == 0 ? nil : lanes[number]?.suspects.min
    }

    /// Takes the head, the suspects' where `isSuspect`.
    mutating func popHead(of number: Number, isSuspect: Bool) -> QueuedTask? {
        let head =
            isSuspect ? lanes[number]?.suspects.popMin() : lanes[number]?.queued.removeFirst()
        if head != nil {
            waiting -= 1
            if isSuspect { suspectsWaiting -= 1 }
        }
        return head
    }

    /// A task that waits is cancelled.
    mutating func withdraw(_ task: QueuedTask, isSuspect: Bool, from number: Number) {
        waiting -= 1
        guard isSuspect else {
            lanes[number]?.queued.withdraw(task)
            return
        }
        // there are few
        suspectsWaiting -= 1
        if let suspects = lanes[number]?.suspects {
            lanes[number]?.suspects = Heap(suspects.unordered.filter { $0 != task })
        }
    }

    /// A task that had ended waits again, no suspect; it may have been withdrawn from the line.
    mutating func putBack(_ task: QueuedTask, to number: Number) {
        waiting += 1
        lanes[number]?.queued.putBack(task)
    }

    mutating func addUnanswered(_ change: Int, to number: Number) {
        unanswered += change
        lanes[number]?.unanswered += change
    }

    mutating func addLeased(_ change: Int, to number: Number) {
        lanes[number]?.leased += change
    }

    mutating func addScheduled(_ change: Int, to number: Number) {
        lanes[number]?.scheduled += change
    }

    mutating func addWorkers(_ change: Int, to number: Number) {
        lanes[number]?.workers += change
    }

    /// Forgets every task, and every lane: Storage tells them anew.
    mutating func removeAll() {
        self = Lanes()
    }
}
