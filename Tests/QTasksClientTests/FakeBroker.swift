// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksModel
import QTasksProcess
import QTasksWire
import Synchronization
import ZeroMQ

@testable import QTasksClient

/// The Broker's end of a connection, on a thread of its own: greets, and does what the test says.
final class FakeBroker: Sendable {
    /// What it received.
    enum Event: Sendable, Equatable {
        case add([TaskID])
        case get([TaskID])
        case ping
        case inspect
    }

    let events: AsyncStream<Event>

    private enum Order: Sendable {
        case send([UInt8])
        case stop
    }

    private let report: AsyncStream<Event>.Continuation
    private let takesAdds: Bool
    private let orders = Mutex<[Order]>([])
    private let doorbell: Doorbell
    private let bound = OneShot<Bool>()
    private let ended = OneShot<Bool>()

    /// Returns when it is bound; `takesAdds` is whether it acknowledges what is added.
    init(at endpoint: String, takesAdds: Bool = true) throws {
        (events, report) = AsyncStream.makeStream(of: Event.self)
        self.takesAdds = takesAdds
        doorbell = try Doorbell()
        try RoleThread.run("fake-broker") { [self] in
            do {
                try run(at: endpoint)
            } catch {
                preconditionFailure("the fake Broker failed: \(error)")
            }
            ended.set(true)
        }
        _ = bound.wait()
    }

    /// Tells its last client something.
    func send(_ message: [UInt8]) {
        orders.withLock { $0.append(.send(message)) }
        doorbell.ring()
    }

    /// Ends it, and its connections with it.
    func stop() {
        orders.withLock { $0.append(.stop) }
        doorbell.ring()
        _ = ended.wait()
    }

    private func run(at endpoint: String) throws {
        let context = try Context()
        let socket = try Socket(.router, in: context, options: .router(maxMessageBytes: 1 << 24))
        try socket.bind(to: endpoint)
        var poll = try PollLoop()
        try poll.watch(descriptor: doorbell.descriptor, token: 1)
        var frames = Frames()
        var client: RoutingID?
        bound.set(true)
        while true {
            let ready = try poll.wait([socket.pollItem])
            if !ready.tokens.isEmpty {
                doorbell.clear()
                for order in orders.withLock({ orders in
                    defer { orders = [] }
                    return orders
                }) {
                    switch order {
                    case .stop: return
                    case .send(let message):
                        if let client { try socket.send(message, to: client) }
                    }
                }
            }
            while try socket.receive(into: &frames) {
                let from = frames.routingID(at: 0)
                client = from
                for answer in frames.withBytes(at: 1, { answers(to: $0) }) {
                    try socket.send(answer, to: from)
                }
            }
        }
    }

    private func answers(to message: UnsafeRawBufferPointer) -> [[UInt8]] {
        if message.isEmpty {
            let welcome = Welcome(
                incarnation: 1,
                maxPayload: 1 << 20,
                windowTasks: 1000,
                brokerPid: getpid()
            )
            return [welcome.encoded()]
        }
        let sent = SentMessage(Array(message))
        switch sent.command {
        case .add:
            report.yield(.add(sent.ids))
            guard takesAdds else { return [] }
            var writer = WireWriter(.added, number: sent.number)
            for id in sent.ids { AddReceipt(id: id, verdict: .added).write(to: &writer) }
            return [writer.bytes]
        case .get:
            report.yield(.get(sent.ids))
            return []
        case .ping:
            report.yield(.ping)
            let pong = Pong(incarnation: 1, brokerPid: getpid(), isStorageUp: true)
            return [pong.encoded(number: sent.number)]
        case .inspect:
            report.yield(.inspect)
            var writer = WireWriter(.inspected, number: sent.number)
            writer.raw("{}".utf8)
            return [writer.bytes]
        default:
            preconditionFailure("a client doesn't send \(sent.command)")
        }
    }
}

extension TemporaryFolder {
    var endpoint: String { "ipc://\(path)/clients" }
}
