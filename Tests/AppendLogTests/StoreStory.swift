// Part of QTasks. License: see LICENSE.

import Testing

@testable import AppendLog

/// A small store with all that there is: several segments, things carried forward as they were and as
/// states, a checkpoint in the middle, and changes behind it.
///
/// Each key is put once only, so a thing is there as it should be, or it is not.
struct StoreStory {
    enum End: CaseIterable {
        case closed
        /// The lower bound was written before.
        case killedIdle
        case killed
    }

    static let options: LogOptions = {
        var options = LogOptions(
            segmentBytes: 1600,
            recordBytesMax: 400,
            zeroFillAheadBytes: 512,
            zeroFillChunkBytes: 256
        )
        options.reserveBytes = 0
        return options
    }()

    let disk: SimulatedDisk
    private(set) var changes: [Change] = []
    /// What any opening has evidence for.
    private(set) var proven: UInt64 = 0
    /// What was acknowledged.
    private(set) var durable: UInt64 = 0

    init(_ disk: SimulatedDisk = SimulatedDisk(seed: 11)) {
        self.disk = disk
    }

    /// Tells all of it; where a call fails, `durable` says what had been acknowledged by then.
    mutating func tell(_ end: End) throws {
        var opened = try OpenedTable(disk, Self.options)
        let log = opened.log
        for key in UInt8(1)...14 {
            try change(&opened, .put(key: key, value: payload(Int(key), bytes: 20 + Int(key))))
            if key % 3 == 0 { try change(&opened, .update(key: key, with: 1)) }
            if key % 4 == 0 { try change(&opened, .end(key: key)) }
            if key % 2 == 0 { try flush(log) }
        }
        try compact(&opened)
        try checkpoint(opened)
        for key in [UInt8(3), 5, 14] { try change(&opened, .update(key: key, with: 2)) }
        try flush(log)
        try compact(&opened)
        try change(&opened, .end(key: 7))
        for key in UInt8(15)...19 {
            try change(&opened, .put(key: key, value: payload(Int(key), bytes: 90)))
            try flush(log)
        }
        try change(&opened, .end(key: 16))
        switch end {
        case .closed:
            try log.close()
            (durable, proven) = (log.lastSequence, log.lastSequence)
        case .killedIdle, .killed:
            try flush(log)
            proven = durable - 1
            if end == .killedIdle {
                log.noteIdle()
                try run(log)
                proven = durable
            }
            disk.endProcess()
        }
    }

    private mutating func change(_ opened: inout OpenedTable, _ change: Change) throws {
        _ = try opened.table.append(change, to: opened.log)
        changes.append(change)
    }

    private mutating func flush(_ log: Log) throws {
        defer { durable = max(durable, log.watermarks().durable) }
        try log.flush()
        try run(log)
    }

    private func run(_ log: Log) throws {
        while log.runOneWrite() || log.runOneSync() || log.runOnePreparation() || log.runOneKeep() {
        }
        if let failure = log.failure { throw failure }
    }

    private mutating func compact(_ opened: inout OpenedTable) throws {
        guard opened.log.beginCompaction() else { return }
        var isState = false
        while true {
            isState.toggle()
            switch opened.table.compact(opened.log, carriesState: isState) {
            case .record: break
            case .waiting: try run(opened.log)
            case .finished: return try flush(opened.log)
            case .damaged(let position): throw Damaged(position: position)
            }
        }
    }

    struct Damaged: Error {
        var position: RecordPosition
    }

    private mutating func checkpoint(_ opened: OpenedTable) throws {
        let log = opened.log
        log.beginCheckpoint()
        for part in [ArraySlice(UInt8(0)...7), ArraySlice(UInt8(8)...20)] {
            guard log.takesCheckpointBlocks else { return log.abandonCheckpoint() }
            opened.table.block(part).withUnsafeBytes { log.addCheckpointBlock($0) }
            try run(log)
        }
        log.endCheckpoint(stamp: 1)
        try flush(log)
    }

    // MARK: What is found

    /// What somebody who opens the store makes of it.
    struct Found: Equatable {
        var last: UInt64
        var lost: Set<UInt64>
        var isDamaged: Bool
        /// `nil` where the record that holds the value is found to be corrupt.
        var things: [UInt8: Contents.Thing?]
    }

    static func open(_ disk: SimulatedDisk) throws -> Found {
        let opened = try OpenedTable(disk, options)
        let log = opened.log
        return Found(
            last: log.lastSequence,
            lost: Set(log.recovery.lost.flatMap { Array($0.sequences) }),
            isDamaged: log.recovery.isDamaged,
            things: try things(opened.table) { position in
                try log.withRecord(at: position) { ($0.kind, [UInt8]($0.payload)) }
            }
        )
    }

    static func read(_ disk: SimulatedDisk, usesCheckpoints: Bool) throws -> Found {
        let (reader, table, report) = try Contents.replay(disk, usesCheckpoints: usesCheckpoints)
        var kinds: [RecordPosition: UInt8] = [:]
        reader.forEach { kinds[$0.position] = $0.kind }
        return Found(
            last: report.lastSequence,
            lost: Set(report.lost.flatMap { Array($0.sequences) }),
            isDamaged: report.isDamaged,
            things: try things(table) { position in
                let payload = try reader.withPayload(at: position) { [UInt8]($0) }
                return (kinds[position] ?? 0, payload)
            }
        )
    }

    private static func things(
        _ table: Table,
        _ read: (RecordPosition) throws -> (kind: UInt8, payload: [UInt8])
    ) throws -> [UInt8: Contents.Thing?] {
        var things: [UInt8: Contents.Thing?] = [:]
        for (key, _) in table.entries {
            do {
                let one = try table.only(key).contents(read)
                things[key] = .some(one.things[key])
            } catch is AppendLogError {
                things[key] = .some(nil)
            }
        }
        return things
    }

    /// What is wrong with it; `nil` where all that was proven is there or reported, and nothing is back.
    func complaint(_ found: Found, mayLose: Bool = true) -> String? {
        if found.last < (mayLose ? proven : durable) { return "last is \(found.last)" }
        if found.last > changes.count { return "last is \(found.last)" }
        if !mayLose, found.isDamaged { return "reported damage where there is none" }
        let lostKeys = Set(found.lost.map { changes[Int($0) - 1].key })
        var expected = Contents()
        for change in changes.prefix(Int(found.last)) { expected.apply(change) }
        let keys = Set(expected.things.keys).union(found.things.keys)
        for key in keys.subtracting(lostKeys) {
            let right = expected.things[key]
            switch found.things[key] {
            case .none where right != nil && !found.isDamaged: return "\(key) is gone"
            case .some(.none) where !mayLose: return "\(key) can't be read"
            case .some(.some(let thing)) where thing != right: return "\(key) is \(thing)"
            case .none, .some: break
            }
        }
        return nil
    }
}

extension Table {
    /// A table of one thing.
    func only(_ key: UInt8) -> Self {
        var one = Table()
        one.set(key, entries[key])
        return one
    }
}
