// Part of QTasks. License: see LICENSE.
//
// What the Starter and the Broker say to each other, beside the messages without a body: STARTER_HELLO,
// STOP, READY, DRAINED, and IDLE, by which the Starter asks for the end of the system as soon as there is
// nothing to do, and the Broker says that it drains for that reason.

/// `EXIT`: the Starter tells how a worker ended: pid (4), start time (8), kind (1: 0 exit code, 1 signal),
/// code or signal (4), most memory (8, bytes), user and system time (8 each, microseconds), the end of
/// its standard error (counted, at most ``errorTailMax``).
///
/// Its number is the Starter's. The Broker sends the same command back, with nothing but that number,
/// once it has taken it; until then the Starter sends it again at each WELCOME.
package struct ExitMessage: Sendable, Equatable {
    /// The most bytes of standard error that go with it.
    package static let errorTailMax = 4096

    package var pid: Int32
    package var startTime: UInt64
    package var wasSignal: Bool
    package var code: Int32
    package var maxResidentBytes: UInt64
    package var userMicroseconds: UInt64
    package var systemMicroseconds: UInt64
    package var errorTail: [UInt8]

    package init(
        pid: Int32,
        startTime: UInt64,
        wasSignal: Bool,
        code: Int32,
        maxResidentBytes: UInt64,
        userMicroseconds: UInt64,
        systemMicroseconds: UInt64,
        errorTail: [UInt8] = []
    ) {
        self.pid = pid
        self.startTime = startTime
        self.wasSignal = wasSignal
        self.code = code
        self.maxResidentBytes = maxResidentBytes
        self.userMicroseconds = userMicroseconds
        self.systemMicroseconds = systemMicroseconds
        self.errorTail = errorTail.suffix(Self.errorTailMax)
    }

    package func encoded(number: UInt64) -> [UInt8] {
        var writer = WireWriter(.exit, number: number)
        write(to: &writer)
        return writer.bytes
    }

    package func write(to writer: inout WireWriter) {
        writer.integer(pid)
        writer.integer(startTime)
        writer.u8(wasSignal ? 1 : 0)
        writer.integer(code)
        writer.integer(maxResidentBytes)
        writer.integer(userMicroseconds)
        writer.integer(systemMicroseconds)
        writer.counted(errorTail)
    }

    package init(from reader: inout WireReader) throws(WireError) {
        pid = try reader.integer("pid")
        startTime = try reader.integer("start time")
        wasSignal = try reader.u8("kind") == 1
        code = try reader.integer("code")
        maxResidentBytes = try reader.integer("memory")
        userMicroseconds = try reader.integer("user time")
        systemMicroseconds = try reader.integer("system time")
        errorTail = Array(try reader.counted("standard error").suffix(Self.errorTailMax))
    }
}

/// What the Broker tells of a worker's process, and the Starter asks: a pid (4).
///
/// - `JOINED`: it has said HELLO, and gets tasks.
/// - `KILLED`: its end is in order, whether the Broker killed it or it had done its share: replacing
///   it takes no pause.
/// - `RETIRE`, to the Broker: it is replaced, and to be let go.
package enum WorkerNews {
    package static func encoded(_ command: Command, pid: Int32) -> [UInt8] {
        var writer = WireWriter(command)
        writer.integer(pid)
        return writer.bytes
    }

    package static func read(from reader: inout WireReader) throws(WireError) -> Int32 {
        try reader.integer("pid")
    }
}

/// `RESTART`, of a client, and its answer; `ROLL`, from the Broker to the Starter, and back.
///
/// A client asks with flags (1; bit 0: workers are replaced one by one). An answer is text: empty where
/// all were replaced, else why not.
package enum RestartMessage {
    /// The one flag that there is.
    package static let rolling: UInt8 = 1

    package static func asking(number: UInt64) -> [UInt8] {
        var writer = WireWriter(.restart, number: number)
        writer.u8(rolling)
        return writer.bytes
    }

    package static func answer(
        _ command: Command,
        number: UInt64,
        failure: String
    ) -> [UInt8] {
        var writer = WireWriter(command, number: number)
        writer.text(failure)
        return writer.bytes
    }
}
