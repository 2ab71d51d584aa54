// Part of QTasks. License: see LICENSE.

/// Members in the order of their ranks, each of which can be found and moved: a binary heap with its
/// members' places beside it.
///
/// Everything takes O(log n), ``first`` O(1).
struct IndexedHeap<Rank: Comparable> {
    private var entries: [(rank: Rank, member: Int)] = []
    private var places: [Int: Int] = [:]

    /// The member with the lowest rank.
    var first: Int? { entries.first?.member }

    var firstRank: Rank? { entries.first?.rank }

    var isEmpty: Bool { entries.isEmpty }

    func contains(_ member: Int) -> Bool { places[member] != nil }

    /// Adds a member, or gives it another rank; `nil` takes it out.
    ///
    /// - Returns: Whether the first one, or its rank, may be another now.
    @discardableResult
    mutating func set(_ member: Int, rank: Rank?) -> Bool {
        guard let place = places[member] else {
            guard let rank else { return false }
            entries.append((rank, member))
            return rise(from: entries.count - 1) == 0
        }
        guard let rank else {
            remove(at: place)
            return place == 0
        }
        let old = entries[place].rank
        guard old != rank else { return false }
        entries[place].rank = rank
        let new = rank < old ? rise(from: place) : sink(from: place)
        return new == 0 || place == 0
    }

    private mutating func remove(at place: Int) {
        places[entries[place].member] = nil
        let last = entries.removeLast()
        guard place < entries.count else { return }
        entries[place] = last
        if sink(from: place) == place { _ = rise(from: place) }
    }

    private mutating func rise(from place: Int) -> Int {
        let entry = entries[place]
        var place = place
        while place > 0 {
            let parent = (place - 1) / 2
            guard entry.rank < entries[parent].rank else { break }
            put(entries[parent], at: place)
            place = parent
        }
        put(entry, at: place)
        return place
    }

    private mutating func sink(from place: Int) -> Int {
        let entry = entries[place]
        var place = place
        while true {
            var child = 2 * place + 1
            guard child < entries.count else { break }
            if child + 1 < entries.count, entries[child + 1].rank < entries[child].rank {
                child += 1
            }
            guard entries[child].rank < entry.rank else { break }
            put(entries[child], at: place)
            place = child
        }
        put(entry, at: place)
        return place
    }

    private mutating func put(_ entry: (rank: Rank, member: Int), at place: Int) {
        entries[place] = entry
        places[entry.member] = place
    }
}
