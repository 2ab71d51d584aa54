// Part of QTasks. License: see LICENSE.

package import ZeroMQ

/// Where GlobalConfig is found.
package struct ConfigEndpoints: Sendable, Equatable {
    /// Its ROUTER.
    package var requests: String
    /// Its XPUB.
    package var updates: String

    package init(requests: String, updates: String) {
        self.requests = requests
        self.updates = updates
    }
}

/// All settings, live, for a role's own loop: its two sockets are polled with the role's others,
/// and no thread is added.
///
/// ```
/// ready = try poll.wait(others + subscription.pollItems)
/// for change in try subscription.turn(now: now) { ... }
/// try poll.setTimer(at: earliest(own, subscription.nextDeadline))
/// ```
///
/// Belongs to the loop's thread. GlobalConfig may be away, come later, or come back: the sockets
/// connect by themselves and the snapshot is asked for anew.
package struct ConfigSubscription: ~Copyable {
    /// Messages taken in one turn from each socket, so that the role's own work goes on.
    private static let messagesPerTurn = 64

    private let updates: Socket
    private let requests: Socket
    private var watch: ConfigWatchState
    private var frames: Frames

    /// Connects, and asks for the first snapshot as soon as somebody is there.
    ///
    /// - Throws: As `Socket.init` and `Socket.connect(to:)` do: no descriptor left, a bad endpoint.
    package init(
        in context: Context,
        endpoints: ConfigEndpoints,
        now: UInt64
    ) throws(ZeroMQError) {
        let updates = try Socket(.sub, in: context, options: .sub)
        let requests = try Socket(.dealer, in: context, options: .dealer)
        try updates.subscribe([])
        try updates.connect(to: endpoints.updates)
        try requests.connect(to: endpoints.requests)
        self.updates = updates
        self.requests = requests
        frames = Frames(capacity: 1)
        watch = ConfigWatchState()
        watch.start(now: now)
        // Nobody is connected yet: the beginning of the connection brings the question again.
        _ = watch.takeQuestions()
    }

    /// Two items, for the loop's list.
    package var pollItems: [PollItem] {
        [updates.pollItem, requests.pollItem]
    }

    /// When ``turn(now:)`` is to be called though nothing came: only while a snapshot is awaited.
    package var nextDeadline: UInt64? { watch.nextDeadline }

    /// All settings as they are known now.
    package var values: [String: [UInt8]] { watch.values }

    /// Whether ``values`` are GlobalConfig's, or nothing was heard yet.
    package var isComplete: Bool { watch.sequence != nil }

    /// Takes what came and does what is due.
    ///
    /// To be called in each turn that finds one of the items readable or the deadline past; at any
    /// other time it finds nothing, which costs little.
    ///
    /// - Parameter now: By `MonotonicClock`.
    /// - Returns: What changed, in order. The first snapshot's keys count as changes.
    /// - Throws: `ETERM` once the context is closing.
    package mutating func turn(now: UInt64) throws(ZeroMQError) -> [ConfigEntry] {
        for _ in 0..<Self.messagesPerTurn {
            guard try updates.receive(into: &frames) else { break }
            frames.withBytes(at: 0) { watch.published($0, now: now) }
        }
        for _ in 0..<Self.messagesPerTurn {
            guard try requests.receive(into: &frames) else { break }
            frames.withBytes(at: 0) { watch.replied($0, now: now) }
        }
        frames.clear()
        watch.timer(now: now)
        try sendQuestions()
        return watch.takeChanges()
    }

    private mutating func sendQuestions() throws(ZeroMQError) {
        for question in watch.takeQuestions() { try requests.send(question) }
    }
}
