// Part of QTasks. License: see LICENSE.

/// Where a task is in its life.
///
/// ```
///                  lease              result
///   add ---> new ---------> process ----------> success | error | cancel
///             ^               |  |
///             |   released    |  |  retry
///             +---------------+  +----------> scheduled ---> (due) new
///             |
///             +-- its workers died too often ---> dead
/// ```
///
/// The strings are the same in the log, on the wire and in JSON.
public enum TaskStatus: String, Sendable, Hashable, Codable, CaseIterable {
    /// Queued: waits for a worker.
    case new
    /// Leased to a worker.
    case process
    /// Waits for a time: a delayed add, or a retry.
    case scheduled
    /// The handler returned a result. Final.
    case success
    /// The handler's last word was an error: it threw or ran past its limit and no attempt is left,
    /// or its arguments didn't decode. Final.
    case error
    /// Given up on purpose. Final.
    case cancel
    /// Its workers died as often as it may be delivered; it never came to a last word. Final.
    case dead

    /// Whether only an operator's requeue leads out of it.
    public var isFinal: Bool {
        switch self {
        case .new, .process, .scheduled: false
        case .success, .error, .cancel, .dead: true
        }
    }

    /// The number that stands for it in the log and on the wire.
    public var code: UInt8 {
        switch self {
        case .new: 1
        case .process: 2
        case .scheduled: 3
        case .success: 4
        case .error: 5
        case .cancel: 6
        case .dead: 7
        }
    }

    /// The status with that number, `nil` if there is none.
    public init?(code: UInt8) {
        switch code {
        case 1: self = .new
        case 2: self = .process
        case 3: self = .scheduled
        case 4: self = .success
        case 5: self = .error
        case 6: self = .cancel
        case 7: self = .dead
        default: return nil
        }
    }
}
