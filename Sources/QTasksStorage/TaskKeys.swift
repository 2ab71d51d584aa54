// Part of QTasks. License: see LICENSE.

import QTasksModel

/// The keys of the tasks that have one and may still run: what limits per key go by.
///
/// Each key is kept once, with how many tasks have it. A task without one costs nothing, one with one 4
/// bytes: they lie in pages by the task's number, so that growing copies nothing.
package struct TaskKeys {
    typealias Key = [UInt8]

    private struct Page {
        static let bits: UInt32 = 12
        static let count = 1 << Int(bits)

        /// Each key's number plus one; 0: none.
        var keys = ContiguousArray<UInt32>(repeating: 0, count: count)
        var used = 0
    }

    private struct Entry {
        var key: Key
        var tasks: Int
    }

    private var pages: [Page?] = []
    private var entries: [Entry] = []
    private var free: [UInt32] = []
    private var numbers = ShardedNumbers<Key, UInt32>()

    /// How many tasks have one.
    private(set) var taskCount = 0

    var isEmpty: Bool { taskCount == 0 }

    /// How many there are.
    var count: Int { entries.count - free.count }

    /// A task's key; `nil` where it has none.
    subscript(task: TaskIndex.Number) -> Key? {
        guard !isEmpty else { return nil }
        return number(of: task).map { entries[Int($0)].key }
    }

    /// A task's key by a number that stands for it until the next change.
    func number(of task: TaskIndex.Number) -> UInt32? {
        let page = Int(task >> Page.bits)
        guard !isEmpty, page < pages.count, let keys = pages[page]?.keys else { return nil }
        let number = keys[Int(task) & (Page.count - 1)]
        return number == 0 ? nil : number - 1
    }

    /// The key with such a number.
    func key(_ number: UInt32) -> Key { entries[Int(number)].key }

    /// A task that has none gets its key; nothing happens where that is empty.
    mutating func set(_ key: UnsafeRawBufferPointer, of task: TaskIndex.Number) {
        guard !key.isEmpty else { return }
        precondition(number(of: task) == nil, "a task has one key")
        let number = retain(Key(key))
        let page = Int(task >> Page.bits)
        while pages.count <= page { pages.append(nil) }
        if pages[page] == nil { pages[page] = Page() }
        pages[page]?.keys[Int(task) & (Page.count - 1)] = number + 1
        pages[page]?.used += 1
        taskCount += 1
    }

    /// A task won't run any more, or is gone; nothing happens where it has no key.
    mutating func remove(of task: TaskIndex.Number) {
        guard let number = number(of: task) else { return }
        let page = Int(task >> Page.bits)
        pages[page]?.keys[Int(task) & (Page.count - 1)] = 0
        pages[page]?.used -= 1
        if pages[page]?.used == 0 { pages[page] = nil }
        taskCount -= 1
        release(number)
    }

    private mutating func retain(_ key: Key) -> UInt32 {
        if let number = numbers[key] {
            entries[Int(number)].tasks += 1
            return number
        }
        let entry = Entry(key: key, tasks: 1)
        let number: UInt32
        if let reused = free.popLast() {
            number = reused
            entries[Int(number)] = entry
        } else {
            number = UInt32(entries.count)
            entries.append(entry)
        }
        numbers[key] = number
        return number
    }

    private mutating func release(_ number: UInt32) {
        entries[Int(number)].tasks -= 1
        guard entries[Int(number)].tasks == 0 else { return }
        let key = entries[Int(number)].key
        numbers[key] = nil
        entries[Int(number)].key = []
        free.append(number)
    }
}
