// Part of QTasks. License: see LICENSE.

/// How far back the log keeps what happened, also of tasks that are gone: up to an age and a size,
/// whichever is reached first.
public struct HistoryWindow: Sendable, Hashable {
    public let seconds: UInt64
    public let bytes: UInt64

    /// Neither may be 0: that is ``none``.
    public init?(seconds: UInt64, bytes: UInt64) {
        guard seconds > 0, bytes > 0 else { return nil }
        self.init(checked: seconds, bytes)
    }

    private init(checked seconds: UInt64, _ bytes: UInt64) {
        self.seconds = seconds
        self.bytes = bytes
    }

    /// Nothing is kept but what tasks need.
    public static let none = HistoryWindow(checked: 0, 0)

    /// A day or 1 GiB.
    public static let standard = HistoryWindow(checked: 86_400, 1 << 30)

    /// Reads `AGE,BYTES` such as `24h,1GiB`, or `0`.
    public init?(_ text: String) {
        if text == "0" {
            self = .none
            return
        }
        let parts = text.split(separator: ",", omittingEmptySubsequences: false)
        guard parts.count == 2, let seconds = SecondsText.seconds(parts[0]),
            let bytes = BytesText.bytes(parts[1])
        else { return nil }
        self.init(seconds: seconds, bytes: bytes)
    }
}

extension HistoryWindow: CustomStringConvertible {
    /// As ``init(_:)`` reads it.
    public var description: String {
        self == .none ? "0" : "\(SecondsText.text(seconds)),\(BytesText.text(bytes))"
    }
}
