// Part of QTasks. License: see LICENSE.

/// Keeps a task from being added while another one of its name holds the same key.
///
/// A repeat isn't added: whoever adds it is told the holder's ID, and gets its result.
public struct UniqueKey: Sendable, Hashable {
    /// For how long the first task holds the key.
    public enum Scope: Sendable, Hashable {
        /// Until it is leased for the first time.
        case whileQueued
        /// Until it has ended.
        case whileUnfinished
        /// For that long from its add, whatever becomes of it; it is kept as long.
        case window(seconds: UInt32)
    }

    /// 1 to ``bytesMax`` bytes; other tasks' names have keys of their own.
    public var bytes: [UInt8]

    public var scope: Scope

    /// The longest key, in bytes.
    public static let bytesMax = 1024

    public init(_ bytes: [UInt8], _ scope: Scope) {
        self.bytes = bytes
        self.scope = scope
    }

    /// Of all tasks with this key one waits for its first start.
    public static func whileQueued(_ key: String) -> UniqueKey {
        UniqueKey(Array(key.utf8), .whileQueued)
    }

    /// Of all tasks with this key one is unfinished.
    public static func whileUnfinished(_ key: String) -> UniqueKey {
        UniqueKey(Array(key.utf8), .whileUnfinished)
    }

    /// Within that time, in whole seconds rounded up, one task with this key is added.
    public static func window(_ key: String, _ length: Duration) -> UniqueKey {
        let (seconds, rest) = length.components
        let whole = UInt32(clamping: rest > 0 ? seconds + 1 : seconds)
        return UniqueKey(Array(key.utf8), .window(seconds: whole))
    }
}

extension UniqueKey.Scope {
    /// Its number on the wire and in the log.
    package var code: UInt8 {
        switch self {
        case .whileQueued: 1
        case .whileUnfinished: 2
        case .window: 3
        }
    }

    /// The window, 0 where there is none.
    package var seconds: UInt32 {
        if case .window(let seconds) = self { seconds } else { 0 }
    }

    /// `nil` for what no scope is.
    package init?(code: UInt8, seconds: UInt32) {
        switch (code, seconds) {
        case (1, 0): self = .whileQueued
        case (2, 0): self = .whileUnfinished
        case (3, 1...): self = .window(seconds: seconds)
        default: return nil
        }
    }
}
