// Part of QTasks. License: see LICENSE.

/// What a task or a queue may be called: 1 to 255 bytes of UTF-8 without control characters.
public enum TaskName {
    /// The longest name, in bytes.
    public static let bytesMax = 255

    /// The queue of a task that names none.
    public static let defaultQueue = "default"

    /// Whether these bytes are a well-formed name.
    public static func isValid(_ bytes: UnsafeRawBufferPointer) -> Bool {
        guard (1...bytesMax).contains(bytes.count) else { return false }
        var isPlain = true
        for byte in bytes {
            // C0 and DEL here; the C1 controls need two bytes in UTF-8 and are looked at below
            if byte < 0x20 || byte == 0x7F { return false }
            if byte >= 0x80 { isPlain = false }
        }
        if isPlain { return true }
        guard let text = String(validating: bytes, as: UTF8.self) else { return false }
        return text.unicodeScalars.allSatisfy { !(0x80...0x9F).contains($0.value) }
    }

    /// Whether this text is a well-formed name.
    public static func isValid(_ text: String) -> Bool {
        var text = text
        return text.withUTF8 { isValid(UnsafeRawBufferPointer($0)) }
    }
}
