// Part of QTasks. License: see LICENSE.
//
// Deadlines and unique keys as blocks of a checkpoint; part of the store's format, as
// TaskFold+Checkpoint.swift is.

import QTasksModel
import QTasksWire

/// A walk over deadlines and unique keys, in steps between which they go on changing.
///
/// It comes after that over the tasks: what a row of a task in the checkpoint says is no older than
/// the task is there.
struct StandingWalk {
    private var nextDeadline: UInt32 = 0
    private var nextKey: UInt32 = 0
    private var block = WireWriter(reserving: 0)

    /// How long a block is at most, or a little more.
    private static let blockBytes = 60 << 10

    /// Gives the blocks of the next rows.
    ///
    /// - Returns: Whether those were the last.
    mutating func step(
        _ tasks: TaskFold,
        atMost most: Int,
        _ give: (UnsafeRawBufferPointer) -> Void
    ) -> Bool {
        var left = most
        while nextDeadline < tasks.deadlines.endNumber, left > 0 {
            left -= 1
            defer { nextDeadline += 1 }
            guard let entry = tasks.deadlines.entry(nextDeadline), tasks.index.isDeadline(entry)
            else { continue }
            begin(.deadlines) { _ in }
            block.integer(entry.sequence)
            block.id(tasks.index.core(entry.number).id)
            block.integer(entry.moment)
            if block.count >= Self.blockBytes { flush(give) }
        }
        // a block has rows of one kind
        if nextKey == 0 { flush(give) }
        while nextKey < tasks.uniqueKeys.endNumber, left > 0 {
            left -= 1
            defer { nextKey += 1 }
            guard let claim = tasks.uniqueKeys.claim(nextKey),
                tasks.index.holds(claim, at: tasks.latest)
            else { continue }
            begin(.uniqueKeys) { block in
                block.integer(tasks.uniqueKeys.seed.one)
                block.integer(tasks.uniqueKeys.seed.other)
            }
            block.integer(claim.hash.high)
            block.integer(claim.hash.low)
            block.integer(claim.sequence)
            block.id(tasks.index.core(claim.number).id)
            block.u8(claim.scope)
            block.integer(claim.end)
            if block.count >= Self.blockBytes { flush(give) }
        }
        flush(give)
        return nextDeadline >= tasks.deadlines.endNumber && nextKey >= tasks.uniqueKeys.endNumber
    }

    private mutating func begin(_ kind: CheckpointBlock, _ head: (inout WireWriter) -> Void) {
        guard block.count == 0 else { return }
        block.u8(kind.rawValue)
        head(&block)
    }

    private mutating func flush(_ give: (UnsafeRawBufferPointer) -> Void) {
        if block.count > 0 { block.bytes.withUnsafeBytes { give($0) } }
        block.removeAll()
    }
}

extension TaskFold {
    /// The rows of a block of deadlines.
    mutating func restoreDeadlines(_ reader: inout WireReader) throws(WireError) {
        while !reader.isAtEnd {
            let sequence = try reader.integer("sequence", as: UInt64.self)
            let id = try reader.id("task ID")
            let moment = Timestamp(nanoseconds: try reader.integer("deadline"))
            guard let number = restored(id, sequence) else { continue }
            note(deadline: moment, of: number)
        }
    }

    /// The rows of a block of unique keys.
    mutating func restoreKeys(_ reader: inout WireReader) throws(WireError) {
        let seed = KeyHash.Seed(
            one: try reader.integer("seed"),
            other: try reader.integer("seed")
        )
        if uniqueKeys.count == 0 { uniqueKeys.begin(seed) }
        guard uniqueKeys.seed == seed else { throw .invalid(field: "seed") }
        while !reader.isAtEnd {
            let hash = KeyHash(high: try reader.integer("hash"), low: try reader.integer("hash"))
            let sequence = try reader.integer("sequence", as: UInt64.self)
            let id = try reader.id("task ID")
            let scope = try reader.u8("scope")
            let end = try reader.integer("window", as: UInt32.self)
            guard (1...3).contains(scope), (scope == 3) == (end > 0) else {
                throw .invalid(field: "scope")
            }
            guard let number = restored(id, sequence) else { continue }
            claim(
                UniqueKeyTable.Claim(
                    hash: hash,
                    number: number,
                    sequence: sequence,
                    scope: scope,
                    end: end
                )
            )
        }
    }

    /// A task of the checkpoint; one that was added later comes with its add.
    private mutating func restored(_ id: TaskID, _ sequence: UInt64) -> TaskIndex.Number? {
        guard let number = index.number(of: id), index.core(number).sequence == sequence else {
            return nil
        }
        index.setFlags(index.core(number).flags.union(.standing), of: number)
        return number
    }
}
