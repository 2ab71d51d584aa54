// Part of QTasks. License: see LICENSE.

import QTasksModel

/// One task's question to the Broker, until it is answered.
struct Pending<Content> {
    enum Phase {
        /// Waits for a session, or for room in its window.
        case queued
        case sent
        /// Was refused for the time being.
        case held
    }

    var content: Content
    var claims: Claims
    fileprivate(set) var phase = Phase.queued
    /// The number of the message that it went out with.
    fileprivate(set) var request: UInt64 = 0
    fileprivate(set) var sentAt: UInt64 = 0
    fileprivate var order: UInt64 = 0

    init(_ content: Content, claim: Claim) {
        self.content = content
        claims = Claims(claim)
    }
}

/// Questions of one kind, by task, and the order in which they go out.
struct PendingTable<Content> {
    private(set) var entries: [TaskID: Pending<Content>] = [:]

    /// How many are sent and not answered.
    private(set) var unanswered = 0

    /// How many were refused for the time being.
    private(set) var heldCount = 0

    // May name tasks that are gone or no longer queued: they are passed over.
    private var queue: [TaskID] = []
    private var head = 0
    private var orderNext: UInt64 = 0

    var isEmpty: Bool { entries.isEmpty }

    subscript(id: TaskID) -> Pending<Content>? { entries[id] }

    /// Changes one entry in place, if it is there.
    mutating func update(_ id: TaskID, _ body: (inout Pending<Content>) -> Void) {
        guard let index = entries.index(forKey: id) else { return }
        body(&entries.values[index])
    }

    /// Puts a new entry at the end of the queue.
    mutating func insert(_ id: TaskID, _ entry: Pending<Content>) {
        var entry = entry
        entry.order = orderNext
        orderNext += 1
        entries[id] = entry
        queue.append(id)
    }

    /// A new entry that has gone out already, as part of something else.
    mutating func insertSent(_ id: TaskID, _ entry: Pending<Content>, request: UInt64, at: UInt64) {
        var entry = entry
        entry.order = orderNext
        orderNext += 1
        entry.phase = .sent
        entry.request = request
        entry.sentAt = at
        entries[id] = entry
        unanswered += 1
    }

    @discardableResult
    mutating func remove(_ id: TaskID) -> Pending<Content>? {
        guard let entry = entries.removeValue(forKey: id) else { return nil }
        leave(entry.phase)
        return entry
    }

    /// Takes the task that is next to go out off the queue: mark it sent, or remove it.
    mutating func nextQueued() -> TaskID? {
        if head >= 4096, head > queue.count / 2 {
            queue.removeFirst(head)
            head = 0
        }
        while head < queue.count {
            let id = queue[head]
            head += 1
            if entries[id]?.phase == .queued { return id }
        }
        queue.removeAll(keepingCapacity: queue.capacity <= 4096)
        head = 0
        return nil
    }

    mutating func markSent(_ id: TaskID, request: UInt64, at now: UInt64) {
        guard entries[id]?.phase == .queued else { return }
        update(id) { entry in
            entry.phase = .sent
            entry.request = request
            entry.sentAt = now
        }
        unanswered += 1
    }

    /// Takes a sent entry out of the traffic until ``requeue(_:)``.
    mutating func hold(_ id: TaskID) {
        guard let entry = entries[id] else { return }
        leave(entry.phase)
        update(id) { $0.phase = .held }
        heldCount += 1
    }

    private mutating func leave(_ phase: Pending<Content>.Phase) {
        switch phase {
        case .queued: break
        case .sent: unanswered -= 1
        case .held: heldCount -= 1
        }
    }

    /// Puts every entry that `isWanted` is true for in the queue again, in the order they came.
    mutating func requeue(where isWanted: (Pending<Content>) -> Bool) {
        var again: [(order: UInt64, id: TaskID)] = []
        for (id, entry) in entries where entry.phase != .queued && isWanted(entry) {
            again.append((entry.order, id))
        }
        guard !again.isEmpty else { return }
        again.sort { $0.order < $1.order }
        for (_, id) in again {
            if let entry = entries[id] { leave(entry.phase) }
            update(id) { $0.phase = .queued }
        }
        // before what is queued behind them already
        queue = again.map(\.id) + queue[head...]
        head = 0
    }

    /// Puts one entry at the end of the queue again.
    mutating func requeue(_ id: TaskID) {
        guard let entry = entries[id], entry.phase != .queued else { return }
        leave(entry.phase)
        update(id) { $0.phase = .queued }
        queue.append(id)
    }

    /// The tasks whose entry `isWanted` is true for.
    func ids(where isWanted: (Pending<Content>) -> Bool) -> [TaskID] {
        entries.compactMap { isWanted($0.value) ? $0.key : nil }
    }
}
