// Part of QTasks. License: see LICENSE.
//
// The fold as blocks of a checkpoint. Part of the store's format: a layout never changes, a number is
// never used again; a checkpoint of a later version is passed over, and the log read instead.

import AppendLog
import QTasksModel
import QTasksWire

/// What a block holds; its first byte.
enum CheckpointBlock: UInt8 {
    /// Names and queues, in the order of their numbers: those that the entries behind it need and no
    /// block before it has. Each: bytes of the name (1), of the queue (1), name, queue.
    case lanes = 1
    /// Tasks, see ``CheckpointEntry``.
    case entries = 2
    /// Workers whose process is known, in the form of `WORKER` records.
    case workers = 3
    /// The newest moment in the log (8), the newest sequence (8), the number of tasks (8). The last one.
    case end = 4
    /// Tasks of blocks before that are to be leased by a moment, or not at all. Each: sequence of its
    /// add (8), task ID (16), moment (8).
    case deadlines = 6
    /// Unique keys that tasks of blocks before hold: the seed of their hashes (16), then for each: hash
    /// (16), sequence of its add (8), task ID (16), scope (1), end of the window in seconds since 1970
    /// (4; 0 without one). See ``UniqueKeyTable``.
    case uniqueKeys = 7
    /// Keys of tasks that came before and may still run. Each: sequence of the task's add (8), task ID
    /// (16), bytes of the key (2), key.
    case keys = 8
    /// Queues that have rules. Each: sequence of the record that says so (8), and that in the form of
    /// `QUEUE` records.
    case queues = 9
    /// Where evidence lies, if there is any. Each: task ID (16), lease (8), sequence (8), segment (4),
    /// offset (4), bytes (4).
    case evidence = 5
}

/// A walk over all tasks, in steps between which they go on changing.
package struct CheckpointWalk {
    private var next: TaskIndex.Number = 0
    private var lanesTold = 0
    private var keysTold: TaskIndex.Number = 0
    private var block = WireWriter(reserving: 0)
    private var rows = [UInt8](repeating: 0, count: blockBytes)
    private var entries = 0
    private var standing = StandingWalk()

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
        while Int(next) < stop {
            let count = fillRows(tasks, upTo: TaskIndex.Number(stop))
            if count > 1 {
                rows.withUnsafeBytes { give(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
            }
            tellKeys(tasks, give)
        }
        guard Int(next) >= Int(end), standing.step(tasks, atMost: most, give) else { return false }
        finish(tasks, give)
        return true
    }

    /// How long a block is at most, or a little more.
    private static let blockBytes = 60 << 10

    /// As many tasks as a block takes; says how many bytes that are.
    private mutating func fillRows(_ tasks: TaskFold, upTo stop: TaskIndex.Number) -> Int {
        var next = next
        var written = 0
        let bytes = rows.withUnsafeMutableBytes { rows -> Int in
            guard let base = rows.baseAddress else { return 0 }
            base.put(CheckpointBlock.entries.rawValue, at: 0)
            var count = 1
            while next < stop, count + CheckpointEntry.bytesMax <= rows.count {
                let core = tasks.index.core(next)
                if core.status != nil, !core.flags.contains(.expiring) {
                    count += CheckpointEntry.write(tasks.index[next], tasks, to: base + count)
                    written += 1
                }
                next += 1
            }
            return count
        }
        self.next = next
        entries += written
        return bytes
    }

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

    /// The keys of the tasks since the last time.
    private mutating func tellKeys(_ tasks: TaskFold, _ give: (UnsafeRawBufferPointer) -> Void) {
        defer { keysTold = next }
        guard !tasks.keys.isEmpty else { return }
        begin(.keys)
        for number in keysTold..<next {
            guard let key = tasks.keys[number] else { continue }
            let core = tasks.index.core(number)
            block.integer(core.sequence)
            block.id(core.id)
            block.integer(UInt16(key.count))
            block.raw(key)
            guard block.count >= Self.blockBytes else { continue }
            flush(give)
            begin(.keys)
        }
        flush(give)
    }

    private mutating func finish(
        _ tasks: TaskFold,
        _ give: (UnsafeRawBufferPointer) -> Void
    ) {
        begin(.queues)
        for (queue, entry) in tasks.queues.entries {
            block.integer(entry.sequence)
            StoredQueue(at: tasks.latest, queue: queue, rules: entry.rules).writeHead(to: &block)
            guard block.count >= Self.blockBytes else { continue }
            flush(give)
            begin(.queues)
        }
        flush(give)
        begin(.workers)
        for case let worker? in tasks.workers.workers {
            guard let process = worker.process, !worker.hasEnded else { continue }
            StoredWorker(at: tasks.latest, id: worker.id, process: process).writeHead(to: &block)
            guard block.count >= Self.blockBytes else { continue }
            flush(give)
            begin(.workers)
        }
        flush(give)
        tellEvidence(tasks.evidence, give)
        begin(.end)
        block.integer(tasks.latest.nanoseconds)
        block.integer(tasks.lastSequence)
        block.integer(UInt64(entries))
        flush(give)
    }

    private mutating func tellEvidence(
        _ evidence: EvidenceTable,
        _ give: (UnsafeRawBufferPointer) -> Void
    ) {
        begin(.evidence)
        for (task, items) in evidence.items {
            for item in items {
                block.id(task)
                block.integer(item.lease.rawValue)
                block.integer(item.sequence)
                block.integer(item.position.segment)
                block.integer(item.position.offset)
                block.integer(UInt32(clamping: item.bytes))
            }
            guard block.count >= Self.blockBytes else { continue }
            flush(give)
            begin(.evidence)
        }
        flush(give)
    }

    private mutating func begin(_ kind: CheckpointBlock) {
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
///                 bit 4 a wait of another boot, bit 7 the second part follows
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
///
/// Read and written by place, since there are millions of them.
private enum CheckpointEntry {
    static let freshBytes = 48
    static let bytesMax = freshBytes + 98

    /// Writes it to `target`, which has room for ``bytesMax``; says how many bytes it took.
    static func write(
        _ entry: TaskEntry,
        _ tasks: TaskFold,
        to target: UnsafeMutableRawPointer
    ) -> Int {
        let isFresh = TaskProgress(entry) == TaskProgress(freshAt: entry.sequence)
        let kept = entry.flags.subtracting(.fleeting).rawValue
        target.put(entry.status.code, at: 0)
        target.put(kept | (isFresh ? 0 : 128), at: 1)
        target.put(entry.priority, at: 2)
        target.put(entry.lane, at: 4)
        target.put(entry.id.high.byteSwapped, at: 8)
        target.put(entry.id.low.byteSwapped, at: 16)
        target.put(entry.sequence, at: 24)
        target.put(entry.added, at: 32)
        target.put(UInt32(clamping: entry.addedBytes), at: 40)
        target.put(entry.contentCRC, at: 44)
        guard !isFresh else { return freshBytes }
        target.put(entry.lastSequence, at: 48)
        target.put(entry.finished, at: 56)
        target.put(UInt32(clamping: entry.finishedBytes), at: 64)
        target.put(entry.lease.rawValue, at: 68)
        let isNobody = entry.worker == WorkerTable.none
        let worker = isNobody ? WorkerID(high: 0, low: 0) : tasks.workers[entry.worker].id
        target.put(worker.high.byteSwapped, at: 76)
        target.put(worker.low.byteSwapped, at: 84)
        target.put(entry.attempt, at: 92)
        target.put(entry.failures, at: 96)
        target.put(entry.deaths, at: 100)
        target.put(entry.epoch, at: 104)
        target.put(entry.endedAt, at: 106)
        target.put(entry.keptFor, at: 110)
        let due = tasks.storedDue(of: entry)
        target.put(due.wall.nanoseconds, at: 114)
        target.put(due.boot, at: 122)
        target.put(due.bootID.high.byteSwapped, at: 130)
        target.put(due.bootID.low.byteSwapped, at: 138)
        return bytesMax
    }

    /// Reads the one that `source` begins with; says how many bytes it took.
    static func read(
        _ source: UnsafeRawBufferPointer,
        into tasks: inout TaskFold,
        lanes: [LaneTable.Number]
    ) throws(WireError) -> Int {
        guard source.count >= freshBytes, let base = source.baseAddress else {
            throw .truncated(field: "task")
        }
        guard let status = TaskStatus(code: base.get(0)) else { throw .invalid(field: "status") }
        let bits: UInt8 = base.get(1)
        let lane = Int(base.get(4, as: UInt32.self))
        guard lane < lanes.count else { throw .invalid(field: "lane") }
        let sequence: UInt64 = base.get(24)
        var entry = TaskEntry(
            id: TaskID(high: base.bigEndian(8), low: base.bigEndian(16)),
            sequence: sequence,
            lastSequence: sequence,
            added: base.position(32),
            addedBytes: Int(base.get(40, as: UInt32.self)),
            due: .none,
            contentCRC: base.get(44),
            lane: lanes[lane],
            priority: base.get(2),
            status: status,
            flags: TaskEntry.Flags(rawValue: bits & 127)
        )
        let isFresh = bits & 128 == 0
        if !isFresh {
            guard source.count >= bytesMax else { throw .truncated(field: "task") }
            readProgress(base, &entry, &tasks)
        }
        tasks.restore(entry)
        return isFresh ? freshBytes : bytesMax
    }

    /// Shows the ID of each task in bytes that are nothing but tasks.
    static func forEachID(in bytes: UnsafeRawBufferPointer, _ body: (TaskID) -> Void) {
        guard let base = bytes.baseAddress else { return }
        var place = 0
        while place + freshBytes <= bytes.count {
            let isFresh = base.get(place + 1, as: UInt8.self) & 128 == 0
            body(TaskID(high: base.bigEndian(place + 8), low: base.bigEndian(place + 16)))
            place += isFresh ? freshBytes : bytesMax
        }
    }

    private static func readProgress(
        _ base: UnsafeRawPointer,
        _ entry: inout TaskEntry,
        _ tasks: inout TaskFold
    ) {
        entry.lastSequence = base.get(48)
        entry.finished = base.position(56)
        entry.finishedBytes = Int(base.get(64, as: UInt32.self))
        entry.lease = Lease(rawValue: base.get(68))
        entry.attempt = base.get(92)
        entry.failures = base.get(96)
        entry.deaths = base.get(100)
        entry.epoch = base.get(104)
        entry.endedAt = base.get(106)
        entry.keptFor = base.get(110)
        if entry.status == .scheduled {
            let due = StoredDue(
                wall: Timestamp(nanoseconds: base.get(114)),
                boot: base.get(122),
                bootID: TaskID(high: base.bigEndian(130), low: base.bigEndian(138))
            )
            tasks.setDue(of: &entry, due)
        }
        let worker = WorkerID(high: base.bigEndian(76), low: base.bigEndian(84))
        if worker != WorkerID(high: 0, low: 0) { entry.worker = tasks.workers.retain(worker) }
    }
}

extension UnsafeRawPointer {
    fileprivate func get<Number: FixedWidthInteger & BitwiseCopyable>(
        _ place: Int,
        as type: Number.Type = Number.self
    ) -> Number {
        Number(littleEndian: loadUnaligned(fromByteOffset: place, as: Number.self))
    }

    fileprivate func bigEndian(_ place: Int) -> UInt64 {
        UInt64(bigEndian: loadUnaligned(fromByteOffset: place, as: UInt64.self))
    }

    fileprivate func position(_ place: Int) -> RecordPosition {
        RecordPosition(segment: get(place), offset: get(place + 4))
    }
}

extension UnsafeMutableRawPointer {
    fileprivate func put(_ number: some FixedWidthInteger & BitwiseCopyable, at place: Int) {
        storeBytes(of: number.littleEndian, toByteOffset: place, as: type(of: number))
    }

    fileprivate func put(_ position: RecordPosition, at place: Int) {
        put(position.segment, at: place)
        put(position.offset, at: place + 4)
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
        guard let kind = CheckpointBlock(rawValue: try reader.u8("block")) else {
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
            var rest = reader.rest()
            CheckpointEntry.forEachID(in: rest, tasks.index.prefetch)
            while !rest.isEmpty {
                let count = try CheckpointEntry.read(rest, into: &tasks, lanes: lanes)
                rest = UnsafeRawBufferPointer(rebasing: rest[count...])
                entries += 1
            }
        case .workers:
            while !reader.isAtEnd {
                let worker = try StoredWorker(from: &reader)
                tasks.workers.set(worker.process, of: worker.id)
            }
        case .keys:
            while !reader.isAtEnd {
                let sequence = try reader.integer("sequence", as: UInt64.self)
                let id = try reader.id("task ID")
                let count = Int(try reader.integer("key byte count", as: UInt16.self))
                let key = try reader.raw(count, "key")
                guard let number = tasks.index.number(of: id),
                    tasks.index.core(number).sequence == sequence,
                    tasks.index.core(number).status != .success,
                    tasks.keys.number(of: number) == nil
                else { continue }
                tasks.keys.set(key, of: number)
            }
        case .queues:
            while !reader.isAtEnd {
                let sequence = try reader.integer("sequence", as: UInt64.self)
                let place = StoredPlace(sequence: sequence, position: .none)
                tasks.queues.apply(try StoredQueue(from: &reader), at: place)
            }
        case .evidence:
            while !reader.isAtEnd {
                let task = try reader.id("task ID")
                let item = EvidenceTable.Item(
                    lease: Lease(rawValue: try reader.integer("lease")),
                    sequence: try reader.integer("sequence"),
                    position: RecordPosition(
                        segment: try reader.integer("segment"),
                        offset: try reader.integer("offset")
                    ),
                    bytes: Int(try reader.integer("bytes", as: UInt32.self))
                )
                tasks.keepEvidence(item, of: task)
            }
        case .deadlines: try tasks.restoreDeadlines(&reader)
        case .uniqueKeys: try tasks.restoreKeys(&reader)
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
