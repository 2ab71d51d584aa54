// Part of QTasks. License: see LICENSE.

/// Tells whether bytes are one JSON value (RFC 8259), so that they may stand inside another.
///
/// A handler in any language may call its result JSON; taking it at its word would let one bad
/// result break the record of its task for every reader.
public struct JSONCheck {
    private let bytes: UnsafeBufferPointer<UInt8>
    private var place = 0

    /// Deeper nesting is refused: readers recurse, and so does this.
    private static let depthMax = 256

    /// Whether `bytes` are one JSON value in UTF-8, white space around it allowed.
    public static func isValid(_ bytes: [UInt8]) -> Bool {
        guard String(validating: bytes, as: UTF8.self) != nil else { return false }
        return bytes.withUnsafeBufferPointer { buffer in
            var check = JSONCheck(bytes: buffer)
            guard check.value(depth: 0) else { return false }
            check.space()
            return check.place == buffer.count
        }
    }

    private init(bytes: UnsafeBufferPointer<UInt8>) {
        self.bytes = bytes
    }

    private mutating func value(depth: Int) -> Bool {
        space()
        guard depth < Self.depthMax, let first = peek() else { return false }
        switch first {
        case UInt8(ascii: "{"): return list(until: UInt8(ascii: "}"), depth: depth, keyed: true)
        case UInt8(ascii: "["): return list(until: UInt8(ascii: "]"), depth: depth, keyed: false)
        case UInt8(ascii: "\""): return string()
        case UInt8(ascii: "t"): return word("true")
        case UInt8(ascii: "f"): return word("false")
        case UInt8(ascii: "n"): return word("null")
        default: return number()
        }
    }

    private mutating func list(until end: UInt8, depth: Int, keyed: Bool) -> Bool {
        place += 1
        space()
        if take(end) { return true }
        while true {
            if keyed {
                space()
                guard string() else { return false }
                space()
                guard take(UInt8(ascii: ":")) else { return false }
            }
            guard value(depth: depth + 1) else { return false }
            space()
            if take(end) { return true }
            guard take(UInt8(ascii: ",")) else { return false }
        }
    }

    private mutating func string() -> Bool {
        guard take(UInt8(ascii: "\"")) else { return false }
        while let byte = peek() {
            place += 1
            switch byte {
            case UInt8(ascii: "\""): return true
            case UInt8(ascii: "\\"): guard escape() else { return false }
            case 0..<0x20: return false
            default: break
            }
        }
        return false
    }

    private mutating func escape() -> Bool {
        guard let byte = peek() else { return false }
        place += 1
        switch byte {
        case UInt8(ascii: "u"):
            for _ in 0..<4 {
                guard let digit = peek(), Character(UnicodeScalar(digit)).isHexDigit else {
                    return false
                }
                place += 1
            }
            return true
        default:
            return "\"\\/bfnrt".utf8.contains(byte)
        }
    }

    private mutating func number() -> Bool {
        _ = take(UInt8(ascii: "-"))
        if !take(UInt8(ascii: "0")) {
            guard digits() else { return false }
        }
        if take(UInt8(ascii: ".")) {
            guard digits() else { return false }
        }
        if take(UInt8(ascii: "e")) || take(UInt8(ascii: "E")) {
            if !take(UInt8(ascii: "+")) { _ = take(UInt8(ascii: "-")) }
            guard digits() else { return false }
        }
        return true
    }

    private mutating func digits() -> Bool {
        let start = place
        while let byte = peek(), (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) {
            place += 1
        }
        return place > start
    }

    private mutating func word(_ text: StaticString) -> Bool {
        for index in 0..<text.utf8CodeUnitCount {
            guard take(text.utf8Start[index]) else { return false }
        }
        return true
    }

    private mutating func space() {
        while let byte = peek(), byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09 {
            place += 1
        }
    }

    private func peek() -> UInt8? { place < bytes.count ? bytes[place] : nil }

    private mutating func take(_ byte: UInt8) -> Bool {
        guard peek() == byte else { return false }
        place += 1
        return true
    }
}
