// Part of QTasks. License: see LICENSE.

import Glibc

/// How often which word was seen, in bounded memory.
///
/// All words lie one behind the other in one array, found by open addressing (linear probing), so
/// that a new word costs no allocation. Two bounds keep a hostile file from filling the memory:
/// words over ``wordBytesMax`` are not taken up, nor are new ones once there are ``wordsMax``. A
/// word that is among the most frequent was seen long before that.
struct WordTable {
    /// The longest word that is taken up, in bytes.
    static let wordBytesMax = 64
    /// How many different words are taken up.
    static let wordsMax = 1 << 17

    private struct Entry {
        var start: Int
        var byteCount: Int
        var hash: UInt64
        var count: Int
    }

    private static let free: Int32 = -1

    private var entries: [Entry] = []
    private var text: [UInt8] = []
    /// Indices of entries; a power of two of them, at most half of them in use.
    private var slots: [Int32] = Array(repeating: free, count: 1 << 10)

    /// The hash of no bytes (FNV-1a, 64 bits).
    static let hashStart: UInt64 = 0xCBF2_9CE4_8422_2325

    /// The hash with one more byte.
    @inline(__always)
    static func hash(_ hash: UInt64, _ byte: UInt8) -> UInt64 {
        (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01B3
    }

    /// How many different words there are.
    var count: Int { entries.count }

    /// Counts one more `word`, whose bytes' ``hash(_:_:)`` is known.
    mutating func add(_ word: UnsafeRawBufferPointer, hash: UInt64) {
        let slot = slot(of: word, hash: hash)
        if slots[slot] != Self.free {
            entries[Int(slots[slot])].count += 1
        } else if entries.count < Self.wordsMax {
            slots[slot] = Int32(entries.count)
            entries.append(
                Entry(start: text.count, byteCount: word.count, hash: hash, count: 1)
            )
            text.append(contentsOf: word)
            if entries.count * 2 > slots.count { grow() }
        }
    }

    /// The most frequent words, most frequent first, of equals the lesser bytes first.
    func top(_ limit: Int) -> [WordTally] {
        var top = TopWords(limit: limit)
        for entry in entries where top.takes(count: entry.count) {
            let word = Array(text[entry.start..<entry.start + entry.byteCount])
            top.offer(WordTally(word: ByteText(word), count: entry.count))
        }
        return top.words
    }

    /// The slot that the word has or would get.
    private func slot(of word: UnsafeRawBufferPointer, hash: UInt64) -> Int {
        var slot = Self.home(of: hash, among: slots.count)
        while slots[slot] != Self.free {
            let entry = entries[Int(slots[slot])]
            if entry.hash == hash && matches(entry, word) { break }
            slot = (slot + 1) & (slots.count - 1)
        }
        return slot
    }

    private func matches(_ entry: Entry, _ word: UnsafeRawBufferPointer) -> Bool {
        guard entry.byteCount == word.count else { return false }
        return text.withUnsafeBytes { text in
            guard let text = text.baseAddress, let word = word.baseAddress else { return true }
            return memcmp(text + entry.start, word, entry.byteCount) == 0
        }
    }

    private mutating func grow() {
        slots = Array(repeating: Self.free, count: slots.count * 2)
        for (index, entry) in entries.enumerated() {
            var slot = Self.home(of: entry.hash, among: slots.count)
            while slots[slot] != Self.free { slot = (slot + 1) & (slots.count - 1) }
            slots[slot] = Int32(index)
        }
    }

    private static func home(of hash: UInt64, among slots: Int) -> Int {
        Int(truncatingIfNeeded: hash ^ hash >> 32) & (slots - 1)
    }
}
