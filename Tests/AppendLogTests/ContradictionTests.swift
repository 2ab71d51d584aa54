// Part of QTasks. License: see LICENSE.

import Testing

@testable import AppendLog

/// Stores whose checksums are right, and whose meta page, headers and groups say what can't all be true.
///
/// No crash leaves such a store. Still, what an opening shows and builds upon, the next one has to show.
@Suite(.timeLimit(.minutes(10)))
struct `Opening a store that contradicts itself` {
    @Test(arguments: 0..<40)
    func `shows nothing that the next opening doesn't show, too`(block: UInt64) throws {
        for seed in Self.seeds(block) {
            let disk = MadeUpStore(seed: seed).disk
            let read = try? Self.read(disk)
            guard var opened = try? Opened(disk) else { continue }
            var known = opened.entries.map { Known($0) }
            expect(read == known, seed, "a reader sees \(read ?? []) instead of \(known)")
            for _ in 0..<2 {
                try Self.append(to: opened.log, &known)
                switch seed % 3 {
                case 0: try opened.log.close()
                case 1: disk.crash(seed: seed)
                default: disk.endProcess()
                }
                opened = try Opened(disk)
                let found = opened.entries.map { Known($0) }
                expect(found == known, seed, "\(found) instead of \(known)")
            }
        }
    }

    @Test(arguments: 0..<40)
    func `loses nothing that compaction carries forward`(block: UInt64) throws {
        for seed in Self.seeds(block) {
            let disk = MadeUpStore(seed: seed).disk
            guard var opened = try? Opened(disk) else { continue }
            let known = Set(opened.entries.map { Known($0) })
            for _ in 0..<2 {
                try Self.compact(opened.log)
                disk.endProcess()
                opened = try Opened(disk)
                let lost = known.subtracting(opened.entries.map { Known($0) })
                expect(lost.isEmpty, seed, "\(lost) is lost")
            }
        }
    }

    @Test(arguments: 0..<40)
    func `shows the same behind the same checkpoint`(block: UInt64) throws {
        for seed in Self.seeds(block) {
            var store = MadeUpStore(seed: seed)
            for number in UInt32(1)...2 { store.addCheckpoint(number) }
            guard var (log, known) = try? Self.restore(store.disk) else { continue }
            for _ in 0..<2 {
                let checkpoint = log.recovery.checkpoint
                try Self.append(to: log, &known)
                store.disk.endProcess()
                let found: [Known]
                (log, found) = try Self.restore(store.disk)
                let isSame = log.recovery.checkpoint == checkpoint
                expect(!isSame || found == known, seed, "\(found) instead of \(known)")
                known = found
            }
        }
    }

    private static func seeds(_ block: UInt64) -> Range<UInt64> {
        block * 50..<(block + 1) * 50
    }

    private func expect(_ isRight: Bool, _ seed: UInt64, _ what: @autoclosure () -> String) {
        if !isRight { Issue.record("seed \(seed): \(what())") }
    }

    private static func append(to log: Log, _ known: inout [Known]) throws {
        for byte in UInt8(1)...2 {
            let sequence = try log.append(kind: 1, payload: [byte]).sequence
            known.append(Known(sequence: sequence, payload: [byte]))
        }
        try log.flush()
    }

    private static func read(_ disk: SimulatedDisk) throws -> [Known] {
        var records: [Known] = []
        try LogReader(Opened.directory, files: disk).forEach { record in
            records.append(Known(Entry(record)))
        }
        return records
    }

    private static func restore(_ disk: SimulatedDisk) throws -> (Log, [Known]) {
        var records: [Known] = []
        let log = try Log.open(
            at: Opened.directory,
            options: .small,
            files: disk,
            driver: .manual,
            listener: LogListener(restore: { _ in true }) { records.append(Known(Entry($0))) }
        )
        return (log, records)
    }

    /// Carries all of the oldest segment forward, and has its file removed.
    private static func compact(_ log: Log) throws {
        guard log.beginCompaction() else { return }
        while log.isCompacting {
            _ = log.compactNext { record in
                let payload = record.payload
                _ = try? log.carry(record, kind: record.kind, payloadBytes: payload.count) {
                    $0.copyMemory(from: payload)
                }
            }
            while log.runOneKeep() {}
        }
        while log.runOneWrite() || log.runOneSync() || log.runOneKeep() {}
    }
}

private struct Known: Hashable, CustomStringConvertible {
    var sequence: UInt64
    var payload: [UInt8]

    init(sequence: UInt64, payload: [UInt8]) {
        self.sequence = sequence
        self.payload = payload
    }

    init(_ entry: Entry) {
        self.init(sequence: entry.sequence, payload: entry.payload)
    }

    var description: String {
        "\(sequence) of \(payload.count) x \(payload.first ?? 0)"
    }
}

/// Few numbers and places, so that they often meet.
private struct MadeUpStore {
    let disk = SimulatedDisk(seed: 1)
    private var chance: SimulatedDisk.Chance
    private var sequence: UInt64 = 1
    private var places = [RecordPosition(segment: 0, offset: 0)]

    init(seed: UInt64) {
        chance = SimulatedDisk.Chance(seed: seed)
        var incarnation: UInt32 = 1
        for index in UInt32(1)...6 where !oneIn(3) {
            if oneIn(3) { incarnation += 1 }
            addSegment(index, oneIn(4) ? UInt32.random(in: 0...4, using: &chance) : incarnation)
        }
        addMeta(oneIn(4) ? UInt32.random(in: 1...4, using: &chance) : incarnation)
    }

    private mutating func oneIn(_ count: Int) -> Bool {
        Int.random(in: 0..<count, using: &chance) == 0
    }

    private mutating func place(before segment: UInt32) -> RecordPosition {
        if !oneIn(3), let last = places.last(where: { $0.segment < segment }) { return last }
        if oneIn(4) {
            return RecordPosition(
                segment: UInt32.random(in: 0..<segment, using: &chance),
                offset: 1024 + 8 * UInt32.random(in: 0...40, using: &chance)
            )
        }
        let earlier = places.filter { $0.segment < segment }
        return earlier.randomElement(using: &chance) ?? places[0]
    }

    private mutating func addMeta(_ incarnation: UInt32) {
        var meta = MetaPage()
        meta.incarnation = incarnation
        meta.durableAtLeast = UInt64.random(in: 0...sequence, using: &chance)
        meta.mark = place(before: 8)
        if oneIn(5) { meta.firstSegment = UInt32.random(in: 0...6, using: &chance) }
        if oneIn(8) { meta.firstSequence = UInt64.random(in: 1...sequence + 1, using: &chance) }
        meta.isClean = oneIn(2)
        disk.setContents(of: metaPath, to: meta.encoded() + [UInt8](repeating: 0, count: 4096))
    }

    mutating func addCheckpoint(_ number: UInt32) {
        let places = [place(before: 8), place(before: 8)].sorted()
        let first = UInt64.random(in: 0...sequence, using: &chance)
        var checkpoint = Checkpoint(
            number: number,
            salt: number,
            incarnation: UInt32.random(in: 1...4, using: &chance),
            startSequence: first,
            start: places[0]
        )
        checkpoint.endSequence = UInt64.random(in: 0...sequence, using: &chance)
        checkpoint.end = places[1]
        if oneIn(8) { checkpoint.start.offset += 4 }
        let bytes =
            encoded(Checkpoint.headerBytes) { checkpoint.encodeHeader(to: $0) }
            + encoded(Checkpoint.trailerBytes) {
                checkpoint.encodeTrailer(to: $0, blocks: 0, at: Checkpoint.headerBytes)
            }
        disk.setContents(of: "\(Opened.directory)/\(LogFormat.checkpointName(number))", to: bytes)
    }

    private mutating func addSegment(_ index: UInt32, _ incarnation: UInt32) {
        let header = SegmentHeader(
            index: index,
            salt: index,
            incarnation: incarnation,
            firstSequence: oneIn(6) ? UInt64.random(in: 0...9, using: &chance) : sequence,
            predecessor: place(before: index)
        )
        var bytes = [UInt8](repeating: 0, count: SegmentHeader.areaBytes)
        bytes.withUnsafeMutableBytes { area in
            if let base = area.baseAddress { header.encode(to: base) }
        }
        places.append(RecordPosition(segment: index, offset: UInt32(bytes.count)))
        for _ in 0..<Int.random(in: 0...6, using: &chance) {
            addThing(to: &bytes, salt: header.salt)
            places.append(RecordPosition(segment: index, offset: UInt32(bytes.count)))
        }
        if oneIn(8) { bytes = Array(bytes.prefix(Int.random(in: 0...bytes.count, using: &chance))) }
        // prepared, without a header, or with zeros ahead
        if oneIn(20) { bytes = zeros(bytes.count) }
        if oneIn(12) { bytes.replaceSubrange(0..<min(1024, bytes.count), with: zeros(1024)) }
        if oneIn(6) { bytes += zeros(4 * Int.random(in: 1...40, using: &chance)) }
        disk.setContents(of: segmentPath(index), to: bytes)
    }

    private func zeros(_ count: Int) -> [UInt8] {
        [UInt8](repeating: 0, count: count)
    }

    private mutating func addThing(to bytes: inout [UInt8], salt: UInt32) {
        let seed = salt ^ UInt32(bytes.count)
        switch Int.random(in: 0..<10, using: &chance) {
        case 0, 1:
            let durable = UInt64.random(in: 0...sequence, using: &chance)
            bytes += encoded(GroupHeader.bytes) {
                GroupHeader(recordBytes: 0, durableUpTo: durable).encode(to: $0, seed: seed)
            }
        case 2, 3:
            let source = RecordPosition(segment: 1, offset: 1024)
            addRecord(to: &bytes, seed, UInt64.random(in: 1...sequence, using: &chance), source)
        case 4:
            bytes += [UInt8](
                repeating: oneIn(2) ? 0 : 7,
                count: 8 * Int.random(in: 1...6, using: &chance)
            )
        default:
            if oneIn(8) { sequence = UInt64.random(in: 1...sequence + 2, using: &chance) }
            addRecord(to: &bytes, seed, sequence, nil)
            sequence += 1
        }
    }

    private mutating func addRecord(
        to bytes: inout [UInt8],
        _ seed: UInt32,
        _ sequence: UInt64,
        _ source: RecordPosition?
    ) {
        let payload = [UInt8](
            repeating: UInt8.random(in: 8...255, using: &chance),
            count: Int.random(in: 0...20, using: &chance)
        )
        let checksum = payload.withUnsafeBytes {
            $0.baseAddress?.crc32c($0.count, seed: seed) ?? seed
        }
        let header = RecordHeader(
            kind: 1,
            flags: 0,
            payloadBytes: payload.count,
            sequence: sequence,
            payloadChecksum: oneIn(8) ? ~checksum : checksum,
            source: source
        )
        bytes += encoded(header.headerBytes) { header.encode(to: $0, seed: seed) } + payload
        bytes += [UInt8](
            repeating: 0,
            count: header.bytesOnDisk - header.headerBytes - payload.count
        )
    }

    private func encoded(_ count: Int, _ body: (UnsafeMutableRawPointer) -> Void) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        bytes.withUnsafeMutableBytes { area in
            if let base = area.baseAddress { body(base) }
        }
        return bytes
    }
}
