// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksModel

/// A moment as people write it.
enum TimeText {
    /// What it takes, for messages.
    static let allowedTexts =
        "RFC 3339 such as 2026-11-23T18:26:01.123Z, a time of today such as 18:26:01, "
        + "or how long ago such as -5m"

    /// Reads a moment; `nil` where it is none.
    ///
    /// Without a zone it is UTC, as every time that QTasks prints. What is written less exactly than the
    /// clock counts stands for its end, so that a time that was printed has in it what happened then.
    ///
    /// - Parameters:
    ///   - text: What was written.
    ///   - now: What it counts from where it says so.
    /// - Returns: The moment.
    static func moment(_ text: String, now: Timestamp) -> Timestamp? {
        if text == "now" { return now }
        if text.hasPrefix("-") {
            return SecondsText.seconds(text.dropFirst()).map { seconds in
                Timestamp(nanoseconds: now.nanoseconds - Int64(seconds) * 1_000_000_000)
            }
        }
        var scanner = Scanner(text)
        let day: Int64
        if scanner.isDate {
            guard let date = scanner.date() else { return nil }
            day = date
            if scanner.isAtEnd { return moment(day, 86_399, 999_999_999, zone: 0) }
            guard scanner.take("T") || scanner.take("t") || scanner.take(" ") else { return nil }
        } else {
            day = now.nanoseconds / 86_400_000_000_000
        }
        guard let time = scanner.time(), let zone = scanner.zone(), scanner.isAtEnd else {
            return nil
        }
        return moment(day, time.seconds, time.nanoseconds, zone: zone)
    }

    private static func moment(
        _ day: Int64,
        _ seconds: Int64,
        _ nanoseconds: Int64,
        zone: Int64
    ) -> Timestamp {
        Timestamp(
            nanoseconds: (day * 86_400 + seconds - zone) * 1_000_000_000 + nanoseconds
        )
    }

    /// Reads the parts of a moment from left to right.
    private struct Scanner {
        private let characters: [Character]
        private var place = 0

        init(_ text: String) {
            characters = Array(text)
        }

        var isAtEnd: Bool { place == characters.count }

        var isDate: Bool { characters.count > 4 && characters[4] == "-" }

        mutating func take(_ character: Character) -> Bool {
            guard place < characters.count, characters[place] == character else { return false }
            place += 1
            return true
        }

        /// Days since 1970.
        mutating func date() -> Int64? {
            guard let year = number(4), take("-"), let month = number(2), take("-"),
                let day = number(2), (1...12).contains(month), (1...31).contains(day)
            else { return nil }
            var parts = tm()
            parts.tm_year = Int32(year - 1900)
            parts.tm_mon = Int32(month - 1)
            parts.tm_mday = Int32(day)
            let seconds = timegm(&parts)
            // timegm(3) takes 31 February for a day of March
            guard parts.tm_mday == Int32(day) else { return nil }
            return Int64(seconds) / 86_400
        }

        /// Seconds of the day, and nanoseconds, up to the end of what was written.
        mutating func time() -> (seconds: Int64, nanoseconds: Int64)? {
            guard let hours = number(2), take(":"), let minutes = number(2), hours < 24,
                minutes < 60
            else { return nil }
            let start = Int64(hours * 3600 + minutes * 60)
            guard take(":") else { return (start + 59, 999_999_999) }
            guard let seconds = number(2), seconds < 61 else { return nil }
            guard take(".") else { return (start + Int64(seconds), 999_999_999) }
            guard let fraction = fraction() else { return nil }
            return (start + Int64(seconds), fraction)
        }

        private mutating func fraction() -> Int64? {
            var digits = 0
            var value: Int64 = 0
            while place < characters.count, let digit = characters[place].wholeNumberValue {
                if digits < 9 { value = value * 10 + Int64(digit) }
                digits += 1
                place += 1
            }
            guard digits > 0 else { return nil }
            while digits < 9 {
                value = value * 10 + 9
                digits += 1
            }
            return value
        }

        /// Seconds east of Greenwich; 0 where nothing is said.
        mutating func zone() -> Int64? {
            if isAtEnd || take("Z") || take("z") { return 0 }
            let isEast = take("+")
            guard isEast || take("-"), let hours = number(2), take(":"), let minutes = number(2),
                hours < 24, minutes < 60
            else { return nil }
            let seconds = Int64(hours * 3600 + minutes * 60)
            return isEast ? seconds : -seconds
        }

        private mutating func number(_ digits: Int) -> Int? {
            guard place + digits <= characters.count else { return nil }
            var value = 0
            for character in characters[place..<place + digits] {
                guard let digit = character.wholeNumberValue, character.isASCII else { return nil }
                value = value * 10 + digit
            }
            place += digits
            return value
        }
    }
}
