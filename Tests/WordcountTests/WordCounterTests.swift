// Part of QTasks. License: see LICENSE.

import QTasksProcess
import Testing

@testable import wordcount

@Suite struct `Counting a text` {
    /// `wc -lwc` of the C locale counts the file.
    private func wc(_ file: ByteText) throws -> [Int] {
        let path = try #require(file.text)
        let text = String(decoding: try output(of: ["wc", "-lwc", path]), as: UTF8.self)
        return text.split(separator: " ").prefix(3).compactMap { Int($0) }
    }

    private func numbers(_ count: FileCount) -> [Int] { [count.lines, count.words, count.bytes] }

    private static let alphabets: [[UInt8]] = [
        Array(0...255),
        Array("ab \n".utf8) + [0, 0xFF, 0x0B, 0x7F],
        Array("a \u{A0}é\n\t".utf8),
        [0x80, 0x20, 0x0A],
    ]

    @Test(arguments: 1...UInt64(12))
    func `agrees with wc on random bytes`(seed: UInt64) throws {
        let scratch = try TemporaryFolder()
        var random = SeededGenerator(seed: seed)
        for alphabet in Self.alphabets {
            // the largest is longer than what is read at once
            let size = Int.random(in: 0...(seed == 1 ? 600_000 : 5_000), using: &random)
            let file = try scratch.write(
                random.bytes(size, from: alphabet),
                to: Array("random".utf8)
            )
            #expect(numbers(try FileCount.reading(file)) == (try wc(file)), "seed \(seed)")
        }
    }

    @Test(arguments: [
        "", "\n", " ", "a", "a\n", "\na", " a b ", "a\u{B}b\u{C}c\rd\te", "\u{7F}", "\u{0}", "é",
        "é a", "aé", "éa", "a\u{0}b", "\u{1} \u{1}", "\u{A0}", "a\u{A0}b", "no newline at the end",
    ])
    func `agrees with wc on the edges`(text: String) throws {
        let scratch = try TemporaryFolder()
        let file = try scratch.write(text, to: "edge")
        #expect(numbers(try FileCount.reading(file)) == (try wc(file)))
    }

    @Test func `each byte is to it what it is to wc`() throws {
        let scratch = try TemporaryFolder()
        for byte in UInt8.min...UInt8.max {
            let file = try scratch.write(
                [0x61, byte, 0x62, 0x20, byte, 0x20, byte],
                to: Array("byte".utf8)
            )
            #expect(numbers(try FileCount.reading(file)) == (try wc(file)), "byte \(byte)")
        }
    }

    @Test(arguments: 1...UInt64(20))
    func `is the same however the text is cut`(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let text = random.bytes(2_000, from: Array("abc  \n".utf8) + [0xC3])
        var whole = WordCounter()
        text.withUnsafeBytes { whole.add($0) }
        whole.finish()

        var pieces = WordCounter()
        var rest = text[...]
        while !rest.isEmpty {
            let piece = rest.prefix(Int.random(in: 0...9, using: &random))
            piece.withUnsafeBytes { pieces.add($0) }
            rest = rest.dropFirst(piece.count)
        }
        pieces.finish()

        #expect(pieces.lines == whole.lines, "seed \(seed)")
        #expect(pieces.words == whole.words, "seed \(seed)")
        #expect(pieces.bytes == whole.bytes, "seed \(seed)")
        #expect(pieces.table.top(1000) == whole.table.top(1000), "seed \(seed)")
    }

    @Test func `a file that is not there is an error with its reason`() throws {
        let scratch = try TemporaryFolder()
        #expect(throws: FileError(code: 2)) {
            try FileCount.reading(ByteText("\(scratch.path)/missing"))
        }
    }

    @Test func `a folder is an error with its reason`() throws {
        let scratch = try TemporaryFolder()
        let error = #expect(throws: FileError.self) {
            try FileCount.reading(ByteText(scratch.path))
        }
        #expect(error?.description == "Is a directory")
    }
}
