// Part of QTasks. License: see LICENSE.

import QTasksWire

/// What Storage acts on in an outcome, read without copying what else is in it.
///
/// The layout is that of `WireWriter.outcome(_:)`; all of it is checked here, so that whatever is in
/// the log can be read again.
enum OutcomeHead: Equatable {
    case success
    case error
    case cancel
    case retry(afterMilliseconds: UInt64, maxAttempts: UInt32)

    /// - Throws: Where the bytes are not one outcome.
    init(_ bytes: UnsafeRawBufferPointer) throws(WireError) {
        var reader = WireReader(bytes)
        switch try reader.u8("outcome") {
        case 1:
            try reader.skipText("content type")
            _ = try reader.counted("result")
            self = .success
        case 2:
            try reader.skipFailure()
            self = .error
        case 3:
            try reader.skipText("reason")
            self = .cancel
        case 4:
            let wait = try reader.integer("wait", as: UInt64.self)
            let maxAttempts = try reader.integer("maxAttempts", as: UInt32.self)
            try reader.skipFailure()
            self = .retry(afterMilliseconds: wait, maxAttempts: maxAttempts)
        default: throw .invalid(field: "outcome")
        }
        guard reader.isAtEnd else { throw .invalid(field: "result byte count") }
    }

    /// Whether an outcome that was checked before counts against the limit on attempts.
    static func isFailure(_ bytes: UnsafeRawBufferPointer) -> Bool {
        bytes.first == 2 || bytes.first == 4
    }
}

extension WireReader {
    fileprivate mutating func skipText(_ field: StaticString) throws(WireError) {
        let count = Int(try integer(field, as: UInt16.self))
        // most texts here are empty or short and cost no allocation
        if count > 0 { _ = try text(count, field) }
    }

    fileprivate mutating func skipFailure() throws(WireError) {
        try skipText("error type")
        try skipText("error message")
        try skipText("error trace")
    }
}
