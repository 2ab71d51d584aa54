// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksModel
import QTasksProcess
import QTasksWire
import ZeroMQ

/// A bare socket at one of a system's endpoints, which can say anything.
@MainActor
final class Peer {
    private let context: Context
    private let socket: Socket
    private var loop: PollLoop
    private var frames = Frames()
    private var number: UInt64 = 0

    init(_ kind: Socket.Kind, at home: String, _ endpoint: SystemEndpoint) throws {
        context = try Context()
        var options = SocketOptions()
        options.immediate = kind != .sub
        socket = try Socket(kind, in: context, options: options)
        loop = try PollLoop()
        try socket.connect(to: try HomeDirectory(home).endpoint(endpoint))
    }

    /// Sends one message, as soon as there is a connection.
    func send(_ message: [UInt8]..., within seconds: Int = 5) throws {
        let end = Self.deadline(in: seconds)
        while try socket.send(frames: message) != .sent {
            try loop.setTimer(at: end)
            let ready = try loop.wait([socket.pollItem.orWritable])
            if ready.timerFired { throw Failure("nobody took a message within \(seconds) s") }
        }
    }

    /// The next message's first frame.
    func receive(within seconds: Int = 5) throws -> [UInt8] {
        let end = Self.deadline(in: seconds)
        while try !socket.receive(into: &frames) {
            try loop.setTimer(at: end)
            let ready = try loop.wait([socket.pollItem])
            if ready.timerFired { throw Failure("no answer within \(seconds) s") }
        }
        return frames.bytes(at: 0)
    }

    /// Sends a request with a number of its own and gives its answer's command and body.
    func ask(
        _ command: Command,
        within seconds: Int = 5,
        _ fill: (inout WireWriter) throws -> Void
    ) throws -> (command: Command, body: [UInt8]) {
        number += 1
        var writer = WireWriter(command, number: number)
        try fill(&writer)
        try send(writer.bytes)
        return try answer(within: seconds)
    }

    /// The next answer's command and body.
    func answer(within seconds: Int = 5) throws -> (command: Command, body: [UInt8]) {
        let message = try receive(within: seconds)
        let header = try message.withUnsafeBytes { bytes in
            var reader = WireReader(bytes)
            return try MessageHeader.read(from: &reader)
        }
        return (header.command, Array(message.dropFirst(MessageHeader.byteCount)))
    }

    /// What the answer refuses the request with, `nil` if it doesn't.
    func refusal(within seconds: Int = 5) throws -> RefusalCode? {
        let (command, body) = try answer(within: seconds)
        guard command == .error else { return nil }
        return body.first.flatMap { RefusalCode(rawValue: $0) }
    }

    /// A task's record once it has ended.
    func record(of id: String, within seconds: Int) throws -> JSON {
        guard let task = TaskID(id) else { throw Failure("'\(id)' is no ID") }
        let (command, body) = try ask(.get, within: seconds) { writer in
            writer.u8(RecordOptions([.wait, .json]).rawValue)
            writer.integer(UInt32(seconds * 1000))
            writer.id(task)
        }
        // flags (1), ID (16), state (1: 1 is found), count (4), the record
        guard command == .records, body.count > 22, body[17] == 1 else {
            throw Failure("no record of \(id): \(command) \(body.prefix(18))")
        }
        return try JSON(String(decoding: body[22...], as: UTF8.self))
    }

    private static func deadline(in seconds: Int) -> UInt64 {
        MonotonicClock.nowNanoseconds() + UInt64(seconds) * 1_000_000_000
    }
}

extension Bed {
    /// The record of a task once it has ended.
    func finalRecord(_ id: String, within seconds: Int = 10) throws -> JSON {
        try Peer(.dealer, at: home, .clients).record(of: id, within: seconds)
    }
}
