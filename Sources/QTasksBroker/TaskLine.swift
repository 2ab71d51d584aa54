// Part of QTasks. License: see LICENSE.

import DequeModule
import HeapModule
import QTasksWire

/// Tasks that wait, in the order in which they are leased (P6).
///
/// ```
///  levels, by priority   7: run [100 101 104 | 110 111 ...]  late {98, 3}
///                        0: run [  5   9  13 ...]            late {}
/// ```
///
/// Nearly all come in the order of their adds: each priority has them in a run, 8 bytes a task. Those
/// that come back at a place before the run's end (a retry, a release) go into a heap beside it,
/// 16 bytes each. Nothing takes longer than the heap's logarithm, but for the first task of a
/// priority, which moves the levels of higher ones aside; and growing a run copies nothing. With ageing
/// the first task is looked for among those of all priorities.
struct TaskLine {
    /// By priority, the highest last; none is empty.
    private var levels: [TaskLevel] = []

    /// Sequences of tasks that were withdrawn and lie behind the first one of their level still; the first
    /// never is such a one.
    private var withdrawn: Set<UInt64> = []

    private(set) var count = 0

    /// See `QueueRules.ageing`.
    var ageing: UInt32?

    var isEmpty: Bool { count == 0 }

    /// The task that is leased next.
    var first: QueuedTask? { nextLevel.map { levels[$0].first } }

    /// What decides between the first task and those of other lines.
    var firstRank: LeaseRank? { first.map { LeaseRank($0, ageing: ageing) } }

    private var nextLevel: Int? {
        guard ageing != nil, levels.count > 1 else { return levels.indices.last }
        return levels.indices.min {
            LeaseRank(levels[$0].first, ageing: ageing)
                < LeaseRank(levels[$1].first, ageing: ageing)
        }
    }

    mutating func insert(_ task: QueuedTask) {
        count += 1
        let index = levelIndex(for: task.priority)
        if index == levels.count || levels[index].priority != task.priority {
            levels.insert(TaskLevel(task), at: index)
        } else {
            levels[index].insert(task)
        }
    }

    /// The same for many tasks at once, by sequence.
    mutating func insert(_ run: QueuedRun) {
        guard let first = run.places.first else { return }
        insert(QueuedTask(first, priority: run.priority))
        let index = levelIndex(for: run.priority)
        for place in run.places.dropFirst() {
            levels[index].insert(QueuedTask(place, priority: run.priority))
        }
        count += run.places.count - 1
    }

    /// Takes out the task that is leased next.
    mutating func removeFirst() -> QueuedTask? {
        guard let index = nextLevel else { return nil }
        count -= 1
        let first = levels[index].first
        dropFirst(of: index)
        return first
    }

    /// Takes out a task wherever it stands; in O(1), and its place once it has come to the front.
    mutating func withdraw(_ task: QueuedTask) {
        count -= 1
        let index = levelIndex(for: task.priority)
        precondition(
            index < levels.count && levels[index].priority == task.priority,
            "who is withdrawn waits here"
        )
        guard levels[index].first == task else {
            withdrawn.insert(task.sequence)
            return
        }
        dropFirst(of: index)
    }

    /// Inserts a task that may have been withdrawn from here.
    mutating func putBack(_ task: QueuedTask) {
        guard withdrawn.remove(task.sequence) != nil else { return insert(task) }
        count += 1
    }

    /// Drops a level's first task, what was withdrawn behind it, and the level where that was all.
    private mutating func dropFirst(of index: Int) {
        repeat {
            guard levels[index].removeFirst() else {
                levels.remove(at: index)
                return
            }
        } while !withdrawn.isEmpty && withdrawn.remove(levels[index].first.sequence) != nil
    }

    /// Where the level of that priority is, or belongs.
    private func levelIndex(for priority: Int16) -> Int {
        // most have one priority
        if let last = levels.indices.last, levels[last].priority == priority { return last }
        var (low, high) = (0, levels.count)
        while low < high {
            let middle = (low + high) / 2
            if levels[middle].priority < priority { low = middle + 1 } else { high = middle }
        }
        return low
    }
}

/// Who goes first of tasks in different lines: the lower.
struct LeaseRank: Comparable {
    private let level: Int32
    private let order: Int64

    /// - Parameters:
    ///   - task: The task.
    ///   - ageing: How many later adds a level of priority is worth; `nil`: however many there are.
    init(_ task: QueuedTask, ageing: UInt32?) {
        let sequence = Int64(clamping: task.sequence)
        guard let ageing else {
            level = -Int32(task.priority)
            order = sequence
            return
        }
        level = 0
        order = sequence - Int64(task.priority) * Int64(ageing)
    }

    static func < (left: Self, right: Self) -> Bool {
        left.level != right.level ? left.level < right.level : left.order < right.order
    }
}

/// Tasks of one priority, never none.
private struct TaskLevel {
    let priority: Int16
    private var run: TaskRun?
    private var late = Heap<QueuedTask>()

    init(_ task: QueuedTask) {
        priority = task.priority
        run = TaskRun(task)
    }

    var first: QueuedTask {
        guard let head = run?.first else {
            guard let late = late.min else { preconditionFailure("a level is never empty") }
            return late
        }
        guard let late = late.min, late < head else { return head }
        return late
    }

    mutating func insert(_ task: QueuedTask) {
        guard let newest = run?.newest else {
            // what waits in the heap may come before or behind it
            run = TaskRun(task)
            return
        }
        if newest < task.sequence { run?.append(task) } else { late.insert(task) }
    }

    /// - Returns: Whether there are more.
    mutating func removeFirst() -> Bool {
        if let late = late.min, late == first {
            self.late.removeMin()
        } else if run?.count == 1 {
            run = nil
        } else {
            run?.removeFirst()
        }
        return run != nil || !late.isEmpty
    }
}

/// Tasks of one priority in the order of their adds: a queue of chunks, never empty.
private struct TaskRun {
    /// Tasks in a chunk: 8 KiB.
    private static let chunkTasks = 1024

    private struct Task {
        /// From the chunk's ``Chunk/base``.
        var distance: UInt32
        var handle: UInt32
    }

    private struct Chunk {
        let base: UInt64
        var tasks: ContiguousArray<Task>

        func takes(_ sequence: UInt64) -> Bool {
            tasks.count < TaskRun.chunkTasks && sequence - base <= UInt64(UInt32.max)
        }

        mutating func append(_ task: QueuedTask) {
            tasks.append(Task(distance: UInt32(task.sequence - base), handle: task.handle))
        }
    }

    let priority: Int16
    /// The sequence of its last task.
    private(set) var newest: UInt64
    private(set) var count = 1
    private var head = 0
    // apart from the others and grown as needed, so that a line of few tasks is small
    private var front: Chunk
    private var others = Deque<Chunk>()

    init(_ task: QueuedTask) {
        priority = task.priority
        newest = task.sequence
        front = Chunk(base: task.sequence, tasks: [])
        front.append(task)
    }

    var first: QueuedTask {
        let task = front.tasks[head]
        let place = QueuedPlace(
            sequence: front.base + UInt64(task.distance),
            handle: task.handle
        )
        return QueuedTask(place, priority: priority)
    }

    mutating func append(_ task: QueuedTask) {
        newest = task.sequence
        count += 1
        if others.isEmpty, front.takes(task.sequence) { return front.append(task) }
        if others.last?.takes(task.sequence) != true {
            others.append(Chunk(base: task.sequence, tasks: []))
            others[others.count - 1].tasks.reserveCapacity(Self.chunkTasks)
        }
        others[others.count - 1].append(task)
    }

    /// Drops the first task, which isn't the last.
    mutating func removeFirst() {
        count -= 1
        head += 1
        guard head == front.tasks.count, let next = others.popFirst() else { return }
        front = next
        head = 0
    }
}
