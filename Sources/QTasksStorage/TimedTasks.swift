// Part of QTasks. License: see LICENSE.

import QTasksModel

/// Tasks for which something is to be done at a moment of the wall clock, the earliest first: 28 bytes
/// for each of them, nothing for any other task.
///
/// A task that isn't concerned any more stays until somebody comes by its row: each insert looks at two
/// others, so that there are never many more rows than there were tasks at once.
struct TimedTasks {
    struct Entry: Equatable {
        /// In nanoseconds since 1970.
        var moment: Int64
        /// Tells a task from another that got its number.
        var sequence: UInt64
        var number: TaskIndex.Number
    }

    private struct Row: SlabRow {
        var entry: Entry
        /// Where it stands in the heap.
        var place: UInt32

        var link: UInt32 {
            get { place }
            set { place = newValue }
        }

        // no record has this sequence
        var isFree: Bool { entry.sequence == .max }

        mutating func free() { entry.sequence = .max }
    }

    private typealias RowNumber = UInt32

    private var rows = Slab<Row>()
    /// Row numbers: a binary heap by their moments.
    private var heap: ContiguousArray<RowNumber> = []
    /// The row that is looked at next.
    private var hand: RowNumber = 0

    /// How many there are, also of those that aren't concerned any more.
    var count: Int { heap.count }

    /// Beyond the highest number that a row ever had.
    var endNumber: UInt32 { rows.end }

    /// The entry of a row, where there is one.
    func entry(_ row: UInt32) -> Entry? { rows.isUsed(row) ? rows[row].entry : nil }

    /// Adds a task.
    ///
    /// - Parameters:
    ///   - entry: Its moment, and which it is.
    ///   - isConcerned: Whether an older entry still is.
    mutating func insert(_ entry: Entry, isConcerned: (Entry) -> Bool) {
        sweep(2, isConcerned)
        let row = rows.add(Row(entry: entry, place: UInt32(heap.count)))
        heap.append(row)
        rise(heap.count - 1)
    }

    /// The earliest task that is still concerned; those before it are dropped.
    mutating func first(isConcerned: (Entry) -> Bool) -> Entry? {
        while let row = heap.first {
            let entry = rows[row].entry
            if isConcerned(entry) { return entry }
            remove(row)
        }
        return nil
    }

    /// The earliest moment, also of a task that isn't concerned any more.
    var firstMoment: Int64? { heap.first.map { rows[$0].entry.moment } }

    mutating func removeFirst() {
        if let row = heap.first { remove(row) }
    }

    private mutating func sweep(_ count: Int, _ isConcerned: (Entry) -> Bool) {
        for _ in 0..<min(count, Int(rows.end)) {
            if hand >= rows.end { hand = 0 }
            if rows.isUsed(hand), !isConcerned(rows[hand].entry) { remove(hand) }
            hand += 1
        }
    }

    // MARK: The heap

    private mutating func remove(_ row: RowNumber) {
        let place = Int(rows[row].place)
        rows.remove(row)
        let last = heap.removeLast()
        guard place < heap.count else { return }
        put(last, at: place)
        rise(place)
        sink(Int(rows[last].place))
    }

    private mutating func put(_ row: RowNumber, at place: Int) {
        heap[place] = row
        rows[row].place = UInt32(place)
    }

    private func moment(at place: Int) -> Int64 { rows[heap[place]].entry.moment }

    private mutating func swap(_ one: Int, _ other: Int) {
        let (first, second) = (heap[one], heap[other])
        put(second, at: one)
        put(first, at: other)
    }

    private mutating func rise(_ place: Int) {
        var child = place
        while child > 0, moment(at: child) < moment(at: (child - 1) / 2) {
            swap(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    private mutating func sink(_ place: Int) {
        var parent = place
        while true {
            var least = parent
            for child in [2 * parent + 1, 2 * parent + 2]
            where child < heap.count && moment(at: child) < moment(at: least) {
                least = child
            }
            guard least != parent else { return }
            swap(parent, least)
            parent = least
        }
    }
}
