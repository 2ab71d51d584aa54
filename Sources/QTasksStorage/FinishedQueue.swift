// Part of QTasks. License: see LICENSE.

/// Finished tasks that are kept equally long, in the order in which they ended: 16 bytes each.
///
/// They lie in chunks, so that neither growing nor the oldest one's leaving moves many.
struct FinishedQueue {
    struct Entry {
        /// Of the record that ended it; rises along the queue.
        var sequence: UInt64
        /// Since 1970, rounded up; never falls along the queue.
        var endedSeconds: UInt32
        /// ``gone`` where it left from the middle.
        var number: TaskIndex.Number
    }

    private static let gone = TaskIndex.Number.max
    private static let chunkBits = 12
    private static let chunkEntries = 1 << chunkBits

    private var chunks: ContiguousArray<ContiguousArray<Entry>> = []
    /// Of the first chunk, entries that have left.
    private var head = 0
    /// Those that have left from the middle too.
    private var places = 0

    /// Tasks in it.
    private(set) var count = 0

    /// The oldest.
    var first: Entry? { places == 0 ? nil : self[0] }

    private var newest: UInt64 { places == 0 ? 0 : self[places - 1].sequence }

    private subscript(place: Int) -> Entry {
        get {
            let index = head + place
            return chunks[index >> Self.chunkBits][index & (Self.chunkEntries - 1)]
        }
        set {
            let index = head + place
            chunks[index >> Self.chunkBits][index & (Self.chunkEntries - 1)] = newValue
        }
    }

    /// Adds a task; while the store is opened in any order (see ``sort(without:)``).
    mutating func append(_ entry: Entry, isOrdered: Bool) {
        precondition(!isOrdered || entry.sequence > newest, "a log's sequence numbers rise")
        if (head + places) & (Self.chunkEntries - 1) == 0 { chunks.append([]) }
        chunks[chunks.count - 1].append(entry)
        places += 1
        count += 1
    }

    /// Puts what was added in any order into order, without these and without repetitions.
    ///
    /// - Parameter left: Sequences in order.
    mutating func sort(without left: [UInt64]) {
        let entries = chunks.joined().sorted { $0.sequence < $1.sequence }
        self = FinishedQueue()
        var next = 0
        for entry in entries where entry.sequence > newest {
            while next < left.count, left[next] < entry.sequence { next += 1 }
            if next < left.count, left[next] == entry.sequence { continue }
            append(entry, isOrdered: true)
        }
    }

    /// Takes a task out.
    ///
    /// - Returns: Whether it was in it.
    mutating func remove(_ sequence: UInt64) -> Bool {
        guard let place = place(of: sequence), self[place].number != Self.gone else { return false }
        self[place].number = Self.gone
        count -= 1
        while let first, first.number == Self.gone { removeFirst() }
        return true
    }

    /// Lends the tasks, the oldest first, until `body` says that it has enough.
    func forEach(while body: (Entry) -> Bool) {
        for place in 0..<places {
            let entry = self[place]
            guard entry.number == Self.gone || body(entry) else { return }
        }
    }

    private mutating func removeFirst() {
        head += 1
        places -= 1
        if places == 0 {
            chunks = []
            head = 0
        } else if head == Self.chunkEntries {
            chunks.removeFirst()
            head = 0
        }
    }

    /// By halves; the oldest, which leaves most often, at once.
    private func place(of sequence: UInt64) -> Int? {
        if first?.sequence == sequence { return 0 }
        var (low, high) = (0, places)
        while low < high {
            let middle = (low + high) / 2
            if self[middle].sequence < sequence { low = middle + 1 } else { high = middle }
        }
        return low < places && self[low].sequence == sequence ? low : nil
    }
}
