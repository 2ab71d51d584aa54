// Part of QTasks. License: see LICENSE.

import DequeModule
import HeapModule
import QTasksWire

/// Tasks that wait, in the order in which they are leased (P6).
///
/// ```
///  runs, by priority   7: [100 101 104 | 110 111 ...]     late: {98, 3}
///                      0: [  5   9  13 ...]
/// ```
///
/// Nearly all come in the order of their adds: each priority has them in a run, 8 bytes a task. Those
/// that come back at a place before the run's end (a retry, a release) go into a heap beside the runs,
/// 16 bytes each. Nothing takes longer than the heap's logarithm, but for the first task of a
/// priority, which moves the runs of higher ones aside; and growing a run copies nothing.
struct TaskLine {
    /// By priority, the highest last; none is empty.
    private var runs: [TaskRun] = []
    private var late = Heap<QueuedTask>()

    /// Sequences of tasks that were withdrawn and lie behind the first one still; the first never is
    /// such a one.
    private var withdrawn: Set<UInt64> = []

    private(set) var count = 0

    var isEmpty: Bool { count == 0 }

    /// The task that is leased next.
    var first: QueuedTask? {
        guard let last = runs.indices.last else { return late.min }
        let head = runs[last].first
        guard let late = late.min, late < head else { return head }
        return late
    }

    mutating func insert(_ task: QueuedTask) {
        count += 1
        let index = runIndex(for: task.priority)
        if index == runs.count || runs[index].priority != task.priority {
            runs.insert(TaskRun(task), at: index)
        } else if runs[index].newest < task.sequence {
            runs[index].append(task)
        } else {
            late.insert(task)
        }
    }

    /// Takes out the task that is leased next.
    mutating func removeFirst() -> QueuedTask? {
        guard let first else { return nil }
        count -= 1
        dropFirst(first)
        dropWithdrawn()
        return first
    }

    /// Takes out a task wherever it stands; in O(1), and its place once it has come to the front.
    mutating func withdraw(_ task: QueuedTask) {
        count -= 1
        withdrawn.insert(task.sequence)
        dropWithdrawn()
    }

    /// Inserts a task that may have been withdrawn from here.
    mutating func putBack(_ task: QueuedTask) {
        guard withdrawn.remove(task.sequence) != nil else { return insert(task) }
        count += 1
    }

    private mutating func dropWithdrawn() {
        while !withdrawn.isEmpty, let first, withdrawn.remove(first.sequence) != nil {
            dropFirst(first)
        }
    }

    private mutating func dropFirst(_ first: QueuedTask) {
        if let late = late.min, late == first {
            self.late.removeMin()
            return
        }
        let last = runs.count - 1
        if runs[last].count == 1 {
            runs.removeLast()
        } else {
            runs[last].removeFirst()
        }
    }

    /// Where the run of that priority is, or belongs.
    private func runIndex(for priority: Int16) -> Int {
        // most have one priority
        if let last = runs.indices.last, runs[last].priority == priority { return last }
        var (low, high) = (0, runs.count)
        while low < high {
            let middle = (low + high) / 2
            if runs[middle].priority < priority { low = middle + 1 } else { high = middle }
        }
        return low
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
