// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire

/// Results that are not known to be committed yet, and when to send them once more.
///
/// A PUSH socket has no acknowledgements and no sessions: what was sent may be lost without a word.
/// So each result stays here until the Broker passes on Storage's word.
struct Outbox: Sendable {
    /// Results kept at most before no more tasks are asked for.
    static let countMax = 4096
    /// The same in bytes.
    static let bytesMax = 64 << 20
    /// Nanoseconds until a result is sent again, doubling to the second where nothing answers.
    static let waitMin: UInt64 = 1_000_000_000
    static let waitMax: UInt64 = 10_000_000_000

    private struct Item {
        var entry: ResultEntry
        var sentAt: UInt64
    }

    private var items: [Lease: Item] = [:]
    private var wait = waitMin

    /// The sizes of all that is kept, summed up.
    private(set) var bytes = 0

    /// When to look for results that are to be sent again; `nil` while there is none.
    ///
    /// Never later than the first such moment. It may be earlier, so that an acknowledgement need
    /// not search for the next.
    private(set) var dueAt: UInt64?

    var count: Int { items.count }
    var isEmpty: Bool { items.isEmpty }

    /// What `HELLO` lists as done.
    var holdings: [Holding] {
        items.values.map { Holding(id: $0.entry.id, lease: $0.entry.lease) }
    }

    func contains(_ lease: Lease) -> Bool { items[lease] != nil }

    /// Keeps a result, which is sent at `now`.
    mutating func add(_ entry: ResultEntry, now: UInt64) {
        items[entry.lease] = Item(entry: entry, sentAt: now)
        bytes += entry.sizeInMemory
        if dueAt == nil { dueAt = now + wait }
    }

    /// Forgets a result: it is committed, or nobody wants it.
    mutating func remove(_ lease: Lease) {
        guard let item = items.removeValue(forKey: lease) else { return }
        bytes -= item.entry.sizeInMemory
        wait = Self.waitMin
        if items.isEmpty { dueAt = nil }
    }

    /// Hands over a result that is sent again at `now`, if it is still here.
    mutating func again(_ lease: Lease, now: UInt64) -> ResultEntry? {
        guard let index = items.index(forKey: lease) else { return nil }
        items.values[index].sentAt = now
        return items.values[index].entry
    }

    /// Packs every result: all are sent at `now`.
    mutating func all(now: UInt64, into packer: inout ResultPacker) {
        guard !items.isEmpty else { return }
        for index in items.values.indices {
            items.values[index].sentAt = now
            packer.add(items.values[index].entry)
        }
        wait = Self.waitMin
        dueAt = now + wait
    }

    /// Packs the results that have waited long enough: they are sent again at `now`.
    mutating func overdue(now: UInt64, into packer: inout ResultPacker) {
        guard let dueAt, dueAt <= now else { return }
        var earliest = now
        var isAnyDue = false
        for index in items.values.indices {
            let sentAt = items.values[index].sentAt
            if sentAt + wait <= now {
                items.values[index].sentAt = now
                packer.add(items.values[index].entry)
                isAnyDue = true
            } else {
                earliest = min(earliest, sentAt)
            }
        }
        if isAnyDue { wait = min(wait * 2, Self.waitMax) }
        self.dueAt = earliest + wait
    }
}

extension ResultEntry {
    /// About what it takes up, in bytes.
    var sizeInMemory: Int {
        switch outcome {
        case .success(let result, _): 128 + result.count
        case .error(let failure), .retry(let failure, _, _):
            128 + failure.message.utf8.count + (failure.trace?.utf8.count ?? 0)
        case .cancel(let reason): 128 + reason.utf8.count
        }
    }
}

/// Packs the results of one turn into as few messages as their size allows.
struct ResultPacker: Sendable {
    /// A message is closed before it grows past this; a larger result has one to itself.
    static let messageBytes = 1 << 20

    /// Whether to note whose results are packed, for the log.
    var isTracing = false
    private(set) var ids: [TaskID] = []

    private let worker: WorkerID
    private var writer: WireWriter?
    private var messages: [[UInt8]] = []

    init(worker: WorkerID) {
        self.worker = worker
    }

    var isEmpty: Bool { writer == nil && messages.isEmpty }

    mutating func add(_ entry: ResultEntry) {
        if let writer, writer.count + entry.sizeInMemory > Self.messageBytes { close() }
        if writer == nil {
            // grown once: what a large result is copied into it isn't copied again
            var begun = WireWriter(.results, reserving: 512 + entry.sizeInMemory)
            begun.worker(worker)
            writer = begun
        }
        writer?.add(entry)
        if isTracing { ids.append(entry.id) }
    }

    mutating func removeAll() {
        ids.removeAll(keepingCapacity: true)
        writer = nil
        messages.removeAll(keepingCapacity: true)
    }

    /// Appends what was packed to two empty arrays, and begins anew.
    mutating func move(to target: inout [[UInt8]], ids: inout [TaskID]) {
        close()
        swap(&self.ids, &ids)
        target += messages
        messages.removeAll(keepingCapacity: true)
    }

    private mutating func close() {
        if let message = writer?.take() { messages.append(message) }
        writer = nil
    }
}

extension WireWriter {
    fileprivate mutating func add(_ entry: ResultEntry) { entry.write(to: &self) }
}
