// Part of QTasks. License: see LICENSE.

/// What every process needs from the component that keeps the system's settings, which change while
/// it runs.
///
/// The default is ``ZeroMQGlobalConfig``. No call is taken to be instant or to succeed: another
/// engine may keep its settings far away. Every call may throw ``QTasksError``.
public protocol GlobalConfig: Sendable {
    /// The value now; `nil` where the key isn't set.
    func get(_ key: String) async throws -> [UInt8]?

    /// Sets or, with `nil`, removes a value; returns once that is durable.
    ///
    /// - Throws: ``QTasksError/Code/badOption`` for what can't be a key or its value; nothing is
    ///   changed then. After any other error the change may still come to pass.
    func set(_ key: String, to value: [UInt8]?) async throws

    /// All settings whose key matches a pattern with `*` for any run of characters.
    func values(matching pattern: String) async throws -> [String: [UInt8]]

    /// First what is set now, then each change of a matching key, in the order in which they became
    /// durable.
    ///
    /// Where the connection breaks, changes that were overtaken meanwhile may be left out, but never
    /// the newest of a key: whoever follows has what everybody has. The stream ends with an error
    /// rather than with a gap where its reader falls too far behind.
    func watch(matching pattern: String) -> AsyncThrowingStream<ConfigChange, any Error>
}

/// One change of a setting.
public struct ConfigChange: Sendable, Hashable {
    /// What was set or removed.
    public let key: String

    /// `nil` where it was removed.
    public let value: [UInt8]?

    public init(key: String, value: [UInt8]?) {
        self.key = key
        self.value = value
    }
}
