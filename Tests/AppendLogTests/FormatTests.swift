// Part of QTasks. License: see LICENSE.

import CLinux
import Testing

@testable import AppendLog

@Suite
struct `CRC-32C` {
    /// The check values of RFC 3720, appendix B.4.
    private static let examples: [(input: [UInt8], crc: UInt32)] = [
        (Array(repeating: 0x00, count: 32), 0x8A91_36AA),
        (Array(repeating: 0xFF, count: 32), 0x62A8_AB43),
        (Array(0..<32), 0x46DD_794E),
        (Array((0..<32).reversed()), 0x113F_DB5C),
        (Array("123456789".utf8), 0xE306_9283),
    ]

    @Test(arguments: examples)
    func `matches the RFC's examples`(example: (input: [UInt8], crc: UInt32)) {
        #expect(example.input.withUnsafeBytes { $0.baseAddress?.crc32c($0.count) } == example.crc)
    }

    @Test func `by table and by instruction is the same for any length, place and start`() {
        var chance = SimulatedDisk.Chance(seed: 1)
        let bytes = (0..<300).map { _ in UInt8.random(in: 0...255, using: &chance) }
        bytes.withUnsafeBytes { all in
            for start in 0..<9 {
                for end in start...all.count {
                    let part = UnsafeRawBufferPointer(rebasing: all[start..<end])
                    let seed = UInt32(end) &* 0x9E37_79B1
                    let table = clinux_crc32c_table(seed, part.baseAddress, part.count)
                    let instruction = clinux_crc32c(seed, part.baseAddress, part.count)
                    #expect(table == instruction, "bytes \(start)..<\(end)")
                }
            }
        }
    }
}

/// The bytes are promised to every later version: these tests hold them as they are on disk.
@Suite
struct `The format` {
    @Test func `of a record is what FileFormat.md draws`() {
        var assembler = GroupAssembler(
            segment: 1,
            after: RecordPosition(segment: 0, offset: 0),
            firstSequence: 1,
            incarnation: 1,
            segmentBytes: 4096,
            newSalt: { 0xAABB_CCDD }
        )
        let position = assembler.append(kind: 7, flags: 9, payloadBytes: 3) {
            $0.copyBytes(from: [1, 2, 3])
        }
        #expect(position == RecordPosition(segment: 1, offset: 1048))
        let bytes = assembler.close(durableUpTo: 0).flatMap { Array($0.buffer.bytes) }
        #expect(bytes.count == 1048 + 32)
        #expect(Array(bytes[0..<8]) == Array("APPLOGSG".utf8))
        #expect(Array(bytes[0..<64]) == Array(bytes[512..<576]))
        #expect(Array(bytes[1024..<1032]) == [0x51, 0x47, 0, 0, 32, 0, 0, 0])
        #expect(
            Array(bytes[1048..<1064])
                == [0x51, 0x52, 7, 9, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
        )
        #expect(Array(bytes[1072...]) == [1, 2, 3, 0, 0, 0, 0, 0])
    }

    @Test func `of a meta page reads back, and any flipped bit is seen`() throws {
        var page = MetaPage()
        page.incarnation = 3
        page.transaction = 12
        page.durableAtLeast = 1 << 40
        page.mark = RecordPosition(segment: 8, offset: 4000)
        page.isClean = true
        let bytes = page.encoded()
        #expect(bytes.count == 4096)
        #expect(try bytes.withBytes { try MetaPage.decode($0, path: "") } == page)
        for bit in 0..<8 * bytes.count {
            var damaged = bytes
            damaged[bit / 8] ^= 1 << (bit % 8)
            let read = try damaged.withUnsafeBytes { try MetaPage.decode($0, path: "") }
            if read != nil { Issue.record("bit \(bit)") }
        }
    }

    /// Found by the fuzzer: compaction read up to such a place.
    @Test(arguments: [1020, 1028] as [UInt32])
    func `of a page or header that names an impossible place is none of ours`(
        offset: UInt32
    ) throws {
        let impossible = RecordPosition(segment: 1, offset: offset)
        var page = MetaPage()
        page.mark = impossible
        #expect(try page.encoded().withBytes { try MetaPage.decode($0, path: "") } == nil)
        let header = SegmentHeader(
            index: 2,
            salt: 1,
            incarnation: 1,
            firstSequence: 1,
            predecessor: impossible
        )
        var area = [UInt8](repeating: 0, count: SegmentHeader.areaBytes)
        try area.withUnsafeMutableBytes { header.encode(to: try #require($0.baseAddress)) }
        #expect(try area.withBytes { try SegmentHeader.decode($0, path: "") } == nil)
    }

    @Test func `of a segment is looked at again where its writer may be at it`() throws {
        let header = SegmentHeader(
            index: 2,
            salt: 1,
            incarnation: 1,
            firstSequence: 1,
            predecessor: RecordPosition(segment: 1, offset: 2048)
        )
        var whole = [UInt8](repeating: 0, count: 2 * SegmentHeader.areaBytes)
        try whole.withUnsafeMutableBytes { header.encode(to: try #require($0.baseAddress)) }
        whole[whole.count - 1] = 1  // a record
        var (half, none) = (whole, whole)
        for index in 0..<SegmentHeader.bytes { half[index] = 0 }
        for index in 0..<SegmentHeader.areaBytes { none[index] = 0 }
        let empty = [UInt8](repeating: 0, count: whole.count)

        /// What is found where these are there one after the other, and the last one stays.
        func start(_ states: [[UInt8]]) throws -> LogFileCheck.SegmentStart? {
            var states = states[...]
            return try LogFileCheck.start(of: "") { _ in
                let bytes = states.count > 1 ? states.removeFirst() : states.first ?? []
                let copy = UnsafeMutableRawBufferPointer.allocate(
                    byteCount: bytes.count,
                    alignment: 8
                )
                copy.copyBytes(from: bytes)
                return LogMapping(UnsafeRawBufferPointer(copy)) { $0.deallocate() }
            }
        }
        let found = try #require(try start([none, half, whole]))
        #expect(found.header == header && found.bad == [])
        let damaged = try #require(try start([none, half]))
        #expect(damaged.header == header && damaged.bad == [0])
        let lost = try #require(try start([none]))
        #expect(lost.header == nil && lost.bad == [0, SegmentHeader.copyOffset])
        let prepared = try #require(try start([empty]))
        #expect(prepared.header == nil && prepared.bad == [])
    }

    /// Found with made-up stores: once the next opening had begun a segment, such a one bounded nothing.
    @Test func `of a segment that no opening has begun is none of ours`() throws {
        var header = SegmentHeader(
            index: 2,
            salt: 1,
            incarnation: 0,
            firstSequence: 1,
            predecessor: RecordPosition(segment: 0, offset: 0)
        )
        var area = [UInt8](repeating: 0, count: SegmentHeader.areaBytes)
        for incarnation in UInt32(0)...1 {
            header.incarnation = incarnation
            try area.withUnsafeMutableBytes { header.encode(to: try #require($0.baseAddress)) }
            let read = try area.withBytes { try SegmentHeader.decode($0, path: "") }
            #expect(read == (incarnation == 0 ? nil : header))
        }
    }

    /// Found with made-up stores: what was appended next got a sequence that is passed over.
    @Test func `of a meta page has durable what went with its segments`() throws {
        var page = MetaPage()
        page.durableAtLeast = 3
        page.firstSequence = 8
        let read = try page.encoded().withBytes { try MetaPage.decode($0, path: "") }
        #expect(read?.durableAtLeast == 7)
    }

    /// Found with made-up stores: a segment that is begun behind such a place can't be read again.
    @Test(
        arguments: [
            (4, RecordPosition(segment: 1, offset: 1028), RecordPosition(segment: 1, offset: 2048)),
            (4, RecordPosition(segment: 1, offset: 1024), RecordPosition(segment: 1, offset: 1020)),
            (4, RecordPosition(segment: 2, offset: 1024), RecordPosition(segment: 1, offset: 2048)),
            (6, RecordPosition(segment: 1, offset: 1024), RecordPosition(segment: 1, offset: 2048)),
        ] as [(UInt64, RecordPosition, RecordPosition)]
    )
    func `of a checkpoint that can't be is none of ours`(
        startSequence: UInt64,
        start: RecordPosition,
        end: RecordPosition
    ) throws {
        var checkpoint = Checkpoint(
            number: 1,
            salt: 1,
            incarnation: 1,
            startSequence: startSequence,
            start: start
        )
        checkpoint.endSequence = 5
        checkpoint.end = end
        var trailer = [UInt8](repeating: 0, count: Checkpoint.trailerBytes)
        try trailer.withUnsafeMutableBytes { bytes in
            let base = try #require(bytes.baseAddress)
            checkpoint.encodeTrailer(to: base, blocks: 0, at: Checkpoint.headerBytes)
            let blocks = checkpoint.readTrailer(
                UnsafeRawBufferPointer(bytes),
                at: Checkpoint.headerBytes
            )
            #expect(blocks == nil)
        }
    }

    @Test func `names segments so that they sort`() {
        #expect(LogFormat.segmentName(7) == "segment-0000000007")
        #expect(LogFormat.segmentIndex("segment-0000000007") == 7)
        #expect(LogFormat.segmentIndex("segment-7") == nil)
        #expect(LogFormat.segmentIndex("segment-00000000x7") == nil)
    }

    @Test func `takes no record for its own at another place or with another salt`() {
        var assembler = GroupAssembler(
            segment: 1,
            after: RecordPosition(segment: 0, offset: 0),
            firstSequence: 1,
            incarnation: 1,
            segmentBytes: 4096,
            newSalt: { 5 }
        )
        _ = assembler.append(kind: 1, flags: 0, payloadBytes: 8) { $0.copyBytes(from: 0..<8) }
        let record = assembler.close(durableUpTo: 0).flatMap { Array($0.buffer.bytes) }[1048...]
        var moved = [UInt8](repeating: 0, count: 2048)
        moved.replaceSubrange(1024..<1024 + record.count, with: record)
        moved.withUnsafeBytes {
            var scan = SegmentScan($0, salt: 5, limit: 2048)
            guard case .damage = scan.next() else {
                Issue.record("a record passed at a place that isn't its own")
                return
            }
        }
    }
}

@Suite
struct `The order of a replay` {
    @Test func `ends before a gap that nothing calls durable`() {
        var order = ReplayOrder(durable: 2)
        #expect(order.record(1, isSound: true) == .deliver)
        #expect(order.record(2, isSound: true) == .deliver)
        #expect(order.record(3, isSound: true) == .deliver)
        #expect(order.record(5, isSound: true) == .stop(lost: nil))
    }

    @Test func `reports a durable record that is bad and reads on`() {
        var order = ReplayOrder(durable: 5)
        #expect(order.record(1, isSound: false) == .lost(1...1))
        #expect(order.record(4, isSound: true) == .deliverAfterLoss(2...3))
        #expect(order.record(4, isSound: true) == .ignore)
        #expect(order.finish() == 5...5)
        #expect(order.next == 6)
    }

    @Test func `takes damage for durable up to the mark, or a place that a header may name`() {
        let mark = RecordPosition(segment: 1, offset: 1104)
        let place = RecordPosition(segment: 1, offset: 1027)
        var order = ReplayOrder(durable: 1, mark: mark)
        #expect(order.durableEnd(of: 100, at: place) == RecordPosition(segment: 1, offset: 1120))
        #expect(order.record(1, isSound: true) == .deliver)
        #expect(order.durableEnd(of: 100, at: place) == mark)
    }

    @Test func `reports the durable part of what is missing at a tear`() {
        var order = ReplayOrder(durable: 2)
        #expect(order.record(1, isSound: true) == .deliver)
        #expect(order.record(4, isSound: true) == .stop(lost: 2...2))
    }
}
