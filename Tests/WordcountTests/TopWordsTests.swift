// Part of QTasks. License: see LICENSE.

import Testing

@testable import wordcount

@Suite struct `The most frequent words` {
    private func table(_ text: [UInt8]) -> WordTable {
        var counter = WordCounter()
        text.withUnsafeBytes { counter.add($0) }
        counter.finish()
        return counter.table
    }

    private func tally(_ word: String, _ count: Int) -> WordTally {
        WordTally(word: ByteText(word), count: count)
    }

    @Test func `come by count, and equals by their bytes`() {
        let text = "b a c a b é z B c"
        #expect(
            table(Array(text.utf8)).top(4)
                == [tally("a", 2), tally("b", 2), tally("c", 2), tally("B", 1)]
        )
    }

    @Test func `are as many as were asked for`() {
        let table = table(Array("a b c".utf8))
        #expect(table.top(0).isEmpty)
        #expect(table.top(2) == [tally("a", 1), tally("b", 1)])
        #expect(table.top(9).count == 3)
    }

    @Test func `hold no run that is no word`() {
        #expect(table(Array("é é a".utf8)).top(5) == [tally("a", 1)])
    }

    @Test func `hold no word that is too long`() {
        let longest = String(repeating: "x", count: WordTable.wordBytesMax)
        let tooLong = longest + "x"
        #expect(
            table(Array("\(tooLong) \(longest) \(tooLong)".utf8)).top(5) == [tally(longest, 1)]
        )
    }

    @Test func `are counted right among very many`() {
        let text = (0..<20_000).map { "w\($0 % 7_000)" }.joined(separator: " ")
        let table = table(Array(text.utf8))
        #expect(table.count == 7_000)
        // 20,000 words go round three times but for the last 1,000 of the 7,000
        #expect(table.top(7_000).count { $0.count == 3 } == 6_000)
        #expect(table.top(7_000).count { $0.count == 2 } == 1_000)
    }

    @Test func `stay within the memory that a table may have`() {
        let words = WordTable.wordsMax + 10
        let text = (0..<words).map { String($0) }.joined(separator: " ")
        #expect(table(Array(text.utf8)).count == WordTable.wordsMax)
    }

    @Test func `of several files add up`() {
        let lists = [
            [tally("the", 5), tally("a", 3)], [], [tally("a", 4), tally("of", 5)],
        ]
        #expect(
            TopWords.merging(lists, limit: 3) == [tally("a", 7), tally("of", 5), tally("the", 5)]
        )
        #expect(TopWords.merging(lists, limit: 1) == [tally("a", 7)])
    }

    @Test func `are merged in rounds when there are many files`() {
        let tops = (0..<100).map { file in (0..<20).map { tally("\(file)-\($0)", 1) } }
        let groups = MergePlan.groups(of: tops, wordsMax: 100)
        #expect(groups.count == 20)
        #expect(groups.flatMap(\.self) == tops)
        #expect(groups.allSatisfy { $0.joined().count <= 100 })
    }
}
