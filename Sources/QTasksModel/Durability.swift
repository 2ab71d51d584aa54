// Part of QTasks. License: see LICENSE.

/// What an acknowledgement of an add, or a result that is told, has survived.
public enum Durability: Hashable, Sendable {
    /// `fdatasync` is done: survives loss of power. The default.
    case synced
    /// Handed to the kernel: survives the death of any process, not of the host.
    case written
    /// Handed to the kernel, and `fdatasync` follows that many milliseconds later at the latest: loss of
    /// power takes what is younger. See ``intervalRange``.
    case interval(milliseconds: UInt32)
}

extension Durability {
    /// How long an interval may be, in milliseconds: up to an hour.
    public static let intervalRange: ClosedRange<UInt32> = 1...3_600_000

    /// The number that stands for it in the log and on the wire.
    public var code: UInt8 {
        switch self {
        case .synced: 0
        case .written: 1
        case .interval: 2
        }
    }

    /// The time of an interval, else `nil`.
    public var intervalMilliseconds: UInt32? {
        guard case .interval(let milliseconds) = self else { return nil }
        return milliseconds
    }

    /// Whether what was done may be told before it is synced.
    public var isToldOnceWritten: Bool {
        switch self {
        case .synced: false
        case .written, .interval: true
        }
    }

    /// Reads `synced`, `written` or `interval:MS`, such as `interval:50`.
    public init?(_ text: String) {
        switch text {
        case "synced": self = .synced
        case "written": self = .written
        default:
            let parts = text.split(separator: ":", omittingEmptySubsequences: false)
            guard parts.count == 2, parts[0] == "interval",
                let milliseconds = UInt32(parts[1]), Self.intervalRange.contains(milliseconds)
            else { return nil }
            self = .interval(milliseconds: milliseconds)
        }
    }

    /// What ``init(_:)`` reads, for people.
    public static let allowedTexts =
        "'synced', 'written' or 'interval:MS' with MS from 1 to 3600000"
}

extension Durability: CustomStringConvertible {
    public var description: String {
        switch self {
        case .synced: "synced"
        case .written: "written"
        case .interval(let milliseconds): "interval:\(milliseconds)"
        }
    }
}
