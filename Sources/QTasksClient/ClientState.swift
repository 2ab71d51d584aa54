// Part of QTasks. License: see LICENSE.

package import QTasksModel
package import QTasksWire

/// Decides what a client says to the Broker, and when its callers hear what.
///
/// Adds and waits are idempotent: what has no answer when a session begins is sent again with the
/// same IDs (recovery.md, H1). Within a session only unanswered adds are repeated, after 1 s
/// doubling to 10 s; waits are not, since the Broker tells the end by itself. What the Broker
/// refuses for the time being is tried again until the call's time is over.
///
/// A value without sockets, clocks and threads: events go in, and ``takeMessages()`` and
/// ``takeCompletions()`` hand out what follows. Times are nanoseconds of the monotonic clock.
package struct ClientState {
    /// What is sent as one message at most; a larger task goes alone.
    static let messageBytesMax = 1 << 20
    static let messageTasksMax = 4096
    /// Waits that one session has open at most; the Broker takes twice as many.
    ///
    /// Not the window: waits may last, and must not keep adds from going out.
    static let waitsMax = 100_000
    /// How long past its end a wait stays open for the Broker's word on how the task stands.
    static let waitGrace: UInt64 = 100_000_000
    /// Half the shortest time for which a repeated add is known to be a repetition (H30).
    static let repeatMax: UInt64 = 300_000_000_000
    /// A task that breaks the session this often is taken for what breaks it (H4).
    static let breaksMax = 3

    /// An add without a receipt.
    struct Add {
        let envelope: ArraySlice<UInt8>
        let argumentBytes: Int
        /// Sessions that ended while it was under way.
        var breaks = 0
        /// When it was sent for the first time without being refused since.
        var uncertainSince: UInt64?
        /// Up to when the Broker was asked to wait for the end, where the newest message asked that.
        var askedUntil: UInt64?
        var refusal: Refusal?
    }

    /// A task whose record is asked for.
    struct Lookup {
        /// Up to when the Broker was asked to wait; the greatest number for "as long as it takes".
        var askedUntil: UInt64 = 0
        var last: RecordBytes?
        var refusal: Refusal?
    }

    /// A question that is no task's.
    struct Exchange {
        let call: UInt64
        let message: [UInt8]
    }

    var calls: [UInt64: Call] = [:]
    var adds = PendingTable<Add>()
    var waits = PendingTable<Lookup>()
    var gets = PendingTable<Lookup>()
    var exchanges: [UInt64: Exchange] = [:]
    var deadlines = DeadlineHeap()

    /// What the Broker said when the session began; `nil` where none is known to be open.
    package internal(set) var session: Welcome?

    /// Messages that were none of the protocol's, or answers that can't be.
    package internal(set) var malformedCount = 0

    var lastHeardAt: UInt64?
    var repetition = Repetition()
    var backoff = Backoff()
    var messages: [[UInt8]] = []
    var completions: [ClientCompletion] = []
    private var requestNext: UInt64 = 1

    /// What errors call the other side, such as `the system at /srv/q`.
    let broker: String

    package init(broker: String) {
        self.broker = broker
    }

    /// When ``timer(now:)`` wants to be called next; `nil` where nothing is awaited.
    package var nextDeadline: UInt64? {
        var next = deadlines.first?.deadline
        if session != nil {
            for time in [repetition.at, backoff.until] {
                guard let time else { continue }
                next = min(next ?? time, time)
            }
        }
        return next
    }

    /// How many calls have not ended.
    package var callCount: Int { calls.count }

    /// Begins a call; ``flush(now:)`` sends what it takes.
    ///
    /// `call` is a number that no other call has; with `nil` for a deadline it never ends by
    /// itself.
    package mutating func begin(
        _ call: UInt64,
        _ request: ClientRequest,
        deadline: UInt64?,
        now: UInt64
    ) {
        precondition(calls[call] == nil, "a call's number is its own")
        switch request {
        case .add(let batch, let wait):
            let ids = batch.entries.map(\.id)
            calls[call] = Call(
                wait ? .addsWaiting : .adds,
                ids: ids,
                begun: now,
                deadline: deadline
            )
            enqueue(batch, call: call, wait: wait)
        case .get(let ids):
            calls[call] = Call(.gets, ids: ids, begun: now, deadline: deadline)
            for (index, id) in ids.enumerated() { get(id, Claim(call: call, index: index)) }
        case .wait(let ids):
            calls[call] = Call(.waits, ids: ids, begun: now, deadline: deadline)
            for (index, id) in ids.enumerated() {
                wait(for: id, Claim(call: call, index: index), until: deadline)
            }
        case .ping:
            let number = nextRequest()
            exchange(WireWriter(.ping, number: number).bytes, number, call, deadline, now)
        case .inspect(let topic):
            let number = nextRequest()
            var writer = WireWriter(.inspect, number: number)
            writer.text(topic)
            exchange(writer.bytes, number, call, deadline, now)
        case .compact:
            let number = nextRequest()
            exchange(WireWriter(.compact, number: number).bytes, number, call, deadline, now)
        case .change(let message):
            let number = nextRequest()
            exchange(message.encoded(number: number), number, call, deadline, now)
        case .queue(let message):
            let number = nextRequest()
            exchange(message.encoded(number: number), number, call, deadline, now)
        case .restart:
            let number = nextRequest()
            exchange(RestartMessage.asking(number: number), number, call, deadline, now)
        }
        if let deadline, calls[call] != nil { deadlines.insert(deadline, call: call) }
        endIfComplete(call)
    }

    /// Nobody waits for the call any more: it ends without a completion.
    package mutating func forget(_ call: UInt64) {
        guard let ended = calls.removeValue(forKey: call) else { return }
        dropClaims(of: call, ended)
        pruneDeadlines()
    }

    /// A send found nobody at the other end.
    ///
    /// What was sent since the session began is as good as lost; the next session sends it again.
    package mutating func disconnected() {
        session = nil
        repetition = Repetition()
        backoff = Backoff()
    }

    /// Ends every call with `error`.
    package mutating func endAll(with error: QTasksError) {
        for call in calls.keys { complete(call, .failure(error)) }
        let broker = broker
        let (messages, completions) = (messages, completions)
        self = ClientState(broker: broker)
        (self.messages, self.completions) = (messages, completions)
    }

    /// What is to be sent, in order; the second call has nothing.
    package mutating func takeMessages() -> [[UInt8]] {
        defer { messages = [] }
        return messages
    }

    /// The calls that have ended; the second call has nothing.
    package mutating func takeCompletions() -> [ClientCompletion] {
        defer { completions = [] }
        return completions
    }

    mutating func nextRequest() -> UInt64 {
        defer { requestNext += 1 }
        return requestNext
    }
}

// MARK: - Entering

extension ClientState {
    private mutating func enqueue(_ batch: EnvelopeBatch, call: UInt64, wait: Bool) {
        for (index, entry) in batch.entries.enumerated() {
            let claim = Claim(call: call, index: index, waits: wait)
            let envelope = batch.bytes[entry.place]
            guard let pending = adds[entry.id] else {
                let add = Add(envelope: envelope, argumentBytes: entry.argumentBytes)
                adds.insert(entry.id, Pending(add, claim: claim))
                continue
            }
            guard pending.content.envelope == envelope else {
                settleAdd(claim, failure: .conflicting(entry.id))
                continue
            }
            adds.update(entry.id) { $0.claims.add(claim) }
        }
    }

    private mutating func get(_ id: TaskID, _ claim: Claim) {
        if gets[id] == nil {
            gets.insert(id, Pending(Lookup(), claim: claim))
        } else {
            gets.update(id) { $0.claims.add(claim) }
        }
    }

    mutating func wait(for id: TaskID, _ claim: Claim, until deadline: UInt64?) {
        guard let pending = waits[id] else {
            waits.insert(id, Pending(Lookup(), claim: claim))
            return
        }
        waits.update(id) { $0.claims.add(claim) }
        // the Broker gives up too early for this one: ask once more, for longer
        if pending.phase == .sent && pending.content.askedUntil < deadline ?? .max {
            waits.requeue(id)
        }
    }

    private mutating func exchange(
        _ message: [UInt8],
        _ number: UInt64,
        _ call: UInt64,
        _ deadline: UInt64?,
        _ now: UInt64
    ) {
        calls[call] = Call(.exchange, ids: [], begun: now, deadline: deadline)
        exchanges[number] = Exchange(call: call, message: message)
        if session != nil { messages.append(message) }
    }
}

extension QTasksError {
    static func conflicting(_ id: TaskID) -> QTasksError {
        QTasksError(.conflict, "task \(id) is being added with another content")
    }
}

/// When unanswered adds are sent once more within a session.
struct Repetition {
    private static let intervalMin: UInt64 = 1_000_000_000
    private static let intervalMax: UInt64 = 10_000_000_000

    private(set) var at: UInt64?
    private(set) var interval = Repetition.intervalMin

    /// Sets the time where none is set.
    mutating func arm(now: UInt64) {
        if at == nil { at = now + interval }
    }

    /// It was time: the next one is later if something was overdue.
    mutating func fired(overdue: Bool) {
        at = nil
        interval = overdue ? min(interval * 2, Self.intervalMax) : Self.intervalMin
    }
}

/// When refused questions are asked again.
struct Backoff {
    private static let delayMin: UInt64 = 50_000_000
    private static let delayMax: UInt64 = 2_000_000_000

    private(set) var until: UInt64?
    private var delay = Backoff.delayMin

    /// Something was refused for the time being.
    mutating func refused(now: UInt64) {
        guard until == nil else { return }
        until = now + delay
        delay = min(delay * 2, Self.delayMax)
    }

    /// Something was taken.
    mutating func accepted() {
        delay = Self.delayMin
    }

    mutating func fired() {
        until = nil
    }
}
