// Part of QTasks. License: see LICENSE.
//
// What GlobalConfig hears and says, as bytes. Protocol.md has the same: change both.

package import QTasksWire

/// One key and what it is now; `nil`: it was taken away.
package struct ConfigEntry: Sendable, Equatable {
    package var key: String
    package var value: [UInt8]?

    package init(key: String, value: [UInt8]?) {
        self.key = key
        self.value = value
    }

    /// The value as text, with U+FFFD where it isn't UTF-8.
    package var text: String? {
        value.map { String(decoding: $0, as: UTF8.self) }
    }

    /// Key (text), 1 for set or 0 for taken away, value (counted).
    package func write(to writer: inout WireWriter) {
        writer.text(key)
        writer.u8(value == nil ? 0 : 1)
        writer.counted(value ?? [])
    }

    package init(from reader: inout WireReader) throws(WireError) {
        key = try reader.text("key")
        let verb = try reader.u8("verb")
        let value = try reader.counted("value")
        switch verb {
        case 0: self.value = nil
        case 1: self.value = Array(value)
        default: throw .invalid(field: "verb")
        }
    }
}

/// `CONFIG_SET`, answered by `CONFIG_DONE`: sequence (8), once the change is on disk.
package enum ConfigSetMessage {
    package static func encoded(_ entry: ConfigEntry, number: UInt64) -> [UInt8] {
        var writer = WireWriter(.configSet, number: number)
        entry.write(to: &writer)
        return writer.bytes
    }
}

/// `CONFIG_GET`: a key, or a pattern with `*` (text).
///
/// `CONFIG_SNAPSHOT` asks for everything, and has no body.
package enum ConfigGetMessage {
    package static func encoded(pattern: String, number: UInt64) -> [UInt8] {
        var writer = WireWriter(.configGet, number: number)
        writer.text(pattern)
        return writer.bytes
    }

    package static func snapshot(number: UInt64) -> [UInt8] {
        WireWriter(.configSnapshot, number: number).bytes
    }
}

/// `CONFIG_VALUES`: the newest change's sequence (8), then key (text) and value (counted) of each.
package struct ConfigValuesMessage: Equatable {
    package var sequence: UInt64
    package var values: [String: [UInt8]]

    package init(sequence: UInt64, values: [String: [UInt8]]) {
        self.sequence = sequence
        self.values = values
    }

    package func encoded(number: UInt64) -> [UInt8] {
        var writer = WireWriter(.configValues, number: number)
        writer.integer(sequence)
        for (key, value) in values.sorted(by: { $0.key < $1.key }) {
            writer.text(key)
            writer.counted(value)
        }
        return writer.bytes
    }

    /// Reads the body, to the end.
    package init(from reader: inout WireReader) throws(WireError) {
        sequence = try reader.integer("sequence")
        values = [:]
        while !reader.isAtEnd {
            let key = try reader.text("key")
            values[key] = Array(try reader.counted("value"))
        }
    }
}

/// What is published: `CONFIG_UPDATE`, one change; `CONFIG_HEAD`, where the stream stands.
///
/// The header's number is the sequence in both.
package enum ConfigPublication {
    package static func update(_ entry: ConfigEntry, sequence: UInt64) -> [UInt8] {
        var writer = WireWriter(.configUpdate, number: sequence)
        entry.write(to: &writer)
        return writer.bytes
    }

    package static func head(_ sequence: UInt64) -> [UInt8] {
        WireWriter(.configHead, number: sequence).bytes
    }
}

/// One change in the log of GlobalConfig: sequence (8), then the entry.
///
/// The log's own sequence numbers don't serve: subscribers find a gap by these having none.
package struct ConfigRecord: Sendable, Equatable {
    /// The kind under which it stands in the log.
    package static let kind: UInt8 = 1

    package var sequence: UInt64
    package var entry: ConfigEntry

    package init(sequence: UInt64, entry: ConfigEntry) {
        self.sequence = sequence
        self.entry = entry
    }

    package func encoded() -> [UInt8] {
        var writer = WireWriter(reserving: 64)
        writer.integer(sequence)
        entry.write(to: &writer)
        return writer.bytes
    }

    package init(from bytes: UnsafeRawBufferPointer) throws(WireError) {
        var reader = WireReader(bytes)
        sequence = try reader.integer("sequence")
        entry = try ConfigEntry(from: &reader)
    }
}
