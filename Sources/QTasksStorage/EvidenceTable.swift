// Part of QTasks. License: see LICENSE.

import AppendLog
package import QTasksModel
import QTasksWire

/// Where the evidence of deaths lies, for those tasks alone whose workers died.
///
/// Follows from the log's records and from nothing else. A record may lie before the one that has its task
/// by now, since compaction moves both: what comes of no task in the end is dropped by ``drop(where:)``.
package struct EvidenceTable: Equatable {
    /// One `EVIDENCE` record.
    struct Item: Equatable {
        var lease: Lease
        var sequence: UInt64
        var position: RecordPosition
        var bytes: Int
    }

    /// Of a task that kills more workers than that the newest count.
    static let mostOfTask = 100

    /// By task, each ordered by sequence.
    private(set) var items: [TaskID: [Item]] = [:]

    /// What a task has, the oldest first.
    subscript(task: TaskID) -> [Item] { items[task] ?? [] }

    /// The leases whose deaths are told of a task, the oldest first.
    package func leases(of task: TaskID) -> [Lease] { self[task].map(\.lease) }

    /// Whether that is where the record of this death lies.
    func isKept(_ holding: Holding, at position: RecordPosition) -> Bool {
        self[holding.id].contains { $0.lease == holding.lease && $0.position == position }
    }

    /// Takes a record in, or the place to which one was moved.
    ///
    /// - Returns: What lies elsewhere from now on, or is kept no longer.
    mutating func insert(_ item: Item, of task: TaskID) -> Item? {
        var list = items[task] ?? []
        defer { items[task] = list }
        if let known = list.firstIndex(where: { $0.lease == item.lease }) {
            let old = list[known]
            // the first one is it, and its newest copy
            guard old.sequence == item.sequence, old.position < item.position else { return item }
            list[known] = item
            return old
        }
        let place = list.firstIndex { $0.sequence > item.sequence } ?? list.endIndex
        list.insert(item, at: place)
        return list.count > Self.mostOfTask ? list.removeFirst() : nil
    }

    /// Drops what a task had before that.
    ///
    /// - Returns: What was dropped.
    mutating func drop(of task: TaskID, before sequence: UInt64) -> [Item] {
        guard let list = items[task] else { return [] }
        let kept = list.filter { $0.sequence >= sequence }
        items[task] = kept.isEmpty ? nil : kept
        return list.filter { $0.sequence < sequence }
    }

    /// Drops what is found to be of no use.
    ///
    /// - Returns: What was dropped.
    mutating func drop(where isUseless: (TaskID, Item) -> Bool) -> [Item] {
        var dropped: [Item] = []
        for (task, list) in items {
            let useless = list.filter { isUseless(task, $0) }
            guard !useless.isEmpty else { continue }
            dropped += useless
            let kept = list.filter { !isUseless(task, $0) }
            items[task] = kept.isEmpty ? nil : kept
        }
        return dropped
    }
}

/// Deaths that Storage has recorded and that nobody has explained yet.
///
/// Which lease a process died with is known here alone once the Broker that saw it has died as well. The
/// Starter tells what it knows within milliseconds, or to the next Broker: a few deaths are enough. What a
/// checkpoint covers is not remembered.
struct UnexplainedDeaths {
    struct Death: Equatable {
        var holding: Holding
        var worker: WorkerID
        var pid: Int32
        var startTime: UInt64
    }

    /// So many tasks at least are remembered, and never twice as many.
    static let least = 2048

    private var newer: [TaskID: [Death]] = [:]
    private var older: [TaskID: [Death]] = [:]

    /// A lease ended with this process.
    mutating func note(_ holding: Holding, _ worker: WorkerID, _ process: WorkerProcess) {
        let death = Death(
            holding: holding,
            worker: worker,
            pid: process.pid,
            startTime: process.startTime
        )
        newer[holding.id, default: []].append(death)
        guard newer.count >= Self.least else { return }
        older = newer
        newer = [:]
    }

    /// What ended with that process, in the order of the leases.
    func ended(with exit: ExitMessage) -> [Death] {
        [older, newer].joined().lazy.flatMap(\.value)
            .filter { $0.pid == exit.pid && $0.startTime == exit.startTime }
            .sorted { $0.holding.lease.rawValue < $1.holding.lease.rawValue }
    }

    /// That is explained.
    mutating func remove(_ holding: Holding) {
        newer[holding.id]?.removeAll { $0.holding == holding }
        older[holding.id]?.removeAll { $0.holding == holding }
        if newer[holding.id]?.isEmpty == true { newer[holding.id] = nil }
        if older[holding.id]?.isEmpty == true { older[holding.id] = nil }
    }

    /// A task is gone, or its epoch is over.
    mutating func removeAll(of task: TaskID) {
        newer[task] = nil
        older[task] = nil
    }
}
