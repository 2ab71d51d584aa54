// Part of QTasks. License: see LICENSE.

import QTasksModel
import ZeroMQ

/// The thread of a ``ConfigConnection``: one DEALER for requests, and a ``ConfigSubscription``
/// while somebody watches.
struct ConfigClientLoop: ~Copyable {
    private static let bellToken: UInt64 = 1

    private let mailbox: ConfigMailbox
    private let endpoints: ConfigEndpoints
    private let context: Context
    private let socket: Socket
    private var poll: PollLoop
    private var frames: Frames
    private var requests: ConfigRequests
    private var completions: [UInt64: ConfigMailbox.Completion] = [:]
    private var subscription: ConfigSubscription?
    private var watchers: [UInt64: Watcher] = [:]

    private struct Watcher {
        var pattern: String
        var continuation: AsyncStream<ConfigEntry>.Continuation
    }

    /// Serves the mailbox until it is closed.
    static func run(_ mailbox: ConfigMailbox, endpoints: ConfigEndpoints) {
        do throws(ZeroMQError) {
            var loop = try ConfigClientLoop(mailbox, endpoints: endpoints)
            do throws(ZeroMQError) {
                while try loop.turn() {}
            } catch {
                mailbox.close(Self.failure(error))
            }
            loop.end(mailbox.failRest())
        } catch {
            mailbox.close(Self.failure(error))
            _ = mailbox.failRest()
        }
    }

    private init(
        _ mailbox: ConfigMailbox,
        endpoints: ConfigEndpoints
    ) throws(ZeroMQError) {
        let context = try Context()
        let socket = try Socket(.dealer, in: context, options: .dealer)
        let poll = try PollLoop()
        try socket.connect(to: endpoints.requests)
        try poll.watch(descriptor: mailbox.doorbell.descriptor, token: Self.bellToken)
        self.mailbox = mailbox
        self.endpoints = endpoints
        self.context = context
        self.socket = socket
        self.poll = poll
        frames = Frames(capacity: 1)
        subscription = nil
        requests = ConfigRequests(endpoint: endpoints.requests)
    }

    /// - Returns: Whether there will be another.
    private mutating func turn() throws(ZeroMQError) -> Bool {
        let due = [requests.nextDeadline, subscription?.nextDeadline].compactMap(\.self).min()
        try poll.setTimer(at: due)
        let ready = try poll.wait([socket.pollItem] + (subscription?.pollItems ?? []))
        let now = MonotonicClock.nowNanoseconds()
        if !ready.tokens.isEmpty {
            mailbox.doorbell.clear()
            let (orders, end) = mailbox.take()
            for order in orders { try serve(order, now: now) }
            if end != nil { return false }
        }
        try receive()
        requests.timer(now: now)
        try send()
        for (number, answer) in requests.takeAnswers() {
            completions.removeValue(forKey: number)?(answer)
        }
        try hand(subscription?.turn(now: now) ?? [])
        return true
    }

    private mutating func serve(
        _ order: ConfigMailbox.Order,
        now: UInt64
    ) throws(ZeroMQError) {
        switch order {
        case .get(let pattern, let deadline, let completion):
            completions[requests.get(pattern, deadline: deadline)] = completion
        case .set(let entry, let deadline, let completion):
            completions[requests.set(entry, deadline: deadline)] = completion
        case .watch(let id, let pattern, let continuation):
            try watch(id, Watcher(pattern: pattern, continuation: continuation), now: now)
        case .unwatch(let id):
            watchers[id] = nil
            if watchers.isEmpty { subscription = nil }
        }
    }

    private mutating func watch(
        _ id: UInt64,
        _ watcher: Watcher,
        now: UInt64
    ) throws(ZeroMQError) {
        watchers[id] = watcher
        guard let known = subscription?.values else {
            subscription = try ConfigSubscription(in: context, endpoints: endpoints, now: now)
            return
        }
        let entries = known.sorted { $0.key < $1.key }
        for (key, value) in entries where ConfigKey.matches(watcher.pattern, key) {
            watcher.continuation.yield(ConfigEntry(key: key, value: value))
        }
    }

    private mutating func receive() throws(ZeroMQError) {
        while try socket.receive(into: &frames) {
            frames.withBytes(at: 0) { requests.replied($0) }
        }
    }

    private mutating func send() throws(ZeroMQError) {
        for message in requests.takeMessages() {
            guard try socket.send(message) == .sent else {
                requests.disconnected()
                return
            }
        }
    }

    private func hand(_ changes: [ConfigEntry]) {
        for change in changes {
            for watcher in watchers.values where ConfigKey.matches(watcher.pattern, change.key) {
                watcher.continuation.yield(change)
            }
        }
    }

    private mutating func end(_ reason: QTasksError) {
        requests.failAll(reason)
        for (number, answer) in requests.takeAnswers() {
            completions.removeValue(forKey: number)?(answer)
        }
        for watcher in watchers.values { watcher.continuation.finish() }
    }

    private static func failure(_ error: ZeroMQError) -> QTasksError {
        QTasksError(.internalError, "the settings can't be reached", cause: error)
    }
}
