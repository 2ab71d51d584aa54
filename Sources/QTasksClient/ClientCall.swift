// Part of QTasks. License: see LICENSE.

package import QTasksModel
package import QTasksWire

/// What a caller wants of the Broker.
package enum ClientRequest: Sendable {
    /// Answered with ``ClientReply/added(_:failures:)``; with `wait` with ``ClientReply/reports(_:of:)``
    /// once every task has ended.
    case add(EnvelopeBatch, wait: Bool)
    /// What is known now.
    case get([TaskID])
    /// How the tasks end.
    case wait([TaskID])
    case ping
    /// One of the topics of `stats`.
    case inspect(String)
    /// Answered once it is over.
    case compact
    case change(ChangeMessage)
    case queue(QueueMessage)
    /// New workers in place of all, one by one; answered once it is over.
    case restart
}

/// The answer to a ``ClientRequest``.
package enum ClientReply: Sendable {
    /// Every task is there under its ID, or under that of the task which holds its unique key; except
    /// those named by their place in the request.
    case added([TaskID], failures: [Int: QTasksError])
    /// One for each task, in the order of the request; and the IDs as above.
    case reports([TaskReport], of: [TaskID])
    case pong(Pong)
    /// JSON text.
    case inspected([UInt8])
    case compacted(Compacted)
    /// One for each task, in any order.
    case changed([ChangeReceipt])
    case queueRules(QueueRules)
    /// Why it ended before all were replaced; empty: they were.
    case restarted(failure: String)
}

/// What became of one task that was asked for or waited for.
package enum TaskReport: Sendable {
    /// Its record: as it is now, or as the task ended where that was waited for.
    case record(RecordBytes)
    case notFound
    /// The time is over and the task has not ended; its record at that time, if the Broker told it.
    case timedOut(last: RecordBytes?)
    case failed(QTasksError)
}

/// The end of one call.
package struct ClientCompletion: Sendable {
    package let call: UInt64
    package let result: Result<ClientReply, QTasksError>
}

/// A call that has not ended.
struct Call {
    enum Kind {
        case adds, addsWaiting, gets, waits, exchange
    }

    let kind: Kind
    let begun: UInt64
    let deadline: UInt64?
    /// That of the task which holds its unique key in the place of one that wasn't added.
    var ids: [TaskID]
    /// How many tasks still lack an answer.
    var unanswered: Int
    var failures: [Int: QTasksError] = [:]
    /// One for each task where records were asked for.
    var reports: [TaskReport?]
    /// Its time is over, and the Broker has a last moment to say how things stand.
    var isInGrace = false

    var wantsReports: Bool { kind != .adds && kind != .exchange }

    init(_ kind: Kind, ids: [TaskID], begun: UInt64, deadline: UInt64?) {
        self.kind = kind
        self.ids = ids
        self.begun = begun
        self.deadline = deadline
        unanswered = ids.count
        let asksForRecords = kind != .adds && kind != .exchange
        reports = asksForRecords ? Array(repeating: nil, count: ids.count) : []
    }
}

/// Which task of which call.
struct Claim {
    let call: UInt64
    let index: Int
    /// An add whose end is wanted too.
    var waits = false
}

/// Everybody who waits for the same answer: nearly always one.
struct Claims {
    private var first: Claim?
    private var others: [Claim] = []

    init(_ claim: Claim) {
        first = claim
    }

    var isEmpty: Bool { first == nil }

    mutating func add(_ claim: Claim) {
        if first == nil { first = claim } else { others.append(claim) }
    }

    func forEach(_ body: (Claim) -> Void) {
        guard let first else { return }
        body(first)
        for claim in others { body(claim) }
    }

    func contains(_ isWanted: (Claim) -> Bool) -> Bool {
        guard let first else { return false }
        return isWanted(first) || others.contains(where: isWanted)
    }

    mutating func removeAll(where isUnwanted: (Claim) -> Bool) {
        others.removeAll(where: isUnwanted)
        if let claim = first, isUnwanted(claim) { first = others.popLast() }
    }
}
