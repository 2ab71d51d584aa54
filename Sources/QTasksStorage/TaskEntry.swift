// Part of QTasks. License: see LICENSE.

package import AppendLog
package import QTasksModel
package import QTasksWire

/// What Storage knows of one task, as its callers see it; ``TaskIndex`` keeps it packed.
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
        /// It is a wait that began before the host was started: due by the wall clock as that was when the store
        /// was opened.
        package static let dueByWall = Flags(rawValue: 16)
        /// Its end is so long ago that it is about to be forgotten; not in the log.
        package static let expiring = Flags(rawValue: 32)
        /// A worker couldn't read its arguments in the store: they are sent along; not in the log.
        package static let sentWhole = Flags(rawValue: 64)

        /// Its add has a time by which it is to be leased, or a unique key; in a checkpoint that is told
        /// of those alone for which it still matters.
        package static let standing = Flags(rawValue: 128)

        /// What of it isn't told to a checkpoint with the task.
        static let fleeting: Flags = [.watched, .expiring, .sentWhole, .standing]
    }

    package var id: TaskID
    /// Of its add: its place in line.
    package var sequence: UInt64
    /// Of the newest record that changed it.
    package var lastSequence: UInt64
    /// Where its add lies.
    package var added: RecordPosition
    /// How many bytes on disk its add takes, 0 where nobody has said; kept to 1 part in 2048, see
    /// ``PackedSize``.
    package var addedBytes = 0
    /// Where its last attempt's result lies.
    package var finished: RecordPosition = .none
    /// The same of that record.
    package var finishedBytes = 0
    /// What it runs under, or ended under.
    package var lease: Lease = .none
    /// `none` unless it is scheduled.
    package var due: DueTime
    /// By which setting of the wall clock a wait was reckoned; counts only where it is scheduled.
    var clock = WallClock.opening
    package var attempt: UInt32 = 0
    package var failures: UInt32 = 0
    package var deaths: UInt32 = 0
    /// CRC-32C of its envelope: tells a repeated add from another task of the same ID.
    package var contentCRC: UInt32
    package var lane: LaneTable.Number
    /// Of the newest lease.
    package var worker: WorkerTable.Number = WorkerTable.none
    /// When it ended, in seconds since 1970; 0 unless it has.
    package var endedAt: UInt32 = 0
    /// How long it is kept from then on, in seconds, where its add said; else 0.
    package var keptFor: UInt32 = 0
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
