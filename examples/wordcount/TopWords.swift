// Part of QTasks. License: see LICENSE.

/// A word and how often it was there.
struct WordTally: Hashable, Sendable {
    var word: ByteText
    var count: Int

    /// Whether it stands before `other`: the more frequent first, of equals the lesser bytes.
    func precedes(_ other: WordTally) -> Bool {
        count != other.count
            ? count > other.count
            : word.bytes.lexicographicallyPrecedes(other.word.bytes)
    }
}

extension WordTally: Codable {
    private enum CodingKeys: String, CodingKey {
        case word, wordBytes, count
    }

    init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        word = try ByteText(from: container, text: .word, bytes: .wordBytes)
        count = try container.decode(Int.self, forKey: .count)
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try word.encode(to: &container, text: .word, bytes: .wordBytes)
        try container.encode(count, forKey: .count)
    }
}

/// The most frequent of the words that it is offered.
struct TopWords {
    /// In their order.
    private(set) var words: [WordTally] = []

    private let limit: Int

    /// - Parameter limit: How many words it keeps at most.
    init(limit: Int) {
        precondition(limit >= 0, "nobody asks for fewer than no words")
        self.limit = limit
    }

    /// Whether a word that is there so often may be among them: spares making the word.
    func takes(count: Int) -> Bool {
        guard words.count == limit else { return true }
        guard let last = words.last else { return false }
        return count >= last.count
    }

    /// Offers a word that was not offered before.
    mutating func offer(_ tally: WordTally) {
        guard takes(count: tally.count) else { return }
        var low = 0
        var high = words.count
        while low < high {
            let middle = (low + high) / 2
            if words[middle].precedes(tally) { low = middle + 1 } else { high = middle }
        }
        words.insert(tally, at: low)
        if words.count > limit { words.removeLast() }
    }

    /// The most frequent words of several lists taken together.
    ///
    /// A word counts as often as the lists say: where each has only the most frequent words of its
    /// file, what was rare there is not known here.
    static func merging(_ lists: [[WordTally]], limit: Int) -> [WordTally] {
        var counts: [ByteText: Int] = [:]
        for list in lists {
            for tally in list { counts[tally.word, default: 0] += tally.count }
        }
        var top = TopWords(limit: limit)
        for (word, count) in counts { top.offer(WordTally(word: word, count: count)) }
        return top.words
    }
}
