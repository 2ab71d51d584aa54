// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksClient
import QTasksModel
import QTasksWire

/// A client core in virtual time, and a Broker's words to it.
struct ClientUnderTest {
    var state = ClientState(broker: "the test's Broker")
    /// Nanoseconds.
    var now: UInt64 = 1_000_000_000_000

    static let second: UInt64 = 1_000_000_000

    /// Its calls that have ended.
    private(set) var results: [UInt64: Result<ClientReply, QTasksError>] = [:]

    mutating func begin(_ call: UInt64, _ request: ClientRequest, seconds: Double? = nil) {
        let deadline = seconds.map { now + UInt64($0 * Double(Self.second)) }
        state.begin(call, request, deadline: deadline, now: now)
    }

    /// Ends the turn of the loop.
    ///
    /// - Returns: What is sent in it.
    mutating func turn() -> [SentMessage] {
        state.flush(now: now)
        for completion in state.takeCompletions() {
            precondition(results[completion.call] == nil, "a call ends once")
            results[completion.call] = completion.result
        }
        return state.takeMessages().map(SentMessage.init)
    }

    mutating func hear(_ message: [UInt8]) -> [SentMessage] {
        message.withUnsafeBytes { state.received($0, now: now) }
        return turn()
    }

    mutating func welcome(maxPayload: UInt32 = 1 << 20, window: UInt32 = 1000) -> [SentMessage] {
        let welcome = Welcome(
            incarnation: 1,
            maxPayload: maxPayload,
            windowTasks: window,
            brokerPid: 1
        )
        return hear(welcome.encoded())
    }

    mutating func receipt(_ ids: [TaskID], _ verdict: AddReceipt.Verdict = .added) -> [SentMessage]
    {
        var writer = WireWriter(.added, number: 1)
        for id in ids { AddReceipt(id: id, verdict: verdict).write(to: &writer) }
        return hear(writer.bytes)
    }

    mutating func record(
        _ id: TaskID,
        _ state: RecordReply.State,
        _ record: TaskRecord? = nil
    ) -> [SentMessage] {
        hear(recordsMessage(id, state, record))
    }

    /// Lets time pass, with a turn at each deadline that the core names.
    mutating func pass(seconds: Double) -> [SentMessage] {
        let end = now + UInt64(seconds * Double(Self.second))
        var sent: [SentMessage] = []
        while let deadline = state.nextDeadline, deadline <= end {
            now = max(now, deadline)
            state.timer(now: now)
            sent += turn()
        }
        now = end
        return sent
    }

    func error(of call: UInt64) -> QTasksError? {
        if case .failure(let error) = results[call] { error } else { nil }
    }

    func reports(of call: UInt64) -> [TaskReport]? {
        if case .success(.reports(let reports, _)) = results[call] { reports } else { nil }
    }

    /// The tasks that a call came to.
    func ids(of call: UInt64) -> [TaskID]? {
        switch results[call] {
        case .success(.added(let ids, _)), .success(.reports(_, let ids)): ids
        default: nil
        }
    }

    func addFailures(of call: UInt64) -> [Int: QTasksError]? {
        if case .success(.added(_, let failures)) = results[call] { failures } else { nil }
    }
}

/// A message of a client, taken apart.
struct SentMessage {
    let command: Command
    let number: UInt64
    let options: RecordOptions
    let waitMilliseconds: UInt32
    let ids: [TaskID]

    init(_ bytes: [UInt8]) {
        self = bytes.withUnsafeBytes { buffer in
            var reader = WireReader(buffer)
            do {
                let header = try MessageHeader.read(from: &reader)
                switch header.command {
                case .add:
                    let add = try AddMessage(from: &reader)
                    var ids: [TaskID] = []
                    while !reader.isAtEnd { ids.append(try Envelope(from: &reader).id) }
                    return SentMessage(header, add.options, add.waitMilliseconds, ids)
                case .get:
                    let get = try GetMessage(from: &reader)
                    return SentMessage(header, get.options, get.waitMilliseconds, get.ids)
                default:
                    return SentMessage(header, [], 0, [])
                }
            } catch {
                preconditionFailure("a client sent what can't be read: \(error)")
            }
        }
    }

    private init(
        _ header: MessageHeader,
        _ options: RecordOptions,
        _ waitMilliseconds: UInt32,
        _ ids: [TaskID]
    ) {
        command = header.command
        number = header.number
        self.options = options
        self.waitMilliseconds = waitMilliseconds
        self.ids = ids
    }
}

func submission(_ name: String = "count", bytes: Int = 3) -> TaskSubmission {
    TaskSubmission(name: name, arguments: Array(repeating: 7, count: bytes))
}

func batch(_ submissions: [TaskSubmission]) throws -> EnvelopeBatch {
    try EnvelopeBatch(submissions)
}

func finished(_ submission: TaskSubmission, result: [UInt8] = [1, 2]) -> TaskRecord {
    TaskRecord(
        submission: submission,
        sequence: 9,
        status: .success,
        attempt: 1,
        failures: 0,
        deaths: 0,
        epoch: 0,
        addedAt: Timestamp(nanoseconds: 5),
        outcome: .success(result: result, contentType: nil)
    )
}

func queued(_ submission: TaskSubmission, unroutable: Bool) -> TaskRecord {
    var record = finished(submission)
    record.status = .new
    record.outcome = nil
    record.isUnroutable = unroutable
    return record
}

func recordsMessage(
    _ id: TaskID,
    _ state: RecordReply.State,
    _ record: TaskRecord?,
    number: UInt64 = 0
) -> [UInt8] {
    var writer = WireWriter(.records, number: number)
    writer.u8(0)
    var bytes = WireWriter()
    record?.write(to: &bytes)
    bytes.bytes.withUnsafeBytes {
        RecordReply.write(id: id, state: state, record: $0, to: &writer)
    }
    return writer.bytes
}
