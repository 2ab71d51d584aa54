// Part of QTasks. License: see LICENSE.
//
// A task as it lies in memory: what every task has, and what it only has once something happened to
// it. Most tasks of a long queue are fresh, so the second part is paid for by few.

import AppendLog
import QTasksModel
import QTasksWire

/// What every task has: 48 bytes.
struct TaskCore {
    let id: TaskID
    /// Its sequence in the upper 48 bits, ``PackedSize`` of its add in the lower 16.
    private let place: UInt64
    let added: RecordPosition
    let contentCRC: UInt32
    let lane: LaneTable.Number
    /// The number of its ``TaskProgress`` plus one, 0 while it is fresh; the next free core's where
    /// this one is free.
    var link: UInt32
    let priority: Int16
    /// `nil`: no task lies here.
    private(set) var status: TaskStatus?
    var flags: TaskEntry.Flags

    /// 48 bits, which last for 89 years at 100,000 records a second.
    static let sequenceMax: UInt64 = 1 << 48 - 1

    init(_ entry: TaskEntry, status: TaskStatus, link: UInt32) {
        precondition(entry.sequence <= Self.sequenceMax, "no log has that many records")
        id = entry.id
        place = entry.sequence << 16 | UInt64(PackedSize(bytes: entry.addedBytes).rawValue)
        added = entry.added
        contentCRC = entry.contentCRC
        lane = entry.lane
        self.link = link
        priority = entry.priority
        self.status = status
        flags = entry.flags
    }

    var sequence: UInt64 { place >> 16 }

    var addedBytes: PackedSize { PackedSize(rawValue: UInt16(truncatingIfNeeded: place)) }
}

extension TaskCore: SlabRow {
    var isFree: Bool { status == nil }

    mutating func free() { status = nil }
}

/// What a task has that was leased, has ended, or waits for a time: 64 bytes.
struct TaskProgress: Equatable {
    var lastSequence: UInt64
    var finished: RecordPosition = .none
    var lease: Lease = .none
    var due = DueTime.none
    var attempt: UInt32 = 0
    var failures: UInt32 = 0
    var deaths: UInt32 = 0
    var worker: WorkerTable.Number = WorkerTable.none
    /// When it ended, or by which setting of the wall clock it is due: no task has both.
    var endedAtOrClock: UInt32 = 0
    var keptFor: UInt32 = 0
    var epoch: UInt16 = 0
    var finishedBytes = PackedSize(rawValue: 0)

    /// That of a task to which nothing happened since its add.
    @inline(__always)
    init(freshAt sequence: UInt64) {
        lastSequence = sequence
    }

    @inline(__always)
    init(_ entry: TaskEntry) {
        lastSequence = entry.lastSequence
        finished = entry.finished
        lease = entry.lease
        due = entry.due
        attempt = entry.attempt
        failures = entry.failures
        deaths = entry.deaths
        worker = entry.worker
        endedAtOrClock = entry.status == .scheduled ? entry.clock : entry.endedAt
        keptFor = entry.keptFor
        epoch = entry.epoch
        finishedBytes = PackedSize(bytes: entry.finishedBytes)
    }
}

extension TaskProgress: SlabRow {
    // a free row has no worker to tell
    var link: UInt32 {
        get { worker }
        set { worker = newValue }
    }

    // a task that has progressed has a record behind its add's, so no row in use has this
    var isFree: Bool { lastSequence == .max }

    mutating func free() { lastSequence = .max }
}

extension TaskEntry {
    @inline(__always)
    init(_ core: TaskCore, _ status: TaskStatus, _ progress: TaskProgress) {
        self.init(
            id: core.id,
            sequence: core.sequence,
            lastSequence: progress.lastSequence,
            added: core.added,
            addedBytes: core.addedBytes.bytes,
            finished: progress.finished,
            finishedBytes: progress.finishedBytes.bytes,
            lease: progress.lease,
            due: progress.due,
            clock: status == .scheduled ? progress.endedAtOrClock : WallClock.opening,
            attempt: progress.attempt,
            failures: progress.failures,
            deaths: progress.deaths,
            contentCRC: core.contentCRC,
            lane: core.lane,
            worker: progress.worker,
            endedAt: status == .scheduled ? 0 : progress.endedAtOrClock,
            keptFor: progress.keptFor,
            priority: core.priority,
            epoch: progress.epoch,
            status: status,
            flags: core.flags
        )
    }
}

/// A record's size in 16 bits: 12 of mantissa, 4 of exponent, in units of 8 bytes.
///
/// Exact up to 32,760 bytes (records lie on multiples of 8); beyond, rounded up by less than 1 part
/// in 2048; at most 1 GiB.
struct PackedSize: Equatable {
    private static let mantissaBits = 12
    private static let mantissaMax = 1 << mantissaBits - 1
    private static let exponentMax = 15

    let rawValue: UInt16

    init(rawValue: UInt16) {
        self.rawValue = rawValue
    }

    init(bytes: Int) {
        precondition(bytes >= 0, "no record has less than no bytes")
        let units = bytes / 8 + (bytes & 7 == 0 ? 0 : 1)
        guard units > Self.mantissaMax else {
            rawValue = UInt16(units)
            return
        }
        var exponent = Int.bitWidth - units.leadingZeroBitCount - Self.mantissaBits
        var mantissa = (units - 1) >> exponent + 1
        if mantissa > Self.mantissaMax {
            exponent += 1
            mantissa = 1 << (Self.mantissaBits - 1)
        }
        guard exponent <= Self.exponentMax else {
            rawValue = .max
            return
        }
        rawValue = UInt16(exponent << Self.mantissaBits | mantissa)
    }

    var bytes: Int {
        (Int(rawValue) & Self.mantissaMax) << (Int(rawValue) >> Self.mantissaBits) * 8
    }
}
