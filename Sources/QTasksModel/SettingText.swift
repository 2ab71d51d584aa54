// Part of QTasks. License: see LICENSE.
//
// Times and sizes as people write them in settings: `24h`, `10GiB`.

/// Whole seconds as text: a number and one of `s`, `m`, `h` and `d`.
public enum SecondsText {
    private static let units: [(name: Character, seconds: UInt64)] = [
        ("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1),
    ]

    /// The longest time there is: a hundred years.
    public static let secondsMax: UInt64 = 36_500 * 86_400

    /// Reads `90s`, `10m`, `24h`, `7d`; `nil` where it is something else, or longer than ``secondsMax``.
    public static func seconds(_ text: some StringProtocol) -> UInt64? {
        guard let unit = units.first(where: { $0.name == text.last }) else { return nil }
        return product(text.dropLast(), unit.seconds, max: secondsMax)
    }

    /// The same time as text, in the largest unit that leaves no rest.
    public static func text(_ seconds: UInt64) -> String {
        for unit in units where seconds > 0 && seconds.isMultiple(of: unit.seconds) {
            return "\(seconds / unit.seconds)\(unit.name)"
        }
        return "0s"
    }
}

/// Bytes as text: a number, alone or with a unit such as `MiB` or `MB`.
public enum BytesText {
    private static let units: [(name: String, bytes: UInt64)] = [
        ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10),
        ("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("KB", 1_000),
    ]

    /// The most bytes there are: 1024 TiB.
    public static let bytesMax: UInt64 = 1 << 50

    /// Reads `10GiB`, `500MB`, `1048576`; `nil` where it is something else, or more than ``bytesMax``.
    public static func bytes(_ text: some StringProtocol) -> UInt64? {
        guard let unit = units.first(where: { text.hasSuffix($0.name) }) else {
            return product(text, 1, max: bytesMax)
        }
        return product(text.dropLast(unit.name.count), unit.bytes, max: bytesMax)
    }

    /// The same size as text, in the largest binary unit that leaves no rest.
    public static func text(_ bytes: UInt64) -> String {
        for unit in units.prefix(4) where bytes > 0 && bytes.isMultiple(of: unit.bytes) {
            return "\(bytes / unit.bytes)\(unit.name)"
        }
        return String(bytes)
    }
}

/// Digits times a unit, where that is no more than `max`.
private func product(_ digits: some StringProtocol, _ unit: UInt64, max: UInt64) -> UInt64? {
    // "+5" is a number to Swift
    guard digits.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }),
        let number = UInt64(digits)
    else { return nil }
    let (product, overflow) = number.multipliedReportingOverflow(by: unit)
    return overflow || product > max ? nil : product
}
