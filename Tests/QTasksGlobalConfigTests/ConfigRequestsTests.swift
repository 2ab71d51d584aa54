// Part of QTasks. License: see LICENSE.

import QTasksGlobalConfig
import QTasksModel
import QTasksWire
import Testing

@Suite struct `A client's requests for settings` {
    private let entry = ConfigEntry(key: "key", value: [1])

    @Test func `wait for a connection, and go out again on the next one`() {
        var requests = ConfigRequests(endpoint: "ipc://x")
        let number = requests.set(entry, deadline: second)
        #expect(requests.takeMessages().isEmpty)
        let message = ConfigSetMessage.encoded(entry, number: number)
        requests.hear(ConfigPublication.head(0))
        #expect(requests.takeMessages() == [message])
        requests.disconnected()
        requests.hear(ConfigPublication.head(0))
        #expect(requests.takeMessages() == [message])
    }

    @Test func `an answer ends its request, once`() throws {
        var requests = ConfigRequests(endpoint: "ipc://x")
        requests.connected()
        let number = requests.set(entry, deadline: second)
        var writer = WireWriter(.configDone, number: number)
        writer.integer(UInt64(9))
        requests.hear(writer.bytes)
        requests.hear(writer.bytes)
        let answers = requests.takeAnswers()
        #expect(answers.count == 1)
        #expect(try answers.first?.answer.get() == .done(sequence: 9))
        #expect(requests.nextDeadline == nil)
        requests.connected()
        #expect(requests.takeMessages().isEmpty)
    }

    @Test func `a refusal and a torn answer are errors of their own`() {
        var requests = ConfigRequests(endpoint: "ipc://x")
        let first = requests.set(entry, deadline: second)
        let second = requests.get("key", deadline: second)
        requests.hear(ErrorMessage.encoded(Refusal(.badOption, "'key' can't"), number: first))
        requests.hear(WireWriter(.configValues, number: second).bytes)
        #expect(requests.codes == [.badOption, .malformed])
    }

    @Test func `at the deadline it tells whether somebody was there`() {
        var requests = ConfigRequests(endpoint: "ipc://x")
        _ = requests.get("a", deadline: 2 * second)
        #expect(requests.nextDeadline == 2 * second)
        requests.timer(now: second)
        #expect(requests.codes.isEmpty)
        requests.timer(now: 2 * second)
        #expect(requests.codes == [.noSystem])
        requests.connected()
        _ = requests.get("a", deadline: 3 * second)
        requests.timer(now: 3 * second)
        #expect(requests.codes == [.timeout])
    }

    @Test func `more than can be open at once are refused`() {
        var requests = ConfigRequests(endpoint: "ipc://x")
        for _ in 0..<1025 { _ = requests.get("a", deadline: second) }
        #expect(requests.codes == [.overloaded])
    }
}

extension ConfigRequests {
    fileprivate mutating func hear(_ message: [UInt8]) {
        message.withUnsafeBytes { replied($0) }
    }

    /// The codes of the errors since the last look.
    fileprivate var codes: [QTasksError.Code] {
        mutating get {
            takeAnswers().compactMap { answer in
                if case .failure(let error) = answer.answer { error.code } else { nil }
            }
        }
    }
}
