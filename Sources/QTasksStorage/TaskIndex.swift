// Part of QTasks. License: see LICENSE.

package import QTasksModel

/// Every task of the store, by ID and by number.
///
/// A task to which nothing has happened since its add takes 48 bytes (``TaskCore``) and a slot of 8
/// in a table that is at least 40 % full; any other 64 more (``TaskProgress``). Nothing is ever copied
/// or hashed anew as a whole: the longest insert goes through one shard of ``TaskSlots``.
package struct TaskIndex {
    /// A task's place, good for as long as the store is open and the task is in it; then another
    /// task's, which has another sequence.
    package typealias Number = UInt32

    private var cores = Slab<TaskCore>()
    private var progress = Slab<TaskProgress>()
    private var slots = TaskSlots()
    private let seeds: (UInt64, UInt64)
    private var newestSequence: UInt64 = 0

    /// Higher numbers have higher sequences: so it is until the first number is given out again.
    package private(set) var isInAddOrder = true

    /// - Parameter seed: Keeps clients from making IDs that all fall into one place.
    package init(seed: UInt64) {
        // a second one, so that neither half of an ID can be chosen to cancel out the other
        seeds = (seed, Self.fold(seed ^ 0x9E37_79B9_7F4A_7C15, 0xD6E8_FEB8_6659_FD93))
    }

    /// How many tasks there are.
    package var count: Int { cores.count }

    /// Beyond the highest number that was ever in use.
    package var endNumber: Number { cores.end }

    /// Whether a task has this number; any number may be asked for.
    package func isUsed(_ number: Number) -> Bool { cores.isUsed(number) }

    /// The numbers of all tasks, ascending.
    package var numbers: some Sequence<Number> {
        (0..<endNumber).lazy.filter { isUsed($0) }
    }

    /// Bytes that it takes, up to the pages that are used in part.
    package var bytes: Int { cores.bytes + progress.bytes + slots.bytes }

    package subscript(number: Number) -> TaskEntry {
        get { entry(core(number)) }
        _modify {
            var entry = self[number]
            defer { store(entry, at: number) }
            yield &entry
        }
    }

    /// The part of a task that most tasks consist of.
    @inline(__always)
    func core(_ number: Number) -> TaskCore { cores[number] }

    /// Lends that part of each task, by number.
    @inline(__always)
    func forEachCore(_ body: (Number, TaskCore) -> Void) { cores.forEach(body) }

    /// The task's number, `nil` if there is no such task.
    package func number(of id: TaskID) -> Number? {
        slots.number(tag: tag(id)) { cores[$0].id == id }
    }

    /// A task of this ID is looked for soon.
    ///
    /// With many tasks nearly every search waits for memory; told of some ahead, the CPU waits for
    /// them all at once.
    @inline(__always)
    func prefetch(_ id: TaskID) { slots.prefetch(tag: tag(id)) }

    /// Adds a task that isn't there yet.
    package mutating func insert(_ entry: TaskEntry) -> Number {
        let before = cores.end
        let number = cores.add(
            TaskCore(entry, status: entry.status, link: addProgress(of: entry))
        )
        if entry.sequence < newestSequence || before == cores.end { isInAddOrder = false }
        newestSequence = max(newestSequence, entry.sequence)
        slots.insert(number, tag: tag(entry.id))
        return number
    }

    /// Forgets a task; its number is given out again.
    package mutating func remove(_ number: Number) {
        let core = cores[number]
        slots.remove(number, tag: tag(core.id))
        if core.link != 0 { progress.remove(core.link - 1) }
        cores.remove(number)
    }

    mutating func setFlags(_ flags: TaskEntry.Flags, of number: Number) {
        cores[number].flags = flags
    }

    @inline(__always)
    private func entry(_ core: TaskCore) -> TaskEntry {
        guard let status = core.status else {
            preconditionFailure("no task has this number")
        }
        let row =
            core.link == 0
            ? TaskProgress(freshAt: core.sequence) : progress[core.link - 1]
        return TaskEntry(core, status, row)
    }

    /// The first tasks that aren't final, of those added after a sequence, in the order of their adds.
    package func unfinished(after sequence: UInt64, atMost count: Int) -> [TaskEntry] {
        let first = isInAddOrder ? firstNumber(after: sequence) : 0
        let found = (first..<endNumber).lazy
            .filter { isUsed($0) && core($0).sequence > sequence }
            .filter { core($0).status?.isFinal == false }
            .map { self[$0] }
        if isInAddOrder { return Array(found.prefix(count)) }
        return Array(found.sorted { $0.sequence < $1.sequence }.prefix(count))
    }

    /// Found by halves, since numbers are in the order of the adds; free ones keep their sequence.
    private func firstNumber(after sequence: UInt64) -> Number {
        var (low, high): (Number, Number) = (0, endNumber)
        while low < high {
            let middle = low + (high - low) / 2
            if core(middle).sequence <= sequence { low = middle + 1 } else { high = middle }
        }
        return low
    }

    private mutating func store(_ entry: TaskEntry, at number: Number) {
        let old = cores[number]
        precondition(entry.id == old.id, "a task keeps its ID")
        var link = old.link
        if link == 0 {
            link = addProgress(of: entry)
        } else {
            let row = TaskProgress(entry)
            if row == TaskProgress(freshAt: entry.sequence) {
                progress.remove(link - 1)
                link = 0
            } else {
                progress[link - 1] = row
            }
        }
        cores[number] = TaskCore(entry, status: entry.status, link: link)
    }

    /// A row for what a fresh task doesn't have.
    ///
    /// - Returns: What the core keeps of it.
    private mutating func addProgress(of entry: TaskEntry) -> UInt32 {
        let row = TaskProgress(entry)
        return row == TaskProgress(freshAt: entry.sequence) ? 0 : progress.add(row) + 1
    }

    private func tag(_ id: TaskID) -> UInt32 {
        let mixed = Self.fold(id.low ^ seeds.0, id.high ^ seeds.1)
        return UInt32(truncatingIfNeeded: Self.fold(mixed, 0x9E37_79B9_7F4A_7C15) >> 32)
    }

    /// Both halves of the product, so that every bit of it depends on all bits of both.
    private static func fold(_ one: UInt64, _ other: UInt64) -> UInt64 {
        let product = one.multipliedFullWidth(by: other)
        return product.high ^ product.low
    }
}
