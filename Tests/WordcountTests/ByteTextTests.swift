// Part of QTasks. License: see LICENSE.

import Testing

@testable import wordcount

@Suite struct `Base64` {
    @Test(arguments: [
        ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy"),
    ])
    func `is that of RFC 4648, section 10`(text: String, encoded: String) {
        #expect(Base64Text.encode(Array(text.utf8)) == encoded)
        #expect(Base64Text.decode(encoded) == Array(text.utf8))
    }

    @Test(arguments: 1...UInt64(8))
    func `gives back what went in`(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let bytes = random.bytes(Int(seed) * 13, from: Array(0...255))
        #expect(Base64Text.decode(Base64Text.encode(bytes)) == bytes, "seed \(seed)")
    }

    @Test(arguments: ["Z", "Zg", "Zg=", "Z===", "Zm9v\n", "Zm 9", "=AAA"])
    func `that is none is refused`(text: String) {
        #expect(Base64Text.decode(text) == nil)
    }
}
