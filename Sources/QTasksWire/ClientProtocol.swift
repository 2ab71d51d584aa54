// Part of QTasks. License: see LICENSE.
//
// What clients and the Broker say to each other. ADD, GET and CANCEL stand alone: a plain client
// needs no greeting. Protocol.md has the same with worked bytes: change both.

package import QTasksModel

/// Why the Broker refuses something, as one byte.
///
/// Part of the protocol.
package enum RefusalCode: UInt8, Sendable, CaseIterable {
    case malformed = 16
    case unsupportedVersion = 17
    case unknownCommand = 18
    case badName = 19
    case badOption = 20
    case payloadTooLarge = 21
    case conflict = 22
    case overloaded = 23
    case stopping = 24
    case storageUnavailable = 25
    case unknownTask = 26
    case damaged = 27

    /// The same in a client's words.
    package var errorCode: QTasksError.Code {
        switch self {
        case .malformed: .malformed
        case .unsupportedVersion: .unsupportedVersion
        case .unknownCommand: .unknownCommand
        case .badName: .badName
        case .badOption: .badOption
        case .payloadTooLarge: .payloadTooLarge
        case .conflict: .conflict
        case .overloaded: .overloaded
        case .stopping: .stopping
        case .storageUnavailable: .storageUnavailable
        case .unknownTask: .unknownTask
        case .damaged: .damaged
        }
    }

    /// Whether the same request may be taken later: clients try again until their time is over.
    package var isTransient: Bool {
        switch self {
        case .overloaded, .stopping, .storageUnavailable: true
        case .malformed, .unsupportedVersion, .unknownCommand, .badName, .badOption,
            .payloadTooLarge, .conflict, .unknownTask, .damaged:
            false
        }
    }
}

/// A refusal with the sentence that goes with it.
package struct Refusal: Error, Equatable {
    package var code: RefusalCode
    package var message: String

    package init(_ code: RefusalCode, _ message: String) {
        self.code = code
        self.message = message
    }

    /// A name that isn't well formed; `what` has it, such as a queue.
    package static func badName(_ what: String) -> Refusal {
        Refusal(.badName, "a \(what) name is 1 to 255 bytes of UTF-8 without control characters")
    }

    /// The same as a client's error.
    package var error: QTasksError { QTasksError(code.errorCode, message) }
}

/// How a client wants its records.
package struct RecordOptions: OptionSet, Sendable {
    package let rawValue: UInt8

    package init(rawValue: UInt8) {
        self.rawValue = rawValue
    }

    /// Answer when the task has ended; else answer with what is known now.
    package static let wait = RecordOptions(rawValue: 1)
    /// Records as JSON text.
    package static let json = RecordOptions(rawValue: 2)
}

/// `ADD`: flags (1), wait at most (4, milliseconds, 0 for no limit), envelopes to the end.
///
/// With ``RecordOptions/wait`` the records follow once the tasks have ended.
package struct AddMessage {
    package var options: RecordOptions
    package var waitMilliseconds: UInt32

    /// Reads what stands before the envelopes.
    package init(from reader: inout WireReader) throws(WireError) {
        options = RecordOptions(rawValue: try reader.u8("flags"))
        waitMilliseconds = try reader.integer("wait")
    }

    /// Begins an `ADD`; envelopes follow.
    package static func begin(
        number: UInt64,
        options: RecordOptions = [],
        waitMilliseconds: UInt32 = 0
    ) -> WireWriter {
        var writer = WireWriter(.add, number: number, reserving: 512)
        writer.u8(options.rawValue)
        writer.integer(waitMilliseconds)
        return writer
    }
}

/// What became of one envelope of an `ADD`: task ID (16), code (1), and for a refusal its sentence, for
/// ``Verdict/same(_:)`` the other task's ID (16).
package struct AddReceipt: Sendable, Equatable {
    package enum Verdict: Sendable, Equatable {
        /// On disk, as durable as it asked to be.
        case added
        /// It was there already, with the same content.
        case exists
        /// It isn't added: this task holds its unique key. A wait for it has become one for that task.
        case same(TaskID)
        case refused(Refusal)
    }

    package var id: TaskID
    package var verdict: Verdict

    package init(id: TaskID, verdict: Verdict) {
        self.id = id
        self.verdict = verdict
    }

    package func write(to writer: inout WireWriter) {
        writer.id(id)
        switch verdict {
        case .added: writer.u8(0)
        case .exists: writer.u8(1)
        case .same(let holder):
            writer.u8(2)
            writer.id(holder)
        case .refused(let refusal):
            writer.u8(refusal.code.rawValue)
            writer.text(refusal.message)
        }
    }

    package init(from reader: inout WireReader) throws(WireError) {
        id = try reader.id("task ID")
        switch try reader.u8("verdict") {
        case 0: verdict = .added
        case 1: verdict = .exists
        case 2: verdict = .same(try reader.id("holder"))
        case let code:
            guard let code = RefusalCode(rawValue: code) else { throw .invalid(field: "verdict") }
            verdict = .refused(Refusal(code, try reader.text("message")))
        }
    }
}

/// `GET`: flags (1), wait at most (4, milliseconds, 0 for no limit), task IDs to the end.
package struct GetMessage: Sendable {
    package var options: RecordOptions
    package var waitMilliseconds: UInt32
    package var ids: [TaskID]

    package init(options: RecordOptions, waitMilliseconds: UInt32 = 0, ids: [TaskID]) {
        self.options = options
        self.waitMilliseconds = waitMilliseconds
        self.ids = ids
    }

    package func encoded(number: UInt64) -> [UInt8] {
        var writer = WireWriter(.get, number: number, reserving: 32 + 16 * ids.count)
        writer.u8(options.rawValue)
        writer.integer(waitMilliseconds)
        for id in ids { writer.id(id) }
        return writer.bytes
    }

    package init(from reader: inout WireReader) throws(WireError) {
        options = RecordOptions(rawValue: try reader.u8("flags"))
        waitMilliseconds = try reader.integer("wait")
        ids = []
        ids.reserveCapacity(reader.left / 16)
        while !reader.isAtEnd { ids.append(try reader.id("task ID")) }
    }
}

/// One entry of `RECORDS` (which begins with flags, 1): task ID (16), state (1), record (counted).
package struct RecordReply {
    package enum State: UInt8, Sendable {
        /// No task has that ID.
        case notFound = 0
        /// The record as it is now, or as it ended where the end was waited for.
        case found = 1
        /// The wait is over and the task has not ended; the record as it is now.
        case timedOut = 2
        /// The system is being stopped; ask the next one.
        case stopping = 3
    }

    package var id: TaskID
    package var state: State
    /// Empty where there is none.
    package var record: UnsafeRawBufferPointer

    package static func write(
        id: TaskID,
        state: State,
        record: UnsafeRawBufferPointer,
        to writer: inout WireWriter
    ) {
        writeHead(id: id, state: state, recordBytes: record.count, to: &writer)
        writer.raw(record)
    }

    /// Writes what stands before the record.
    package static func writeHead(
        id: TaskID,
        state: State,
        recordBytes: Int,
        to writer: inout WireWriter
    ) {
        writer.id(id)
        writer.u8(state.rawValue)
        writer.integer(UInt32(recordBytes))
    }

    package init(from reader: inout WireReader) throws(WireError) {
        id = try reader.id("task ID")
        guard let state = State(rawValue: try reader.u8("state")) else {
            throw .invalid(field: "state")
        }
        self.state = state
        record = try reader.counted("record")
    }
}

/// `COMPACTED`, once the compaction is over: bytes of the store's files before (8), and after (8).
package struct Compacted: Sendable, Equatable {
    package var bytesBefore: UInt64
    package var bytesAfter: UInt64

    package init(bytesBefore: UInt64, bytesAfter: UInt64) {
        self.bytesBefore = bytesBefore
        self.bytesAfter = bytesAfter
    }

    package func encoded(number: UInt64) -> [UInt8] {
        var writer = WireWriter(.compacted, number: number)
        write(to: &writer)
        return writer.bytes
    }

    package func write(to writer: inout WireWriter) {
        writer.integer(bytesBefore)
        writer.integer(bytesAfter)
    }

    package init(from reader: inout WireReader) throws(WireError) {
        bytesBefore = try reader.integer("bytes before")
        bytesAfter = try reader.integer("bytes after")
    }
}

/// `ERROR`: code (1), sentence (text).
///
/// The answer to a request that could not be read or served.
package struct ErrorMessage {
    package static func encoded(_ refusal: Refusal, number: UInt64) -> [UInt8] {
        var writer = WireWriter(.error, number: number)
        writer.u8(refusal.code.rawValue)
        writer.text(refusal.message)
        return writer.bytes
    }

    package static func read(from reader: inout WireReader) throws(WireError) -> Refusal {
        guard let code = RefusalCode(rawValue: try reader.u8("code")) else {
            throw .invalid(field: "code")
        }
        return Refusal(code, try reader.text("message"))
    }
}

/// `WELCOME`, the Broker's answer to a probe: incarnation (4), largest payload (4), tasks that may be
/// unanswered at once (4), the Broker's pid (4).
package struct Welcome: Sendable, Equatable {
    /// Which opening of the store this is: counted up by every restart of Storage.
    package var incarnation: UInt32
    /// The largest arguments and results, in bytes.
    package var maxPayload: UInt32
    /// How many tasks one session may have unanswered.
    package var windowTasks: UInt32
    package var brokerPid: Int32

    package init(incarnation: UInt32, maxPayload: UInt32, windowTasks: UInt32, brokerPid: Int32) {
        self.incarnation = incarnation
        self.maxPayload = maxPayload
        self.windowTasks = windowTasks
        self.brokerPid = brokerPid
    }

    /// As bytes; `number` is what a worker's `HELLO` repeats, 0 for clients.
    package func encoded(number: UInt64 = 0) -> [UInt8] {
        var writer = WireWriter(.welcome, number: number)
        writer.integer(incarnation)
        writer.integer(maxPayload)
        writer.integer(windowTasks)
        writer.integer(brokerPid)
        return writer.bytes
    }

    package init(from reader: inout WireReader) throws(WireError) {
        incarnation = try reader.integer("incarnation")
        maxPayload = try reader.integer("maxPayload")
        windowTasks = try reader.integer("window")
        brokerPid = try reader.integer("pid")
    }
}

/// `PONG`: incarnation (4), the Broker's pid (4), whether Storage answers (1).
package struct Pong: Sendable, Equatable {
    package var incarnation: UInt32
    package var brokerPid: Int32
    package var isStorageUp: Bool

    package init(incarnation: UInt32, brokerPid: Int32, isStorageUp: Bool) {
        self.incarnation = incarnation
        self.brokerPid = brokerPid
        self.isStorageUp = isStorageUp
    }

    package func encoded(number: UInt64) -> [UInt8] {
        var writer = WireWriter(.pong, number: number)
        writer.integer(incarnation)
        writer.integer(brokerPid)
        writer.u8(isStorageUp ? 1 : 0)
        return writer.bytes
    }

    package init(from reader: inout WireReader) throws(WireError) {
        incarnation = try reader.integer("incarnation")
        brokerPid = try reader.integer("pid")
        isStorageUp = try reader.u8("storage") != 0
    }
}
