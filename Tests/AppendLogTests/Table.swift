// Part of QTasks. License: see LICENSE.

@testable import AppendLog

/// What happens to a thing of a ``Table``; a record's payload is its key, then `bytes`.
enum Change: Equatable {
    case put(key: UInt8, value: [UInt8])
    case update(key: UInt8, with: UInt8)
    case end(key: UInt8)

    static let putKind: UInt8 = 1
    static let updateKind: UInt8 = 2
    static let endKind: UInt8 = 3
    /// A whole thing, as compaction carries it forward.
    static let stateKind: UInt8 = 4

    var kind: UInt8 {
        switch self {
        case .put: Self.putKind
        case .update: Self.updateKind
        case .end: Self.endKind
        }
    }

    var key: UInt8 {
        switch self {
        case .put(let key, _), .update(let key, _), .end(let key): key
        }
    }

    var payload: [UInt8] {
        switch self {
        case .put(let key, let value): [key] + value
        case .update(let key, let byte): [key, byte]
        case .end(let key): [key]
        }
    }
}

/// What a ``Table`` says to the outside: each key with its value and the updates since.
struct Contents: Equatable {
    struct Thing: Equatable {
        var value: [UInt8]
        var updates: [UInt8] = []
    }

    var things: [UInt8: Thing] = [:]

    mutating func apply(_ change: Change) {
        switch change {
        case .put(let key, let value): things[key] = Thing(value: value)
        case .update(let key, let byte): things[key]?.updates.append(byte)
        case .end(let key): things[key] = nil
        }
    }
}

/// An owner of a log as owners are meant to be: for each living thing it keeps where its record is and
/// what has changed since; values stay on disk.
struct Table {
    struct Entry: Equatable {
        /// The last change that it has.
        var last: UInt64
        var position: RecordPosition
        var updates: [UInt8] = []
    }

    private(set) var entries: [UInt8: Entry] = [:]

    mutating func set(_ key: UInt8, _ entry: Entry?) {
        entries[key] = entry
    }

    // MARK: Writing

    mutating func append(_ change: Change, to log: Log) throws(AppendLogError) -> UInt64 {
        let (sequence, position) = try log.append(kind: change.kind, payload: change.payload)
        apply(change.kind, change.payload, sequence, position)
        return sequence
    }

    /// Takes one step of a compaction; `carriesState`: a thing without updates is carried as a state as well.
    mutating func compact(_ log: Log, carriesState: Bool) -> CompactionStep {
        log.compactNext { record in
            guard let key = record.payload.first, let entry = entries[key],
                entry.position == record.position
            else { return }
            do throws(AppendLogError) {
                let isAsItWas = entry.updates.isEmpty && record.kind == Change.putKind
                let position =
                    if isAsItWas, !carriesState { try carryAsIs(record, to: log) } else {
                        try carryState(record, entry, to: log)
                    }
                entries[key]?.position = position
            } catch {
                log.abandonCompaction()
            }
        }
    }

    private func carryAsIs(
        _ record: borrowing RecordView,
        to log: Log
    ) throws(AppendLogError) -> RecordPosition {
        let payload = record.payload
        return try log.carry(record, kind: record.kind, payloadBytes: payload.count) {
            $0.copyMemory(from: payload)
        }
    }

    private func carryState(
        _ record: borrowing RecordView,
        _ entry: Entry,
        to log: Log
    ) throws(AppendLogError) -> RecordPosition {
        let value = Self.value(record.kind, record.payload)
        let state = Self.state(record.payload[0], entry) + value
        return try log.carry(record, kind: Change.stateKind, payloadBytes: state.count) {
            $0.copyBytes(from: state)
        }
    }

    // MARK: Reading

    mutating func replay(_ record: borrowing RecordView) {
        let payload = [UInt8](record.payload)
        guard let source = record.source else {
            return apply(record.kind, payload, record.sequence, record.position)
        }
        if record.kind == Change.stateKind {
            var (key, entry) = Self.parse(payload[...])
            entry.position = record.position
            entries[key] = entry
        } else if entries[payload[0]] == nil {
            entries[payload[0]] = Entry(last: record.sequence, position: record.position)
        } else if entries[payload[0]]?.position == source {
            entries[payload[0]]?.position = record.position
        }
    }

    private mutating func apply(
        _ kind: UInt8,
        _ payload: [UInt8],
        _ sequence: UInt64,
        _ position: RecordPosition
    ) {
        let key = payload[0]
        // a fuzzy checkpoint has it already
        if let entry = entries[key], entry.last >= sequence { return }
        switch kind {
        case Change.putKind: entries[key] = Entry(last: sequence, position: position)
        case Change.updateKind:
            entries[key]?.updates.append(payload[1])
            entries[key]?.last = sequence
        default: entries[key] = nil
        }
    }

    mutating func restore(_ part: CheckpointPart) -> Bool {
        switch part {
        case .begin: entries = [:]
        case .block(let bytes):
            var rest = [UInt8](bytes)[...]
            while !rest.isEmpty {
                let size = Int(rest[rest.startIndex])
                let (key, entry) = Self.parse(rest.dropFirst().prefix(size))
                entries[key] = entry
                rest = rest.dropFirst(1 + size)
            }
        case .end: break
        }
        return true
    }

    /// A checkpoint's block: some of the entries.
    func block(_ keys: ArraySlice<UInt8>) -> [UInt8] {
        keys.flatMap { key -> [UInt8] in
            guard let entry = entries[key] else { return [] }
            let state = Self.state(key, entry)
            return [UInt8(state.count)] + state
        }
    }

    /// Reads every value where its entry says that it is.
    func contents(
        _ read: (RecordPosition) throws -> (kind: UInt8, payload: [UInt8])
    ) throws -> Contents {
        var contents = Contents()
        for (key, entry) in entries {
            let (kind, payload) = try read(entry.position)
            guard payload.first == key else { throw NotThere(key: key, entry: entry) }
            contents.things[key] = Contents.Thing(
                value: payload.withUnsafeBytes { Self.value(kind, $0) },
                updates: entry.updates
            )
        }
        return contents
    }

    struct NotThere: Error {
        var key: UInt8
        var entry: Entry
    }

    // MARK: Bytes

    /// Key, last change, place, number of updates, updates.
    private static func state(_ key: UInt8, _ entry: Entry) -> [UInt8] {
        var bytes = [key]
        withUnsafeBytes(of: entry.last) { bytes += $0 }
        withUnsafeBytes(of: entry.position.segment) { bytes += $0 }
        withUnsafeBytes(of: entry.position.offset) { bytes += $0 }
        return bytes + [UInt8(entry.updates.count)] + entry.updates
    }

    private static func parse(_ bytes: ArraySlice<UInt8>) -> (UInt8, Entry) {
        bytes.withUnsafeBytes {
            let entry = Entry(
                last: $0.loadUnaligned(fromByteOffset: 1, as: UInt64.self),
                position: RecordPosition(
                    segment: $0.loadUnaligned(fromByteOffset: 9, as: UInt32.self),
                    offset: $0.loadUnaligned(fromByteOffset: 13, as: UInt32.self)
                ),
                updates: Array($0[18..<18 + Int($0[17])])
            )
            return ($0[0], entry)
        }
    }

    private static func value(_ kind: UInt8, _ payload: UnsafeRawBufferPointer) -> [UInt8] {
        Array(payload.dropFirst(kind == Change.stateKind ? 18 + Int(payload[17]) : 1))
    }
}

/// A table, and the log it lives in.
struct OpenedTable {
    let log: Log
    var table: Table

    init(
        _ disk: SimulatedDisk,
        _ options: LogOptions = .small,
        usesCheckpoints: Bool = true
    ) throws(AppendLogError) {
        var table = Table()
        let listener = LogListener(
            restore: usesCheckpoints ? { table.restore($0) } : nil,
            replay: { table.replay($0) }
        )
        log = try Log.open(
            at: Opened.directory,
            options: options,
            files: disk,
            driver: .manual,
            listener: listener
        )
        self.table = table
    }

    func contents() throws -> Contents {
        try table.contents { position in
            try log.withRecord(at: position) { ($0.kind, [UInt8]($0.payload)) }
        }
    }
}

extension Contents {
    /// What a reader beside, or instead of, the writer sees, and the last sequence.
    static func read(
        _ disk: SimulatedDisk,
        usesCheckpoints: Bool
    ) throws -> (contents: Self, last: UInt64, report: LogReader.Report) {
        let (reader, table, report) = try replay(disk, usesCheckpoints: usesCheckpoints)
        // What stands at a place shows by its kind, which only the pass over all tells.
        var kinds: [RecordPosition: UInt8] = [:]
        reader.forEach { kinds[$0.position] = $0.kind }
        let contents = try table.contents { position in
            let payload = try reader.withPayload(at: position) { [UInt8]($0) }
            return (kinds[position] ?? 0, payload)
        }
        return (contents, report.lastSequence, report)
    }

    /// The table as a reader makes it.
    static func replay(
        _ disk: SimulatedDisk,
        usesCheckpoints: Bool
    ) throws -> (LogReader, Table, LogReader.Report) {
        let reader = try LogReader(Opened.directory, files: disk)
        var table = Table()
        var start: CheckpointInfo?
        if usesCheckpoints {
            start = try reader.checkpoints().first { info in
                try reader.restore(info) { table.restore($0) }
            }
        }
        if start == nil { table = Table() }
        let report = reader.forEach(from: start?.start, after: start?.startSequence) {
            table.replay($0)
        }
        return (reader, table, report)
    }
}
