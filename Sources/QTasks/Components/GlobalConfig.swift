// Part of QTasks. License: see LICENSE.

/// What every process needs from the component that keeps the system's settings, which change while
/// it runs.
public protocol GlobalConfig: Sendable {
    /// The value now; `nil` where the key isn't set.
    func get(_ key: String) async throws -> [UInt8]?

    /// Sets or, with `nil`, removes a value, durably.
    ///
    /// - Returns: The change's place in the order of all changes.
    @discardableResult
    func set(_ key: String, to value: [UInt8]?) async throws -> UInt64

    /// All settings whose key matches a pattern with `*` for any characters.
    func values(matching pattern: String) async throws -> [String: [UInt8]]

    /// Each change of a matching key from now on, in order and without gaps; first what is set now.
    func watch(matching pattern: String) -> AsyncThrowingStream<ConfigChange, any Error>
}

/// One change of a setting.
public struct ConfigChange: Sendable, Equatable {
    /// Its place in the order of all changes.
    public let sequence: UInt64
    public let key: String
    /// `nil` where it was removed.
    public let value: [UInt8]?

    public init(sequence: UInt64, key: String, value: [UInt8]?) {
        self.sequence = sequence
        self.key = key
        self.value = value
    }
}
