// Part of QTasks. License: see LICENSE.

/// Deadlines of calls, the earliest first.
///
/// Calls that have ended are left in it until they come up or are too many.
struct DeadlineHeap {
    typealias Entry = (deadline: UInt64, call: UInt64)

    private var entries: [Entry] = []

    var first: Entry? { entries.first }
    var count: Int { entries.count }

    mutating func insert(_ deadline: UInt64, call: UInt64) {
        entries.append((deadline, call))
        var place = entries.count - 1
        while place > 0 {
            let parent = (place - 1) / 2
            guard entries[place].deadline < entries[parent].deadline else { return }
            entries.swapAt(place, parent)
            place = parent
        }
    }

    mutating func removeFirst() {
        guard let last = entries.popLast(), !entries.isEmpty else { return }
        entries[0] = last
        sink(0)
    }

    /// Drops every entry that `isWanted` is false for.
    mutating func prune(_ isWanted: (Entry) -> Bool) {
        entries.removeAll { !isWanted($0) }
        for place in stride(from: entries.count / 2, through: 0, by: -1) { sink(place) }
    }

    private mutating func sink(_ start: Int) {
        var place = start
        while true {
            var least = place
            for child in 2 * place + 1...2 * place + 2
            where child < entries.count && entries[child].deadline < entries[least].deadline {
                least = child
            }
            guard least != place else { return }
            entries.swapAt(place, least)
            place = least
        }
    }
}
