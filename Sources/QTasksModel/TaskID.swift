// Part of QTasks. License: see LICENSE.

import Glibc
import Synchronization

/// The name of one task, made by whoever adds it: a UUID of version 7 (RFC 9562, section 5.7).
///
/// A repeated add carries the same ID and is therefore the same task. IDs sort by the millisecond
/// in which they were made.
public struct TaskID: Hashable, Sendable {
    /// Bytes 0 to 7, big endian: 48 bits of milliseconds since 1970, the version, 12 random bits.
    public let high: UInt64

    /// Bytes 8 to 15, big endian: the variant and 62 random bits.
    public let low: UInt64

    /// An ID from its two halves, taken as they are.
    public init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// A new ID for this moment; any thread may ask.
    public init() {
        self = Self.generator.withLock { $0.next(milliseconds: Self.wallMilliseconds()) }
    }

    /// Reads the usual form of 36 characters, such as `019062aa-7c3b-7d2e-8f10-0123456789ab`.
    ///
    /// Upper-case digits are read too. `nil` for anything else.
    public init?(_ text: some StringProtocol) {
        var halves: (UInt64, UInt64) = (0, 0)
        var digits = 0
        var place = 0
        for byte in text.utf8 {
            if [8, 13, 18, 23].contains(place) {
                guard byte == UInt8(ascii: "-") else { return nil }
            } else {
                guard digits < 32, let digit = Self.digit(byte) else { return nil }
                if digits < 16 {
                    halves.0 = halves.0 << 4 | digit
                } else {
                    halves.1 = halves.1 << 4 | digit
                }
                digits += 1
            }
            place += 1
        }
        guard place == 36 else { return nil }
        self.init(high: halves.0, low: halves.1)
    }

    /// When the ID was made, in milliseconds since 1970, as its maker's clock had it.
    public var milliseconds: UInt64 { high >> 16 }

    private static func digit(_ byte: UInt8) -> UInt64? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt64(byte - UInt8(ascii: "0"))
        case UInt8(ascii: "a")...UInt8(ascii: "f"): UInt64(byte - UInt8(ascii: "a") + 10)
        case UInt8(ascii: "A")...UInt8(ascii: "F"): UInt64(byte - UInt8(ascii: "A") + 10)
        default: nil
        }
    }

    private static func wallMilliseconds() -> UInt64 {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        return UInt64(now.tv_sec) * 1000 + UInt64(now.tv_nsec) / 1_000_000
    }

    private static let generator = Mutex(
        TaskIDGenerator(seed: (.random(in: .min ... .max), .random(in: .min ... .max)))
    )
}

extension TaskID: Comparable {
    public static func < (left: Self, right: Self) -> Bool {
        (left.high, left.low) < (right.high, right.low)
    }
}

extension TaskID: CustomStringConvertible {
    public var description: String {
        String(unsafeUninitializedCapacity: 36) { characters in
            var place = 0
            for index in 0..<32 {
                if [8, 13, 18, 23].contains(place) {
                    characters[place] = UInt8(ascii: "-")
                    place += 1
                }
                let half = index < 16 ? high : low
                let digit = UInt8(truncatingIfNeeded: half >> (60 - UInt64(index % 16) * 4)) & 15
                characters[place] =
                    digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "a") + digit - 10
                place += 1
            }
            return place
        }
    }
}

extension TaskID: Codable {
    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        let text = try container.decode(String.self)
        guard let id = TaskID(text) else {
            throw DecodingError.dataCorruptedError(
                in: container,
                debugDescription: "'\(text)' is no task ID"
            )
        }
        self = id
    }

    public func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encode(description)
    }
}

/// Makes task IDs from a time and a seed: the same seed gives the same IDs, as the simulator needs.
///
/// The random bits come from SplitMix64 (Steele, Lea, Flood, 2014), which is quick and needs no
/// system call; two seeds of 64 random bits keep processes apart.
public struct TaskIDGenerator: Sendable {
    private var state: UInt64
    private let stream: UInt64

    /// A generator whose IDs follow from `seed` and the times it is given.
    public init(seed: (UInt64, UInt64)) {
        state = seed.0
        stream = seed.1
    }

    /// The next ID, for a moment in milliseconds since 1970.
    public mutating func next(milliseconds: UInt64) -> TaskID {
        let random = mix() ^ stream
        let high = milliseconds << 16 | 0x7000 | mix() & 0x0FFF
        return TaskID(high: high, low: random & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000)
    }

    private mutating func mix() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
        return mixed ^ mixed >> 31
    }
}
