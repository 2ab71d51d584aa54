// Part of QTasks. License: see LICENSE.

package import AppendLog
package import QTasksModel

/// What Storage keeps in memory of one task: 96 bytes.
package struct TaskEntry: Equatable {
    /// Yes-or-no facts of a task.
    package struct Flags: OptionSet, Sendable {
        package let rawValue: UInt8

        package init(rawValue: UInt8) {
            self.rawValue = rawValue
        }

        /// It was in a process that died with several tasks in it: it runs alone from then on.
        package static let suspect = Flags(rawValue: 1)
        /// Somebody waits for its end; not in the log.
        package static let watched = Flags(rawValue: 2)
        /// It asked for no more than `written` before anybody hears of it.
        package static let writtenSuffices = Flags(rawValue: 4)
        /// What is told of it is synced within an interval, which its add has.
        package static let interval = Flags(rawValue: 8)
    }

    package var id: TaskID
    /// Of its add: its place in line.
    package var sequence: UInt64
    /// Of the newest record that changed it.
    package var lastSequence: UInt64
    /// Where its add lies.
    package var added: RecordPosition
    /// Where its last attempt's result lies.
    package var finished: RecordPosition = .none
    /// What it runs under, or ended under.
    package var lease: Lease = .none
    /// In nanoseconds of `CLOCK_BOOTTIME`; 0 unless it is scheduled.
    package var due: UInt64
    package var attempt: UInt32 = 0
    package var failures: UInt32 = 0
    package var deaths: UInt32 = 0
    /// CRC-32C of its envelope: tells a repeated add from another task of the same ID.
    package var contentCRC: UInt32
    package var lane: LaneTable.Number
    /// Of the newest lease.
    package var worker: WorkerTable.Number = WorkerTable.none
    package var priority: Int16
    package var epoch: UInt16 = 0
    package var status: TaskStatus
    package var flags: Flags
}

extension TaskEntry {
    var isSuspect: Bool { flags.contains(.suspect) }
    var isWatched: Bool { flags.contains(.watched) }

    /// How durable its add and its results are before anybody hears of them; an interval goes on from
    /// there.
    var durability: Durability { flags.contains(.writtenSuffices) ? .written : .synced }
}

/// Every task of the store, by ID.
///
/// Entries lie in chunks, which never move: growing copies the slots alone, 4 bytes each. A slot
/// holds an entry's number plus one; it is found by open addressing and verified against the entry.
package struct TaskIndex {
    /// An entry's place, good for as long as the store is open.
    package typealias Number = UInt32

    private static let chunkBits: UInt32 = 12
    private static let chunkEntries = 1 << Int(chunkBits)

    private var slots = ContiguousArray<UInt32>(repeating: 0, count: 1024)
    private var chunks: ContiguousArray<ContiguousArray<TaskEntry>> = []
    private let seed: UInt64

    package private(set) var count = 0

    /// - Parameter seed: Keeps clients from making IDs that all fall into one place.
    package init(seed: UInt64) {
        self.seed = seed
    }

    package subscript(number: Number) -> TaskEntry {
        _read {
            yield chunks[Int(number >> Self.chunkBits)][Int(number) & (Self.chunkEntries - 1)]
        }
        _modify {
            yield &chunks[Int(number >> Self.chunkBits)][Int(number) & (Self.chunkEntries - 1)]
        }
    }

    /// The task's number, `nil` if there is no such task.
    package func number(of id: TaskID) -> Number? {
        let mask = slots.count - 1
        var slot = hash(id) & mask
        while slots[slot] != 0 {
            let number = slots[slot] - 1
            if self[number].id == id { return number }
            slot = (slot + 1) & mask
        }
        return nil
    }

    /// Adds a task that isn't there yet.
    package mutating func insert(_ entry: TaskEntry) -> Number {
        if (count + 1) * 4 > slots.count * 3 { grow() }
        let number = Number(count)
        if count & (Self.chunkEntries - 1) == 0 {
            chunks.append([])
            chunks[chunks.count - 1].reserveCapacity(Self.chunkEntries)
        }
        chunks[chunks.count - 1].append(entry)
        count += 1
        place(number, id: entry.id)
        return number
    }

    private mutating func grow() {
        slots = ContiguousArray(repeating: 0, count: slots.count * 2)
        for number in 0..<Number(count) { place(number, id: self[number].id) }
    }

    private mutating func place(_ number: Number, id: TaskID) {
        let mask = slots.count - 1
        var slot = hash(id) & mask
        while slots[slot] != 0 { slot = (slot + 1) & mask }
        slots[slot] = number + 1
    }

    private func hash(_ id: TaskID) -> Int {
        let mixed = (id.low ^ seed).multipliedFullWidth(by: id.high ^ 0x9E37_79B9_7F4A_7C15)
        return Int(truncatingIfNeeded: mixed.high ^ mixed.low)
    }
}

extension TaskEntry.Flags {
    /// Those that follow from what its add asked for.
    init(_ durability: Durability) {
        switch durability {
        case .synced: self = []
        case .written: self = .writtenSuffices
        case .interval: self = [.writtenSuffices, .interval]
        }
    }
}
