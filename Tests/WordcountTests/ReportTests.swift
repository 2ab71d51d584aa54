// Part of QTasks. License: see LICENSE.

import Testing

@testable import wordcount

@Suite struct `The report` {
    private let report = Report(
        rows: [
            .init(path: ByteText("a"), outcome: .counted(lines: 1, words: 20, bytes: 300)),
            .init(path: ByteText("b\nc"), outcome: .counted(lines: 10, words: 2, bytes: 3_000)),
            .init(path: ByteText([0xFF]), outcome: .failed("Permission denied")),
        ],
        top: [
            WordTally(word: ByteText("the"), count: 12), WordTally(word: ByteText("a"), count: 3),
        ]
    )

    @Test func `ends with a total in plain digits`() {
        let text = String(decoding: report.table(escaping: true), as: UTF8.self)
        #expect(text.split(separator: "\n").last == "11 22 3300 total")
    }

    @Test func `has a row for each file, names as they are`() {
        let expected =
            Array(" 1 20  300 a\n10  2 3000 b\nc\n -  -    - ".utf8) + [0xFF]
            + Array(": Permission denied\n11 22 3300 total\n".utf8)
        #expect(report.table(escaping: false) == expected)
    }

    @Test func `hides control characters from a terminal`() {
        let text = String(decoding: report.table(escaping: true), as: UTF8.self)
        #expect(text.contains("3000 b\\nc\n"))
        #expect(text.contains("- \\xff: Permission denied\n"))
        #expect(
            ByteText("\u{1B}[2J\u{9B}\u{202E}é").escaped == "\\x1b[2J\\xc2\\x9b\\xe2\\x80\\xaeé"
        )
    }

    @Test func `counts what failed`() {
        #expect(report.failures == 1)
    }
}
