// Part of QTasks. License: see LICENSE.
//
// File names and words are bytes: Linux promises no more of a name than that it has no "/" and no
// zero byte. JSON has only Unicode text, so what is no UTF-8 travels as Base64 under another key.

/// Text of unknown encoding.
struct ByteText: Hashable, Sendable {
    var bytes: [UInt8]

    init(_ bytes: [UInt8]) {
        self.bytes = bytes
    }

    init(_ text: String) {
        bytes = Array(text.utf8)
    }

    /// The text, if it is UTF-8.
    var text: String? { String(validating: bytes, as: UTF8.self) }

    /// The same for the eyes of a person: control characters and what is no UTF-8 become `\n`, `\t`
    /// or `\xNN`, so that a file's name can't play with the terminal.
    var escaped: String {
        var result = ""
        var rest = bytes[...]
        while let first = rest.first {
            let length = Self.sequenceBytes(after: first)
            let sequence = rest.prefix(length)
            if let scalar = Self.visibleScalar(sequence) {
                result.unicodeScalars.append(scalar)
                rest = rest.dropFirst(length)
            } else {
                result += Self.escape(first)
                rest = rest.dropFirst()
            }
        }
        return result
    }

    private static func sequenceBytes(after first: UInt8) -> Int {
        switch first {
        case 0xC2...0xDF: 2
        case 0xE0...0xEF: 3
        case 0xF0...0xF4: 4
        default: 1
        }
    }

    private static func visibleScalar(_ bytes: ArraySlice<UInt8>) -> UnicodeScalar? {
        guard let text = String(validating: bytes, as: UTF8.self) else { return nil }
        let scalars = text.unicodeScalars
        guard scalars.count == 1, let scalar = scalars.first else { return nil }
        switch scalar.properties.generalCategory {
        // "format" holds the marks that turn the direction of the text around
        case .control, .format, .lineSeparator, .paragraphSeparator: return nil
        default: return scalar
        }
    }

    private static func escape(_ byte: UInt8) -> String {
        switch byte {
        case UInt8(ascii: "\n"): return "\\n"
        case UInt8(ascii: "\t"): return "\\t"
        default:
            let digits = String(byte, radix: 16)
            return "\\x" + (digits.count < 2 ? "0" : "") + digits
        }
    }
}

extension ByteText {
    /// Reads it from under whichever of the two keys is there.
    init<Key: CodingKey>(
        from container: KeyedDecodingContainer<Key>,
        text textKey: Key,
        bytes bytesKey: Key
    ) throws {
        guard let encoded = try container.decodeIfPresent(String.self, forKey: bytesKey) else {
            self.init(try container.decode(String.self, forKey: textKey))
            return
        }
        guard let bytes = Base64Text.decode(encoded) else {
            throw DecodingError.dataCorruptedError(
                forKey: bytesKey,
                in: container,
                debugDescription: "this is no Base64"
            )
        }
        self.init(bytes)
    }

    /// Writes it under the first key if it is UTF-8, else as Base64 under the second.
    func encode<Key: CodingKey>(
        to container: inout KeyedEncodingContainer<Key>,
        text textKey: Key,
        bytes bytesKey: Key
    ) throws {
        if let text {
            try container.encode(text, forKey: textKey)
        } else {
            try container.encode(Base64Text.encode(bytes), forKey: bytesKey)
        }
    }
}

/// Base64 as in RFC 4648, section 4, both ways.
enum Base64Text {
    private static let digits = Array(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8
    )

    static func encode(_ bytes: [UInt8]) -> String {
        var text: [UInt8] = []
        for start in stride(from: 0, to: bytes.count, by: 3) {
            let group = bytes[start..<min(start + 3, bytes.count)]
            let word = group.reduce(0) { $0 << 8 | UInt32($1) } << UInt32(8 * (3 - group.count))
            for place in 0..<4 {
                let digit = digits[Int(word >> (18 - 6 * UInt32(place)) & 63)]
                text.append(place <= group.count ? digit : UInt8(ascii: "="))
            }
        }
        return String(decoding: text, as: UTF8.self)
    }

    /// The bytes; `nil` where the text is no Base64 with its padding.
    static func decode(_ text: String) -> [UInt8]? {
        let characters = Array(text.utf8)
        guard characters.count.isMultiple(of: 4) else { return nil }
        let padding = characters.suffix(2).count { $0 == UInt8(ascii: "=") }
        var bytes: [UInt8] = []
        var word: UInt32 = 0
        for (place, character) in characters.dropLast(padding).enumerated() {
            guard let digit = digits.firstIndex(of: character) else { return nil }
            word = word << 6 | UInt32(digit)
            guard place % 4 != 0 else { continue }
            bytes.append(UInt8(truncatingIfNeeded: word >> (6 - 2 * UInt32(place % 4))))
        }
        return bytes
    }
}
