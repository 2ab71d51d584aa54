// Part of QTasks. License: see LICENSE.
//
// Just enough JSON to answer "what do you know of this task" from processes that do without
// Foundation: a writer, and a check that foreign bytes may stand inside what it wrote.

/// JSON, written from left to right.
public struct JSONText: Sendable {
    /// What was written so far, in UTF-8.
    public private(set) var bytes: [UInt8] = []

    private var needsComma = false

    public init() {}

    /// Writes `{...}`; the members are written by `members`.
    public mutating func object(_ members: (inout JSONText) -> Void) {
        open(UInt8(ascii: "{"))
        members(&self)
        close(UInt8(ascii: "}"))
    }

    /// Writes `[...]`; the elements are written by `elements`.
    public mutating func array(_ elements: (inout JSONText) -> Void) {
        open(UInt8(ascii: "["))
        elements(&self)
        close(UInt8(ascii: "]"))
    }

    /// Writes `"name":`; a value must follow.
    public mutating func key(_ name: String) {
        string(name)
        bytes.append(UInt8(ascii: ":"))
        needsComma = false
    }

    public mutating func member(_ name: String, _ value: String) {
        key(name)
        string(value)
    }

    public mutating func member(_ name: String, _ value: Int) {
        key(name)
        number(value)
    }

    public mutating func member(_ name: String, _ value: Bool) {
        key(name)
        raw((value ? "true" : "false").utf8)
    }

    /// Writes `"name":[{...},...]`: an object for each element, its members written by `members`.
    package mutating func member<Elements: Sequence>(
        _ name: String,
        objects elements: Elements,
        _ members: (inout JSONText, Elements.Element) -> Void
    ) {
        key(name)
        array { json in
            for element in elements { json.object { members(&$0, element) } }
        }
    }

    /// Writes opaque bytes: as they are if they are JSON, else as `{"base64": ...}`.
    ///
    /// - Parameters:
    ///   - name: The member's name.
    ///   - payload: The bytes.
    ///   - type: Their content type; `nil` stands for `application/json`.
    public mutating func member(_ name: String, payload: [UInt8], type: String?) {
        key(name)
        let isJSON = type == nil || type == "application/json"
        if isJSON && JSONCheck.isValid(payload) {
            raw(payload)
        } else {
            object { json in
                json.member("base64", Base64.encode(payload))
                if let type { json.member("contentType", type) }
            }
        }
    }

    public mutating func number(_ value: Int) {
        raw(String(value).utf8)
    }

    public mutating func string(_ value: String) {
        comma()
        bytes.append(UInt8(ascii: "\""))
        for byte in value.utf8 {
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"):
                bytes.append(UInt8(ascii: "\\"))
                bytes.append(byte)
            case UInt8(ascii: "\n"): bytes += "\\n".utf8
            case UInt8(ascii: "\t"): bytes += "\\t".utf8
            case UInt8(ascii: "\r"): bytes += "\\r".utf8
            case 0..<0x20, 0x7F:
                let digits = Array("0123456789abcdef".utf8)
                bytes += "\\u00".utf8
                bytes.append(digits[Int(byte >> 4)])
                bytes.append(digits[Int(byte & 15)])
            default: bytes.append(byte)
            }
        }
        bytes.append(UInt8(ascii: "\""))
        needsComma = true
    }

    /// Writes bytes that are one JSON value already.
    public mutating func raw(_ value: some Sequence<UInt8>) {
        comma()
        bytes += value
        needsComma = true
    }

    private mutating func open(_ bracket: UInt8) {
        comma()
        bytes.append(bracket)
        needsComma = false
    }

    private mutating func close(_ bracket: UInt8) {
        bytes.append(bracket)
        needsComma = true
    }

    private mutating func comma() {
        if needsComma { bytes.append(UInt8(ascii: ",")) }
        needsComma = false
    }
}

/// Base64 as in RFC 4648, section 4.
public enum Base64 {
    private static let digits = Array(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8
    )

    /// The text for these bytes, padded with `=`.
    public static func encode(_ bytes: [UInt8]) -> String {
        var text: [UInt8] = []
        text.reserveCapacity((bytes.count + 2) / 3 * 4)
        for start in stride(from: 0, to: bytes.count, by: 3) {
            let group = bytes[start..<min(start + 3, bytes.count)]
            var word: UInt32 = 0
            for place in 0..<3 {
                word = word << 8 | (place < group.count ? UInt32(group[start + place]) : 0)
            }
            for place in 0..<4 {
                let digit = digits[Int(word >> (18 - 6 * UInt32(place)) & 63)]
                text.append(place <= group.count ? digit : UInt8(ascii: "="))
            }
        }
        return String(decoding: text, as: UTF8.self)
    }
}
