// Part of QTasks. License: see LICENSE.

/// How much each client was sent that may lie here unread: libzmq queues without a bound for one that
/// doesn't read, and tells nobody (H3).
///
/// But it hands back a message that it was lent once that has gone out, and on one connection everything
/// goes out in order. So after every ``markBytes`` one message is lent, as a mark: when that comes back,
/// all before it is out as well. What is large and comes from the store has its own count
/// (``LargeReplies``).
struct Arrears {
    /// Bytes of answers that may lie here for one session: one that has more is cut off when it asks for
    /// yet more, and says again what was unanswered when it is back.
    static let bytesMax = 64 << 20

    /// How much is sent between marks.
    static let markBytes = 1 << 20

    /// What a message takes in libzmq beside its bytes.
    private static let messageBytes = 128

    /// With so many sessions those are passed over for once that were sent little.
    private static let sweepMin = 4096

    private struct Entry {
        var bytes = 0
        /// How much of it was sent since the last mark.
        var unmarked = 0
        /// How much of it goes out with each mark that is under way, in their order.
        var marks: [Int] = []
    }

    private var entries: [Session: Entry] = [:]
    private var sweepAt = sweepMin

    /// Counts a message that goes out now.
    ///
    /// - Returns: Whether it is a mark.
    mutating func sent(_ bytes: Int, to session: Session) -> Bool {
        sweep()
        let count = bytes + Self.messageBytes
        return Self.count(count, in: &entries[session, default: Entry()])
    }

    private static func count(_ bytes: Int, in entry: inout Entry) -> Bool {
        entry.bytes += bytes
        entry.unmarked += bytes
        guard entry.unmarked >= markBytes else { return false }
        entry.marks.append(entry.unmarked)
        entry.unmarked = 0
        return true
    }

    /// The session's first mark came back.
    mutating func returned(_ session: Session) {
        guard let entry = entries[session], let first = entry.marks.first else { return }
        guard entry.bytes > first else { return forget(session) }
        entries[session]?.bytes -= first
        entries[session]?.marks.removeFirst()
    }

    /// Whether the session has more to read than anybody may.
    func isOverdrawn(_ session: Session) -> Bool {
        entries[session].map { $0.bytes > Self.bytesMax } ?? false
    }

    /// How many sessions are counted.
    var count: Int { entries.count }

    mutating func forget(_ session: Session) {
        entries[session] = nil
    }

    /// Nobody tells when a connection ends that had read everything.
    private mutating func sweep() {
        guard entries.count >= sweepAt else { return }
        entries = entries.filter { !$0.value.marks.isEmpty }
        sweepAt = max(Self.sweepMin, 2 * entries.count)
    }
}

extension BrokerState {
    /// A message goes out to a client that isn't from the store.
    ///
    /// - Returns: Whether ``clientReadOn(_:)`` wants to be told when it has gone out.
    package mutating func sends(_ bytes: Int, to session: Session) -> Bool {
        clients.arrears.sent(bytes, to: session)
    }

    /// The message that was asked about, and all before it, has gone out, or never will.
    package mutating func clientReadOn(_ session: Session) {
        clients.clientReadOn(session)
    }

    /// Whether a client that asks for more has to be cut off: it leaves more unread than it may.
    ///
    /// Its connection is the only thing that can be taken from it without a word that it wouldn't read
    /// either. One that is only slow comes back and says again what is unanswered.
    package mutating func shallCut(_ session: Session) -> Bool {
        guard clients.arrears.isOverdrawn(session) else { return false }
        if clients.cut(session) {
            notice(
                "client cut",
                "a client reads none of its answers: its connection is cut",
                [("peer", "\(session)"), ("unread", "\(Arrears.bytesMax)")],
                isWarning: true
            )
        }
        return true
    }
}
