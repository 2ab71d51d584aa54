// Part of QTasks. License: see LICENSE.

import QTasksModel
package import QTasksWire

/// What keys and values may be, and the keys that the roles themselves listen to.
package enum ConfigKey {
    /// Least weight of what every role logs: one of `QueueConfig.logLevels`.
    package static let logLevel = "log.level"

    /// Tasks that each worker process runs at once: 1 to 10,000.
    package static let workerSlots = "worker.slots"

    /// The longest value, in bytes.
    package static let valueBytesMax = 64 << 10

    /// All keys and values together, in bytes: they travel as one message.
    package static let totalBytesMax = 16 << 20

    package static let slotsAllowed = 1...10_000

    /// Why this pair can't be set, with the key's name and what it takes; `nil` if it can.
    ///
    /// Keys that no role knows are for the tasks' own use: any value is right.
    package static func refusal(of value: [UInt8], for key: String) -> Refusal? {
        if let refusal = refusal(of: key) { return refusal }
        guard value.count <= valueBytesMax else {
            let text = "'\(key)' is \(value.count) bytes long; a value has at most \(valueBytesMax)"
            return Refusal(.badOption, text)
        }
        switch key {
        case logLevel:
            let allowed = QueueConfig.logLevels
            if allowed.contains(String(decoding: value, as: UTF8.self)) { return nil }
            return bad(key, value, "one of \(allowed.joined(separator: ", "))")
        case workerSlots:
            if slots(from: value) != nil { return nil }
            let (least, most) = (slotsAllowed.lowerBound, slotsAllowed.upperBound)
            return bad(key, value, "a number from \(least) to \(most)")
        default:
            return nil
        }
    }

    /// Why nothing can be called that; `nil` if it can.
    package static func refusal(of key: String) -> Refusal? {
        if TaskName.isValid(key) { return nil }
        let text =
            "the key '\(printable(key))' can't be: keys have 1 to \(TaskName.bytesMax) bytes "
        return Refusal(.badOption, text + "of UTF-8 without control characters")
    }

    /// The value of ``workerSlots`` as a number, `nil` if it isn't a possible one.
    package static func slots(from value: [UInt8]) -> Int? {
        guard let slots = Int(String(decoding: value, as: UTF8.self)) else { return nil }
        return slotsAllowed.contains(slots) ? slots : nil
    }

    /// Whether `pattern` means `key`: `*` stands for any run of bytes, also none.
    package static func matches(_ pattern: String, _ key: String) -> Bool {
        let (pattern, key) = (Array(pattern.utf8), Array(key.utf8))
        var (place, next) = (0, 0)
        // The last `*` and where in the key it was tried to end: going back to it alone suffices,
        // so the work is at most one length times the other.
        var star: (place: Int, next: Int)?
        while next < key.count {
            if place < pattern.count, pattern[place] == UInt8(ascii: "*") {
                star = (place, next)
                place += 1
            } else if place < pattern.count, pattern[place] == key[next] {
                place += 1
                next += 1
            } else if let last = star {
                star = (last.place, last.next + 1)
                (place, next) = (last.place + 1, last.next + 1)
            } else {
                return false
            }
        }
        return pattern[place...].allSatisfy { $0 == UInt8(ascii: "*") }
    }

    private static func bad(_ key: String, _ value: [UInt8], _ allowed: String) -> Refusal {
        let shown = printable(String(decoding: value, as: UTF8.self))
        return Refusal(.badOption, "'\(key)' can't be '\(shown)'; it takes \(allowed)")
    }

    /// At most 80 characters, with nothing in them that a terminal takes for a command.
    private static func printable(_ text: String) -> String {
        let shown = text.unicodeScalars.prefix(80).map { scalar in
            scalar.properties.generalCategory == .control ? "?" : String(scalar)
        }
        return shown.joined()
    }
}
