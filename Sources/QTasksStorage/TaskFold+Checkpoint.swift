// Part of QTasks. License: see LICENSE.
//
// The fold as blocks of a checkpoint. Part of the store's format: a layout never changes, a number is
// never used again; a checkpoint of a later version is passed over, and the log read instead.

import AppendLog
import QTasksModel
import QTasksWire

/// What a block holds; its first byte.
private enum BlockKind: UInt8 {
    /// Names and queues, in the order of their numbers: those that the entries behind it need and no
    /// block before it has. Each: bytes of the name (1), of the queue (1), name, queue.
    case lanes = 1
    /// Tasks, see ``CheckpointEntry``.
    case entries = 2
    /// Workers whose process is known, in the form of `WORKER` records.
    case workers = 3
    /// The newest moment in the log (8), the newest sequence (8), the number of tasks (8). The last one.
    case end = 4
}

/// A walk over all tasks, in steps between which they go on changing.
package struct CheckpointWalk {
    private var next: TaskIndex.Number = 0
    private var lanesTold = 0
    private var block = WireWriter(reserving: 0)
    private var entries = 0

    package init() {}

    /// Gives the blocks of the next tasks.
    ///
    /// - Parameters:
    ///   - tasks: As they are now.
    ///   - most: How many tasks at most.
    ///   - give: Takes a block.
    /// - Returns: Whether that was the last of them.
    mutating func step(
        _ tasks: TaskFold,
        atMost most: Int,
        _ give: (UnsafeRawBufferPointer) -> Void
    ) -> Bool {
        let end = tasks.index.endNumber
        let stop = min(Int(end), Int(next) + most)
        tellLanes(tasks.lanes, give)
        begin(.entries)
        while Int(next) < stop {
            let core = tasks.index.core(next)
            if core.status != nil, !core.flags.contains(.expiring) {
                CheckpointEntry.write(tasks.index[next], tasks, to: &block)
                entries += 1
            }
            next += 1
            guard block.count >= Self.blockBytes else { continue }
            flush(give)
            begin(.entries)
        }
        flush(give)
        guard Int(next) >= Int(end) else { return false }
        finish(tasks, give)
        return true
    }

    /// The size at which a block is closed.
    private static let blockBytes = 60 << 10

    private mutating func tellLanes(
        _ lanes: LaneTable,
        _ give: (UnsafeRawBufferPointer) -> Void
    ) {
        guard lanesTold < lanes.lanes.count else { return }
        begin(.lanes)
        for lane in lanes.lanes[lanesTold...] {
            block.u8(UInt8(lane.name.utf8.count))
            block.u8(UInt8(lane.queue.utf8.count))
            block.raw(lane.name.utf8)
            block.raw(lane.queue.utf8)
            guard block.count >= Self.blockBytes else { continue }
            flush(give)
            begin(.lanes)
        }
        lanesTold = lanes.lanes.count
        flush(give)
    }

    private mutating func finish(
        _ tasks: TaskFold,
        _ give: (UnsafeRawBufferPointer) -> Void
    ) {
        begin(.workers)
        for case let worker? in tasks.workers.workers {
            guard let process = worker.process, !worker.hasEnded else { continue }
            StoredWorker(at: tasks.latest, id: worker.id, process: process).writeHead(to: &block)
            guard block.count >= Self.blockBytes else { continue }
            flush(give)
            begin(.workers)
        }
        flush(give)
        begin(.end)
        block.integer(tasks.latest.nanoseconds)
        block.integer(tasks.lastSequence)
        block.integer(UInt64(entries))
        flush(give)
    }

    private mutating func begin(_ kind: BlockKind) {
        block.removeAll()
        block.u8(kind.rawValue)
    }

    private mutating func flush(_ give: (UnsafeRawBufferPointer) -> Void) {
        if block.count > 1 { block.bytes.withUnsafeBytes { give($0) } }
        block.removeAll()
    }
}

/// A task in a checkpoint.
///
/// ```
///  offset  bytes  field
///       0      1  status
///       1      1  flags: bit 0 suspect, bit 2 `written` suffices, bit 3 and synced within an interval,
///                 bit 4 due by the wall clock alone, bit 7 the second part follows
///       2      2  priority
///       4      4  number of name and queue
///       8     16  task ID
///      24      8  sequence of its add
///      32      8  where its add lies: segment, offset
///      40      4  what that takes up
///      44      4  CRC-32C of its envelope
///      48      8  newest sequence            the second part (98 bytes), where there is more to tell
///      56      8  where its result lies
///      64      4  what that takes up
///      68      8  lease
///      76     16  worker ID; 0: none
///      92     12  attempts, failures, deaths
///     104      2  epoch
///     106      4  end, in seconds since 1970
///     110      4  kept for, in seconds
///     114     32  due
/// ```
private enum CheckpointEntry {
    static func write(_ entry: TaskEntry, _ tasks: TaskFold, to writer: inout WireWriter) {
        let isFresh = TaskProgress(entry) == TaskProgress(freshAt: entry.sequence)
        let kept = entry.flags.subtracting(.fleeting).rawValue
        writer.u8(entry.status.code)
        writer.u8(kept | (isFresh ? 0 : 128))
        writer.integer(entry.priority)
        writer.integer(entry.lane)
        writer.id(entry.id)
        writer.integer(entry.sequence)
        writer.integer(entry.added.segment)
        writer.integer(entry.added.offset)
        writer.integer(UInt32(clamping: entry.addedBytes))
        writer.integer(entry.contentCRC)
        if !isFresh { writeProgress(entry, tasks, to: &writer) }
    }

    private static func writeProgress(
        _ entry: TaskEntry,
        _ tasks: TaskFold,
        to writer: inout WireWriter
    ) {
        writer.integer(entry.lastSequence)
        writer.integer(entry.finished.segment)
        writer.integer(entry.finished.offset)
        writer.integer(UInt32(clamping: entry.finishedBytes))
        writer.integer(entry.lease.rawValue)
        let isNobody = entry.worker == WorkerTable.none
        writer.worker(isNobody ? WorkerID(high: 0, low: 0) : tasks.workers[entry.worker].id)
        writer.integer(entry.attempt)
        writer.integer(entry.failures)
        writer.integer(entry.deaths)
        writer.integer(entry.epoch)
        writer.integer(entry.endedAt)
        writer.integer(entry.keptFor)
        tasks.storedDue(of: entry).write(to: &writer)
    }

    static func read(
        from reader: inout WireReader,
        into tasks: inout TaskFold,
        lanes: [LaneTable.Number]
    ) throws(WireError) {
        let status = try reader.storedStatus()
        let bits = try reader.u8("flags")
        let priority = try reader.integer("priority", as: Int16.self)
        let lane = Int(try reader.integer("lane", as: UInt32.self))
        guard lane < lanes.count else { throw .invalid(field: "lane") }
        let id = try reader.id("task ID")
        let sequence = try reader.integer("sequence", as: UInt64.self)
        var entry = TaskEntry(
            id: id,
            sequence: sequence,
            lastSequence: sequence,
            added: try reader.position("add"),
            addedBytes: Int(try reader.integer("add's bytes", as: UInt32.self)),
            due: 0,
            contentCRC: try reader.integer("CRC"),
            lane: lanes[lane],
            priority: priority,
            status: status,
            flags: TaskEntry.Flags(rawValue: bits & 127)
        )
        if bits & 128 != 0 { try readProgress(from: &reader, &entry, &tasks) }
        tasks.restore(entry)
    }

    private static func readProgress(
        from reader: inout WireReader,
        _ entry: inout TaskEntry,
        _ tasks: inout TaskFold
    ) throws(WireError) {
        entry.lastSequence = try reader.integer("newest sequence")
        entry.finished = try reader.position("result")
        entry.finishedBytes = Int(try reader.integer("result's bytes", as: UInt32.self))
        entry.lease = Lease(rawValue: try reader.integer("lease"))
        let worker = try reader.worker("worker")
        entry.attempt = try reader.integer("attempts")
        entry.failures = try reader.integer("failures")
        entry.deaths = try reader.integer("deaths")
        entry.epoch = try reader.integer("epoch")
        entry.endedAt = try reader.integer("end")
        entry.keptFor = try reader.integer("kept for")
        let due = try StoredDue(from: &reader)
        if entry.status == .scheduled {
            entry.due = due.monotonic(at: tasks.now, bootID: tasks.bootID)
        }
        if worker != WorkerID(high: 0, low: 0) { entry.worker = tasks.workers.retain(worker) }
    }
}

/// Reads a checkpoint's blocks into a fold that holds nothing yet.
package struct CheckpointReading {
    private var lanes: [LaneTable.Number] = []
    private var isComplete = false
    private var entries: UInt64 = 0

    package init() {}

    /// Takes one block.
    ///
    /// - Throws: Where it is none of this version's.
    mutating func take(
        _ bytes: UnsafeRawBufferPointer,
        into tasks: inout TaskFold
    ) throws(WireError) {
        var reader = WireReader(bytes)
        guard let kind = BlockKind(rawValue: try reader.u8("block")) else {
            throw .invalid(field: "block")
        }
        switch kind {
        case .lanes:
            while !reader.isAtEnd {
                let nameBytes = Int(try reader.u8("name byte count"))
                let queueBytes = Int(try reader.u8("queue byte count"))
                let name = try reader.raw(nameBytes, "name")
                let queue = try reader.raw(queueBytes, "queue")
                lanes.append(tasks.lanes.number(name: name, queue: queue))
            }
        case .entries:
            while !reader.isAtEnd {
                try CheckpointEntry.read(from: &reader, into: &tasks, lanes: lanes)
                entries += 1
            }
        case .workers:
            while !reader.isAtEnd {
                let worker = try StoredWorker(from: &reader)
                tasks.workers.set(worker.process, of: worker.id)
            }
        case .end:
            tasks.latest = max(
                tasks.latest,
                Timestamp(nanoseconds: try reader.integer("newest moment"))
            )
            tasks.lastSequence = try reader.integer("newest sequence")
            isComplete = try reader.integer("number of tasks") == entries
        }
    }

    /// Whether all of it was there.
    var isWhole: Bool { isComplete }
}

extension TaskFold {
    /// Forgets everything: a checkpoint, or the log from its beginning, follows.
    package mutating func reset() {
        self = TaskFold(opened: now, bootID: bootID, seed: seed)
    }

    fileprivate mutating func restore(_ entry: TaskEntry) {
        if let known = index.number(of: entry.id) {
            // forgotten and added again while the checkpoint was written
            guard index.core(known).sequence < entry.sequence else {
                return workers.release(entry.worker)
            }
            remove(known)
        }
        let number = index.insert(entry)
        lanes.count(entry.lane, from: nil, to: entry.status)
        usage.add(index.core(number).addedBytes.bytes, in: entry.added.segment)
        if entry.finished != .none {
            usage.add(index[number].finishedBytes, in: entry.finished.segment)
        }
    }
}

extension WireReader {
    fileprivate mutating func position(_ field: StaticString) throws(WireError) -> RecordPosition {
        RecordPosition(segment: try integer(field), offset: try integer(field))
    }
}
