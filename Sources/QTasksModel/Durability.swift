// Part of QTasks. License: see LICENSE.

/// What an acknowledgement of an add, or a result that is told, has survived.
public enum Durability: Hashable, Sendable {
    /// `fdatasync` is done: survives loss of power. The default.
    case synced
    /// Handed to the kernel: survives the death of any process, not of the host.
    case written
}

extension Durability {
    /// The number that stands for it in the log and on the wire.
    public var code: UInt8 {
        switch self {
        case .synced: 0
        case .written: 1
        }
    }

    /// The level with that number, `nil` if there is none.
    public init?(code: UInt8) {
        switch code {
        case 0: self = .synced
        case 1: self = .written
        default: return nil
        }
    }

    /// Reads `synced` or `written`.
    public init?(_ text: String) {
        switch text {
        case "synced": self = .synced
        case "written": self = .written
        default: return nil
        }
    }
}

extension Durability: CustomStringConvertible {
    public var description: String {
        switch self {
        case .synced: "synced"
        case .written: "written"
        }
    }
}
