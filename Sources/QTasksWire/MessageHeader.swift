// Part of QTasks. License: see LICENSE.

public import QTasksModel

/// What a message asks or tells.
///
/// The numbers are part of the protocol: never use one again.
package enum Command: UInt8, Sendable {
    // Client to Broker.
    case add = 0x01
    case get = 0x02
    case cancel = 0x03
    case ping = 0x04
    case inspect = 0x05
    case compact = 0x06
    case queue = 0x08
    case requeue = 0x09
    case forget = 0x0A
    // and back, as its answer
    case restart = 0x0B

    // Broker to client.
    case added = 0x11
    case records = 0x12
    case changed = 0x13
    case pong = 0x14
    case inspected = 0x15
    case compacted = 0x16
    case queueRules = 0x17
    case error = 0x1F

    // Broker to everyone: the answer to a probe.
    case welcome = 0x20

    // Worker to Broker.
    case hello = 0x21
    case credit = 0x22
    case handBack = 0x23
    case goodbye = 0x24
    case running = 0x25
    case heartbeat = 0x26

    // Broker to worker.
    case reconciled = 0x31
    case work = 0x32
    case notice = 0x33
    case softCancel = 0x34
    case retire = 0x35
    case watched = 0x36

    // Worker to Storage, by PUSH.
    case results = 0x41

    // Starter to Broker, and back.
    case starterHello = 0x51
    case exit = 0x52
    case drain = 0x53
    case stop = 0x54
    case ready = 0x55
    case drained = 0x56
    case killed = 0x57
    case roll = 0x58
    case joined = 0x59
    case idle = 0x5A

    // Broker to Storage.
    case propose = 0x61
    case stopStorage = 0x62

    // Storage to Broker.
    case opened = 0x71
    case snapshot = 0x72
    case verdicts = 0x73
    case storageFailed = 0x74
    case storageStopped = 0x75
    case globalConfigStarted = 0x76

    // Everyone to GlobalConfig, and back.
    case configSet = 0x81
    case configGet = 0x82
    case configSnapshot = 0x83
    case configStop = 0x84
    case configDone = 0x91
    case configValues = 0x92
    case configUpdate = 0x93
    case configHead = 0x94
}

/// The 12 bytes that every message begins with.
///
/// ```
///  offset  bytes  field
///       0      2  "QT"
///       2      1  protocol version
///       3      1  command
///       4      8  number: of the request, echoed in its answers; 0 where there is none
/// ```
package struct MessageHeader: Sendable, Equatable {
    package static let byteCount = 12

    /// The version of the protocol that this code speaks.
    package static let version: UInt8 = 1

    package var command: Command
    package var number: UInt64

    package init(_ command: Command, number: UInt64 = 0) {
        self.command = command
        self.number = number
    }

    package func write(to writer: inout WireWriter) {
        writer.u8(UInt8(ascii: "Q"))
        writer.u8(UInt8(ascii: "T"))
        writer.u8(Self.version)
        writer.u8(command.rawValue)
        writer.integer(number)
    }

    /// Why a message's first bytes can't be used, with the number to answer where it could be read.
    package enum Refusal: Error, Equatable {
        case malformed
        case unsupportedVersion(UInt8, number: UInt64)
        case unknownCommand(UInt8, number: UInt64)
    }

    /// Reads the header off a message.
    package static func read(from reader: inout WireReader) throws(Refusal) -> MessageHeader {
        do {
            let magic = try reader.raw(2, "magic")
            guard magic[0] == UInt8(ascii: "Q"), magic[1] == UInt8(ascii: "T") else {
                throw Refusal.malformed
            }
            let version = try reader.u8("version")
            let code = try reader.u8("command")
            let number = try reader.integer("number", as: UInt64.self)
            guard version == Self.version else {
                throw Refusal.unsupportedVersion(version, number: number)
            }
            guard let command = Command(rawValue: code) else {
                throw Refusal.unknownCommand(code, number: number)
            }
            return MessageHeader(command, number: number)
        } catch let refusal as Refusal {
            throw refusal
        } catch {
            throw .malformed
        }
    }
}

extension WireWriter {
    /// A writer that begins with a header.
    package init(_ command: Command, number: UInt64 = 0, reserving capacity: Int = 256) {
        self.init(reserving: capacity)
        MessageHeader(command, number: number).write(to: &self)
    }

    @inlinable
    public mutating func id(_ id: TaskID) {
        // big endian, as the UUID's bytes stand in RFC 9562
        integer(id.high.byteSwapped)
        integer(id.low.byteSwapped)
    }

    @inlinable
    public mutating func worker(_ id: WorkerID) {
        integer(id.high.byteSwapped)
        integer(id.low.byteSwapped)
    }
}

extension WireReader {
    @inlinable
    public mutating func id(_ field: StaticString) throws(WireError) -> TaskID {
        let high = try integer(field, as: UInt64.self).byteSwapped
        let low = try integer(field, as: UInt64.self).byteSwapped
        return TaskID(high: high, low: low)
    }

    @inlinable
    public mutating func worker(_ field: StaticString) throws(WireError) -> WorkerID {
        let high = try integer(field, as: UInt64.self).byteSwapped
        let low = try integer(field, as: UInt64.self).byteSwapped
        return WorkerID(high: high, low: low)
    }

    @inlinable
    public mutating func lease(_ field: StaticString) throws(WireError) -> Lease {
        Lease(rawValue: try integer(field, as: UInt64.self))
    }
}
