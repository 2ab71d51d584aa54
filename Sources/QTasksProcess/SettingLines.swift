// Part of QTasks. License: see LICENSE.

/// Settings as text: a line `name=value` each, sorted by name.
///
/// In names and values a backslash stands before a backslash, before `=`, and before the `n` that a
/// line feed becomes.
enum SettingLines {
    static func text(_ settings: [String: String]) -> String {
        settings.sorted { $0.key < $1.key }
            .map { "\(escaped($0.key))=\(escaped($0.value))\n" }
            .joined()
    }

    /// - Returns: `nil` where the text isn't what ``text(_:)`` writes.
    static func parse(_ text: String) -> [String: String]? {
        var settings: [String: String] = [:]
        var name: String?
        var current = String.UnicodeScalarView()
        var isEscaped = false
        for scalar in text.unicodeScalars {
            switch (scalar, isEscaped) {
            case ("\\", false):
                isEscaped = true
            case (_, true):
                current.append(scalar == "n" ? "\n" : scalar)
                isEscaped = false
            case ("=", false):
                guard name == nil else { return nil }
                name = String(current)
                current = String.UnicodeScalarView()
            case ("\n", false):
                guard let complete = name else { return nil }
                settings[complete] = String(current)
                name = nil
                current = String.UnicodeScalarView()
            default:
                current.append(scalar)
            }
        }
        return name == nil && current.isEmpty && !isEscaped ? settings : nil
    }

    private static func escaped(_ text: String) -> String {
        var result = String.UnicodeScalarView()
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\\": result.append(contentsOf: "\\\\".unicodeScalars)
            case "=": result.append(contentsOf: "\\=".unicodeScalars)
            case "\n": result.append(contentsOf: "\\n".unicodeScalars)
            default: result.append(scalar)
            }
        }
        return String(result)
    }
}
