// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire
package import ZeroMQ

/// One connection, by the id that the ROUTER socket gave it.
package typealias Session = RoutingID

/// What the Broker knows of one worker.
struct WorkerEntry {
    let id: WorkerID
    var process: WorkerProcess
    var parentPid: Int32 = 0

    /// The connection it speaks on; `nil` while it is awaited after a restart of the Broker.
    var session: Session?

    /// Counts its sessions: a lease proposed for an earlier one was never sent.
    var sessionNumber: UInt32 = 0

    /// The WELCOME that its last HELLO answered; 0 where it doesn't say.
    var greeting: UInt64 = 0

    var slots = 0
    var names: Set<String> = []

    /// What it can run, with all others that can run the same; `nil` until it has said.
    var kind: Lanes.KindNumber?

    /// How many tasks it is ready to have been sent in this session.
    var window: UInt64 = 0

    /// How many it was sent in this session.
    var sent: UInt64 = 0

    /// Leases proposed for it that Storage has not granted yet.
    var reserved = 0

    /// Leases it was sent and that have not ended.
    var leases: Set<Lease> = []

    /// Leases that have ended while their handlers go on.
    var lingering: Set<Lease> = []

    /// It says when limited attempts begin, and when they have returned.
    var reportsRunning = false

    /// Leases whose results it said it has, and that were over by what Storage had told then: the next Storage may
    /// not have their ends, which were perhaps not written.
    var unwrittenResults: Set<Lease> = []

    /// It runs a suspect, and nothing beside it.
    var isExclusive = false

    /// It can be told of large arguments by their place in the store.
    var readsStore = false

    /// Tasks of this session whose arguments it couldn't read there.
    var unreadable = 0

    /// After so many it is sent the bytes: what it takes for the store is none, or another.
    static let unreadableMax = 8

    /// Attempts that it has ended, counted where workers are recycled.
    var ended = 0

    /// It was asked to make room for a new one.
    var isRetired = false

    /// It said goodbye: nothing more is sent.
    var isLeaving = false

    /// We killed it: nothing that it ran is to blame.
    var wasKilledByUs = false

    /// When to doubt that it lives; counts where it is remote.
    var silentAt: UInt64 = 0

    /// Nothing was heard of it for so long that the next look gives it up.
    var isDoubted = false

    /// It was ended because an attempt went on for too long.
    var wasEndedForLimit = false

    /// How many more tasks it takes.
    var credit: Int {
        guard session != nil, !isLeaving, window > sent else { return 0 }
        return Int(clamping: window - sent) - reserved
    }

    /// Its process can't be watched, asked to end or killed.
    var isRemote: Bool { process.isRemote }

    var isEmpty: Bool { leases.isEmpty && reserved == 0 && lingering.isEmpty }

    func isOne(of kinds: [Lanes.KindNumber]) -> Bool { kind.map(kinds.contains) ?? false }

    /// Fewer than its slots are taken: what it is sent starts at once.
    var hasFreeSlot: Bool { leases.count + reserved < slots }
}

/// The workers, by number; a number is used again when its worker is gone.
struct Roster {
    typealias Number = Int

    private(set) var entries: [WorkerEntry?] = []
    private var numbers: [WorkerID: Number] = [:]
    private var sessions: [Session: Number] = [:]
    private var free: [Number] = []

    /// Where the next search for a worker begins, so that they take turns.
    private var turn = 0

    /// How many connections the Broker takes; beyond, a HELLO is refused.
    static let workersMax = 4096

    var count: Int { numbers.count }

    /// The numbers of all workers.
    var all: [Number] { entries.indices.filter { entries[$0] != nil } }

    subscript(number: Number) -> WorkerEntry {
        get {
            guard let entry = entries[number] else {
                preconditionFailure("worker \(number) is gone")
            }
            return entry
        }
        _modify {
            guard var entry = entries[number] else {
                preconditionFailure("worker \(number) is gone")
            }
            // taken out while it is changed, so that its collections aren't copied
            entries[number] = nil
            defer { entries[number] = entry }
            yield &entry
        }
    }

    func number(of id: WorkerID) -> Number? { numbers[id] }

    func number(of session: Session) -> Number? { sessions[session] }

    mutating func add(_ entry: WorkerEntry) -> Number {
        let number: Number
        if let reused = free.popLast() {
            number = reused
            entries[number] = entry
        } else {
            number = entries.count
            entries.append(entry)
        }
        numbers[entry.id] = number
        return number
    }

    mutating func remove(_ number: Number) {
        guard let entry = entries[number] else { return }
        if let session = entry.session { sessions[session] = nil }
        numbers[entry.id] = nil
        entries[number] = nil
        free.append(number)
    }

    /// Begins a session; what an older one still delivers is ignored from now on.
    mutating func begin(_ session: Session, of number: Number) {
        if let old = self[number].session { sessions[old] = nil }
        self[number].session = session
        self[number].sessionNumber += 1
        self[number].sent = 0
        self[number].window = 0
        self[number].reserved = 0
        sessions[session] = number
    }

    /// Ends the worker's session, if it has one.
    mutating func endSession(of number: Number) {
        if let session = self[number].session { sessions[session] = nil }
        self[number].session = nil
    }

    /// A worker of these kinds with credit: one with a free slot before one that
    /// would only keep the task in its buffer, in turn among equals.
    mutating func findWorker(of kinds: [Lanes.KindNumber], except held: Number?) -> Number? {
        var buffering: Number?
        for step in 0..<entries.count {
            let number = (turn + step) % entries.count
            guard number != held, let entry = entries[number], entry.credit > 0,
                !entry.isExclusive, entry.isOne(of: kinds)
            else { continue }
            if entry.hasFreeSlot {
                turn = number + 1
                return number
            }
            if buffering == nil { buffering = number }
        }
        if let buffering { turn = buffering + 1 }
        return buffering
    }

    /// The kinds of all workers with credit, each once.
    func kindsWithCredit(except held: Number?) -> [Lanes.KindNumber] {
        var kinds: [Lanes.KindNumber] = []
        for (number, entry) in entries.enumerated() where number != held {
            guard let entry, let kind = entry.kind, entry.credit > 0, !entry.isExclusive,
                !kinds.contains(kind)
            else { continue }
            kinds.append(kind)
        }
        return kinds
    }

    /// A worker of these kinds that holds nothing.
    func findEmptyWorker(of kinds: [Lanes.KindNumber]) -> Number? {
        entries.indices.first { number in
            guard let entry = entries[number] else { return false }
            return entry.isEmpty && entry.credit > 0 && entry.isOne(of: kinds)
        }
    }

    /// The worker that will be empty soonest, as far as one can tell.
    func findLeastLoaded(of kinds: [Lanes.KindNumber]) -> Number? {
        all.filter { number in
            let entry = self[number]
            return entry.session != nil && !entry.isLeaving && entry.isOne(of: kinds)
        }
        .min { self[$0].leases.count < self[$1].leases.count }
    }
}
