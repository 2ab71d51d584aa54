// Part of QTasks. License: see LICENSE.

package import QTasksModel

/// A task's add as bytes: made once by the client, then passed on and stored as it is.
///
/// ```
///  offset  bytes  field
///       0      4  byte count of the whole envelope
///       4     16  task ID, as the UUID's bytes stand (RFC 9562)
///      20      2  priority, signed
///      22      1  bytes of the name, n
///      23      1  bytes of the queue's name, q; 0 stands for "default"
///      24      4  bytes of the options, o
///      28      4  bytes of the arguments, a
///      32      n  name, UTF-8
///       +      q  queue, UTF-8
///       +      o  options: each a tag (1 byte), a count (2 bytes), and that many bytes
///       +      a  arguments
/// ```
///
/// Unknown options with a tag below 128 are refused, others passed over: a later version can add
/// both kinds. The Broker reads the fixed part and nothing else.
package struct Envelope {
    package static let fixedBytes = 32

    /// All of it.
    package let bytes: UnsafeRawBufferPointer
    package let id: TaskID
    package let priority: Int16
    package let name: UnsafeRawBufferPointer
    package let queue: UnsafeRawBufferPointer
    package let options: UnsafeRawBufferPointer
    /// Empty where only the head was read.
    package let arguments: UnsafeRawBufferPointer

    /// How many bytes the arguments have, wherever they are.
    package let argumentBytes: Int

    /// Reads the next envelope; it points into the reader's bytes.
    package init(from reader: inout WireReader) throws(WireError) {
        try self.init(from: &reader, isHead: false)
    }

    /// Reads the next envelope's head: all that stands before the arguments, as it stands in the
    /// whole.
    package init(headFrom reader: inout WireReader) throws(WireError) {
        try self.init(from: &reader, isHead: true)
    }

    private init(from source: inout WireReader, isHead: Bool) throws(WireError) {
        var reader = source
        let byteCount = Int(try reader.integer("envelope byte count", as: UInt32.self))
        id = try reader.id("task ID")
        priority = try reader.integer("priority")
        let nameBytes = Int(try reader.u8("name byte count"))
        let queueBytes = Int(try reader.u8("queue byte count"))
        let optionBytes = Int(try reader.integer("option byte count", as: UInt32.self))
        argumentBytes = Int(try reader.integer("argument byte count", as: UInt32.self))
        let headBytes = Self.fixedBytes + nameBytes + queueBytes + optionBytes
        bytes = try source.raw(isHead ? headBytes : byteCount, "envelope")
        guard byteCount == headBytes + argumentBytes else {
            throw .invalid(field: "envelope byte count")
        }
        name = try reader.raw(nameBytes, "name")
        queue = try reader.raw(queueBytes, "queue")
        options = try reader.raw(optionBytes, "options")
        arguments = isHead ? Self.nothing : try reader.raw(argumentBytes, "arguments")
    }

    private static var nothing: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: nil, count: 0)
    }

    /// All that stands before the arguments.
    package var head: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: bytes[..<(bytes.count - arguments.count)])
    }

    /// Reads bytes that are one envelope.
    package init(_ bytes: UnsafeRawBufferPointer) throws(WireError) {
        var reader = WireReader(bytes)
        try self.init(from: &reader)
        guard reader.isAtEnd else { throw .invalid(field: "envelope byte count") }
    }
}

/// The tags of an envelope's options.
///
/// Part of the protocol and of the log: never use one again.
enum OptionTag: UInt8 {
    case maxAttempts = 1
    case maxDeliveries = 2
    case timeLimit = 3
    case delay = 4
    case at = 5
    case expires = 6
    case key = 7
    case parent = 8
    case header = 9
    case contentType = 10
    case durability = 11
    case retention = 12
    case unique = 13
}

/// The options that Broker and Storage act on, read without decoding the rest.
package struct EnvelopeOptions {
    package var maxAttempts: UInt32?
    package var maxDeliveries: UInt32?
    package var timeLimitMilliseconds: UInt64?
    package var start: TaskSubmission.Start = .now
    package var expires: Timestamp?
    package var key: UnsafeRawBufferPointer?
    package var parent: TaskID?
    package var contentType: String?
    package var durability: Durability?
    package var retentionSeconds: UInt64?
    package var unique: UniqueOption?
    package var headers: [TaskSubmission.Header] = []

    /// Reads and checks every option of an envelope.
    package init(_ bytes: UnsafeRawBufferPointer) throws(WireError) {
        guard !bytes.isEmpty else { return }
        var reader = WireReader(bytes)
        while !reader.isAtEnd {
            let code = try reader.u8("option tag")
            let count = Int(try reader.integer("option byte count", as: UInt16.self))
            var value = WireReader(try reader.raw(count, "option"))
            guard let tag = OptionTag(rawValue: code) else {
                if code < 128 { throw .invalid(field: "option tag") }
                continue
            }
            try read(tag, from: &value)
            guard value.isAtEnd else { throw .invalid(field: "option byte count") }
        }
    }

    private mutating func read(
        _ tag: OptionTag,
        from value: inout WireReader
    ) throws(WireError) {
        switch tag {
        case .maxAttempts: maxAttempts = try value.integer("maxAttempts")
        case .maxDeliveries: maxDeliveries = try value.integer("maxDeliveries")
        case .timeLimit: timeLimitMilliseconds = try value.integer("timeLimit")
        case .delay: start = .after(milliseconds: try value.integer("delay"))
        case .at: start = .at(try value.moment("at"))
        case .expires: expires = try value.moment("expires")
        case .key: key = value.rest()
        case .parent: parent = try value.id("parent")
        case .header: headers.append(try value.header())
        case .contentType: contentType = try value.text(value.left, "contentType")
        case .durability: durability = try value.durability()
        case .retention: retentionSeconds = try value.integer("retention")
        case .unique: unique = try UniqueOption(from: &value)
        }
        if maxAttempts == 0 { throw .invalid(field: "maxAttempts") }
        if maxDeliveries == 0 { throw .invalid(field: "maxDeliveries") }
    }
}

extension WireReader {
    /// Milliseconds since 1970.
    mutating func moment(_ field: StaticString) throws(WireError) -> Timestamp {
        let milliseconds = try integer(field, as: Int64.self)
        let (nanoseconds, overflow) = milliseconds.multipliedReportingOverflow(by: 1_000_000)
        guard !overflow else { throw .invalid(field: field) }
        return Timestamp(nanoseconds: nanoseconds)
    }

    /// A level's code; behind an interval's its milliseconds (4 bytes).
    fileprivate mutating func durability() throws(WireError) -> Durability {
        switch try u8("durability") {
        case Durability.synced.code: return .synced
        case Durability.written.code: return .written
        case 2:
            let milliseconds = try integer("durability interval", as: UInt32.self)
            guard Durability.intervalRange.contains(milliseconds) else {
                throw .invalid(field: "durability interval")
            }
            return .interval(milliseconds: milliseconds)
        default: throw .invalid(field: "durability")
        }
    }

    fileprivate mutating func header() throws(WireError) -> TaskSubmission.Header {
        let count = Int(try u8("header name byte count"))
        let name = try text(count, "header name")
        return .init(name: name, value: try text(left, "header value"))
    }
}

extension TaskSubmission {
    /// How many bytes a key may have.
    package static let keyBytes = 1...255

    /// Appends the task's envelope.
    ///
    /// - Throws: ``QTasksError/Code/badName`` or ``QTasksError/Code/badOption``; `writer` is then unchanged.
    package func write(to writer: inout WireWriter) throws(QTasksError) {
        guard TaskName.isValid(name) else { throw .badName("task", name) }
        guard TaskName.isValid(queue) else { throw .badName("queue", queue) }
        let queueName = queue == TaskName.defaultQueue ? "" : queue
        let options = try encodedOptions()
        let bytes =
            Envelope.fixedBytes + name.utf8.count + queueName.utf8.count + options.count
            + arguments.count
        guard let byteCount = UInt32(exactly: bytes) else {
            throw QTasksError(
                .payloadTooLarge,
                "arguments of \(arguments.count) bytes for '\(name)'"
            )
        }
        writer.integer(byteCount)
        writer.id(id)
        writer.integer(priority)
        writer.u8(UInt8(name.utf8.count))
        writer.u8(UInt8(queueName.utf8.count))
        writer.integer(UInt32(options.count))
        writer.integer(UInt32(arguments.count))
        writer.raw(name.utf8)
        writer.raw(queueName.utf8)
        writer.raw(options)
        writer.raw(arguments)
    }

    /// Reads a whole envelope.
    package init(_ envelope: Envelope) throws(WireError) {
        var reader = WireReader(envelope.name)
        let name = try reader.text(envelope.name.count, "name")
        self.init(id: envelope.id, name: name, arguments: Array(envelope.arguments))
        if !envelope.queue.isEmpty {
            reader = WireReader(envelope.queue)
            queue = try reader.text(envelope.queue.count, "queue")
        }
        priority = envelope.priority
        let options = try EnvelopeOptions(envelope.options)
        maxAttempts = options.maxAttempts
        maxDeliveries = options.maxDeliveries
        timeLimitMilliseconds = options.timeLimitMilliseconds
        start = options.start
        expires = options.expires
        key = options.key.map { Array($0) }
        parent = options.parent
        headers = options.headers
        contentType = options.contentType
        durability = options.durability
        retentionSeconds = options.retentionSeconds
        unique = options.unique.map { UniqueKey(Array($0.key), $0.scope) }
    }

    private func encodedOptions() throws(QTasksError) -> [UInt8] {
        var writer = WireWriter(reserving: 0)
        if let maxAttempts { writer.option(.maxAttempts, maxAttempts) }
        if let maxDeliveries { writer.option(.maxDeliveries, maxDeliveries) }
        if let timeLimitMilliseconds { writer.option(.timeLimit, timeLimitMilliseconds) }
        switch start {
        case .now: break
        case .after(let milliseconds): writer.option(.delay, milliseconds)
        case .at(let moment):
            // up: never early
            let (whole, rest) = moment.nanoseconds.quotientAndRemainder(dividingBy: 1_000_000)
            writer.option(.at, rest > 0 ? whole + 1 : whole)
        }
        if let expires { writer.option(.expires, expires.nanoseconds / 1_000_000) }
        if let key {
            guard Self.keyBytes.contains(key.count) else {
                throw QTasksError(
                    .badOption,
                    "key of \(key.count) bytes for '\(name)': a key has 1 to "
                        + "\(Self.keyBytes.upperBound)"
                )
            }
            try writer.option(.key, key, "key")
        }
        if let parent {
            writer.u8(OptionTag.parent.rawValue)
            writer.integer(UInt16(16))
            writer.id(parent)
        }
        for header in headers {
            guard (1...255).contains(header.name.utf8.count) else {
                throw QTasksError(
                    .badOption,
                    "header name '\(header.name)' isn't 1 to 255 bytes long"
                )
            }
            let bytes = [UInt8(header.name.utf8.count)] + header.name.utf8 + header.value.utf8
            try writer.option(.header, bytes, "header '\(header.name)'")
        }
        if let contentType {
            try writer.option(.contentType, Array(contentType.utf8), "content type")
        }
        if let durability { try writer.option(durability) }
        if let retentionSeconds {
            guard retentionSeconds >= Retention.secondsMin else {
                throw QTasksError(
                    .badOption,
                    "retention of \(retentionSeconds) s for '\(name)': a task is kept at least "
                        + "\(Retention.secondsMin) s, since within that time a repeated add is the same task"
                )
            }
            writer.option(.retention, retentionSeconds)
        }
        if let unique { try writer.option(.unique, try unique.encoded(), "unique key") }
        return writer.bytes
    }
}

extension WireWriter {
    fileprivate mutating func option(_ tag: OptionTag, _ value: some FixedWidthInteger) {
        u8(tag.rawValue)
        integer(UInt16(value.bitWidth / 8))
        integer(value)
    }

    fileprivate mutating func option(_ durability: Durability) throws(QTasksError) {
        guard let milliseconds = durability.intervalMilliseconds else {
            return option(.durability, durability.code)
        }
        guard Durability.intervalRange.contains(milliseconds) else {
            throw QTasksError(
                .badOption,
                "durability '\(durability)': it takes \(Durability.allowedTexts)"
            )
        }
        u8(OptionTag.durability.rawValue)
        integer(UInt16(5))
        u8(durability.code)
        integer(milliseconds)
    }

    fileprivate mutating func option(
        _ tag: OptionTag,
        _ value: [UInt8],
        _ what: String
    ) throws(QTasksError) {
        guard let count = UInt16(exactly: value.count) else {
            throw QTasksError(.badOption, "\(what) of \(value.count) bytes: it may have 65535")
        }
        u8(tag.rawValue)
        integer(count)
        raw(value)
    }
}

extension QTasksError {
    /// A name that isn't well formed.
    package static func badName(_ what: String, _ name: String) -> QTasksError {
        QTasksError(
            .badName,
            "\(what) name '\(name)': a name is 1 to 255 bytes of UTF-8 without control characters"
        )
    }
}
