// Part of QTasks. License: see LICENSE.

package import QTasksModel
import QTasksWire

/// A client's unanswered requests to GlobalConfig: sent when a connection begins, again on each
/// further one, given up when their time is over.
///
/// To send a change again is safe, with one thing to know: another client's change of the same key
/// in between is then overwritten, as if this one had come later. No sockets, clocks.
package struct ConfigRequests {
    /// What came of a request.
    package enum Answer: Sendable, Equatable {
        /// The change is on disk, under this sequence or an older one.
        case done(sequence: UInt64)
        case values([String: [UInt8]])
    }

    /// Requests that may be unanswered at once.
    private static let openMax = 1024

    /// Whether a connection was heard of, and not of its end.
    package private(set) var isConnected = false

    private let endpoint: String
    private var lastNumber: UInt64 = 0
    private var open: [UInt64: Request] = [:]
    private var unsent: [[UInt8]] = []
    private var answers: [(number: UInt64, answer: Result<Answer, QTasksError>)] = []

    private struct Request {
        var message: [UInt8]
        var deadline: UInt64
        var what: String
    }

    /// - Parameter endpoint: For the text of errors.
    package init(endpoint: String) {
        self.endpoint = endpoint
    }

    /// When ``timer(now:)`` is to be called: only while something is unanswered.
    package var nextDeadline: UInt64? {
        open.values.lazy.map(\.deadline).min()
    }

    /// Asks for the values of a key, or of all keys that a pattern with `*` means.
    ///
    /// - Returns: The number under which ``takeAnswers()`` has the answer.
    package mutating func get(_ pattern: String, deadline: UInt64) -> UInt64 {
        begin("'\(pattern)' was to be read", deadline: deadline) { number in
            ConfigGetMessage.encoded(pattern: pattern, number: number)
        }
    }

    /// Asks for a change; a value of `nil` takes the key away.
    ///
    /// - Returns: The number under which ``takeAnswers()`` has the answer.
    package mutating func set(_ entry: ConfigEntry, deadline: UInt64) -> UInt64 {
        begin("'\(entry.key)' was to be changed", deadline: deadline) { number in
            ConfigSetMessage.encoded(entry, number: number)
        }
    }

    /// A connection began: whatever is unanswered goes out on it.
    package mutating func connected() {
        isConnected = true
        unsent = open.sorted { $0.key < $1.key }.map(\.value.message)
    }

    /// A message could not be sent: nobody is there.
    ///
    /// The next connection gets it.
    package mutating func disconnected() {
        isConnected = false
        unsent = []
    }

    /// One message of the DEALER.
    ///
    /// Answers to nothing that is open are ignored.
    package mutating func replied(_ bytes: UnsafeRawBufferPointer) {
        var reader = WireReader(bytes)
        guard let header = try? MessageHeader.read(from: &reader) else { return }
        if header.command == .configHead {
            connected()
            return
        }
        guard open[header.number] != nil else { return }
        do {
            guard let answer = try Self.answer(header.command, &reader) else { return }
            close(header.number, answer)
        } catch {
            close(header.number, .failure(QTasksError(.malformed, "GlobalConfig said: \(error)")))
        }
    }

    /// To be called at ``nextDeadline``: gives up what has waited long enough.
    package mutating func timer(now: UInt64) {
        for (number, request) in open where request.deadline <= now {
            close(number, .failure(timeOut(of: request)))
        }
    }

    /// The connection is being closed by its owner.
    package mutating func failAll(_ error: QTasksError) {
        for number in open.keys { close(number, .failure(error)) }
    }

    /// Messages for the ROUTER.
    package mutating func takeMessages() -> [[UInt8]] {
        defer { unsent = [] }
        return unsent
    }

    /// What came of requests since the last call.
    package mutating func takeAnswers() -> [(number: UInt64, answer: Result<Answer, QTasksError>)] {
        defer { answers = [] }
        return answers
    }
}

extension ConfigRequests {
    private mutating func begin(
        _ what: String,
        deadline: UInt64,
        encoded: (UInt64) -> [UInt8]
    ) -> UInt64 {
        lastNumber += 1
        let request = Request(message: encoded(lastNumber), deadline: deadline, what: what)
        open[lastNumber] = request
        if open.count > Self.openMax {
            let text = "\(what), but \(Self.openMax) requests are unanswered already"
            close(lastNumber, .failure(QTasksError(.overloaded, text)))
        } else if isConnected {
            unsent.append(request.message)
        }
        return lastNumber
    }

    private mutating func close(_ number: UInt64, _ answer: Result<Answer, QTasksError>) {
        open[number] = nil
        answers.append((number, answer))
    }

    private func timeOut(of request: Request) -> QTasksError {
        if isConnected { return QTasksError(.timeout, "\(request.what); no answer came in time") }
        let text = "\(request.what), but nobody answers at \(endpoint): does a system run there?"
        return QTasksError(.noSystem, text)
    }

    /// - Returns: `nil` for a command that answers nothing.
    private static func answer(
        _ command: Command,
        _ reader: inout WireReader
    ) throws(WireError) -> Result<Answer, QTasksError>? {
        switch command {
        case .configDone: .success(.done(sequence: try reader.integer("sequence")))
        case .configValues: .success(.values(try ConfigValuesMessage(from: &reader).values))
        case .error: .failure(try ErrorMessage.read(from: &reader).error)
        default: nil
        }
    }
}
