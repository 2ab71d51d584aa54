// Part of QTasks. License: see LICENSE.

package import QTasksModel

/// Option 13, `unique`: scope (1), window in seconds (4; 0 where the scope has none), key to the end.
package struct UniqueOption {
    package var scope: UniqueKey.Scope
    package var key: UnsafeRawBufferPointer

    package init(from reader: inout WireReader) throws(WireError) {
        let code = try reader.u8("unique scope")
        let seconds = try reader.integer("unique window", as: UInt32.self)
        guard let scope = UniqueKey.Scope(code: code, seconds: seconds) else {
            throw .invalid(field: "unique scope")
        }
        self.scope = scope
        key = reader.rest()
        guard (1...UniqueKey.bytesMax).contains(key.count) else {
            throw .invalid(field: "unique key")
        }
    }

    package func write(to writer: inout WireWriter) {
        writer.u8(scope.code)
        writer.integer(scope.seconds)
        writer.raw(key)
    }
}

extension UniqueKey {
    func encoded() throws(QTasksError) -> [UInt8] {
        guard (1...Self.bytesMax).contains(bytes.count) else {
            throw QTasksError(
                .badOption,
                "a unique key of \(bytes.count) bytes: it has 1 to \(Self.bytesMax)"
            )
        }
        if case .window(0) = scope {
            throw QTasksError(.badOption, "a unique key's window is at least a second")
        }
        var writer = WireWriter(reserving: 5 + bytes.count)
        writer.u8(scope.code)
        writer.integer(scope.seconds)
        writer.raw(bytes)
        return writer.bytes
    }
}

/// The options that Storage goes on acting on once a task is added, read without decoding the others.
package struct StandingOptions {
    /// How long the task is kept once it has ended.
    package private(set) var retentionSeconds: UInt64?
    package private(set) var expires: Timestamp?
    package private(set) var unique: UniqueOption?
    /// What limits per key go by.
    package private(set) var key: UnsafeRawBufferPointer?

    /// Bytes that are no options have none.
    package init(_ bytes: UnsafeRawBufferPointer) {
        var reader = WireReader(bytes)
        while !reader.isAtEnd {
            guard let code = try? reader.u8("option tag"),
                let count = try? reader.integer("option byte count", as: UInt16.self),
                let value = try? reader.raw(Int(count), "option")
            else { return }
            var field = WireReader(value)
            switch OptionTag(rawValue: code) {
            case .retention: retentionSeconds = try? field.integer("retention")
            case .key: key = value
            case .expires: expires = try? field.moment("expires")
            case .unique: unique = try? UniqueOption(from: &field)
            default: continue
            }
        }
    }
}
