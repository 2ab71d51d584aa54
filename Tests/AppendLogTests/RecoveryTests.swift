// Part of QTasks. License: see LICENSE.

import Glibc
import Testing

@testable import AppendLog

/// What opening makes of a store that was damaged.
@Suite(.timeLimit(.minutes(10)))
struct `Opening a damaged store` {
    private static let count = 6

    /// A store of six records in three groups; `isClosed`: by its writer, otherwise idle and
    /// killed.
    private func store(isClosed: Bool, isIdle: Bool = true) throws -> SimulatedDisk {
        let disk = SimulatedDisk(seed: 3)
        let log = try Opened(disk, .plain).log
        for number in 1...Self.count {
            try log.append(kind: 1, payload: payload(number, bytes: 3 * number))
            if number % 2 == 0 { try log.flush() }
        }
        if isClosed {
            try log.close()
        } else {
            if isIdle { log.noteIdle() }
            while log.runOneSync() {}
            disk.endProcess()
        }
        return disk
    }

    /// Opens twice: what is there the first time must be there the second time as well.
    private func check(
        _ disk: SimulatedDisk,
        lostMax: Int,
        _ what: @autoclosure () -> String
    ) throws {
        var first: [UInt64: [UInt8]]?
        for round in 0..<2 {
            let opened = try Opened(disk, .plain)
            var found: [UInt64: [UInt8]] = [:]
            for entry in opened.entries {
                if entry.payload != payload(Int(entry.sequence), bytes: 3 * Int(entry.sequence)) {
                    Issue.record("\(what()), opening \(round): \(entry) isn't what was appended")
                }
                found[entry.sequence] = entry.payload
            }
            let lost = opened.log.recovery.lost.flatMap { Array($0.sequences) }
            if Set(found.keys).union(lost) != Set(1...UInt64(Self.count)) || lost.count > lostMax
                || found.count + lost.count != Self.count
                || found != first ?? found || opened.log.lastSequence != UInt64(Self.count)
            {
                Issue.record(
                    "\(what()), opening \(round): found \(found.keys.sorted()), lost \(lost)"
                )
            }
            first = found
            disk.endProcess()
        }
    }

    /// Found by the fuzzer: the marked segment was left alone at the first opening, and cut the one before
    /// it short at the second.
    @Test func `whose meta page marks a segment of a later incarnation shows the same twice`()
        throws
    {
        let disk = SimulatedDisk(seed: 3)
        let log = try Opened(disk).log
        for number in 1...400 { try log.append(kind: 1, payload: payload(number)) }
        try log.flush()
        log.noteIdle()
        while log.runOneSync() {}
        let marked = try #require(log.segments.last).index
        disk.endProcess()
        var bytes = try #require(disk.contents(of: segmentPath(marked)))
        try bytes.withUnsafeMutableBytes { bytes in
            let area = try #require(bytes.baseAddress)
            let decoded = try SegmentHeader.decode(UnsafeRawBufferPointer(bytes), path: "")
            var header = try #require(decoded)
            header.incarnation += 1
            header.predecessor.offset -= 8
            header.encode(to: area)
        }
        disk.setContents(of: segmentPath(marked), to: bytes)
        let first = try Opened(disk)
        try #require(first.log.recovery.isDamaged)
        disk.endProcess()
        let second = try Opened(disk)
        #expect(second.entries.map(\.sequence).starts(with: first.entries.map(\.sequence)))
    }

    @Test func `whose meta page marks what was cut off doesn't read that again`() throws {
        let disk = SimulatedDisk(seed: 3)
        let log = try Opened(disk).log
        for number in 1...4 { try log.append(kind: 1, payload: payload(number)) }
        try log.flush()
        let torn = try log.append(kind: 1, payload: payload(5)).position
        try log.append(kind: 1, payload: payload(6))
        log.submit(sync: false)
        while log.runOneWrite() {}
        disk.endProcess()
        var bytes = try #require(disk.contents(of: segmentPath(torn.segment)))
        bytes[Int(torn.offset) + RecordHeader.bytes] ^= 1
        disk.setContents(of: segmentPath(torn.segment), to: bytes)
        let cutting = try Opened(disk)
        #expect(cutting.entries.count == 4)
        try cutting.log.append(kind: 1, payload: payload(50))
        try cutting.log.flush()
        disk.endProcess()

        var page = try MetaPage.newest(of: try #require(disk.contents(of: metaPath)), path: "")
        page.mark = RecordPosition(segment: torn.segment, offset: torn.offset + 2 * 48)
        page.durableAtLeast = 4
        disk.setContents(of: metaPath, to: page.encoded() + page.encoded())
        for round in 1...3 {
            let payloads = try Opened(disk).entries.map(\.payload)
            #expect(payloads == [1, 2, 3, 4, 50].map { payload($0) }, "opening \(round)")
            disk.endProcess()
        }
    }

    @Test(arguments: [true, false])
    func `any flipped bit costs one durable record at most, and it is named`(
        isClosed: Bool
    ) throws {
        let disk = try store(isClosed: isClosed)
        let original = try #require(disk.contents(of: segmentPath(1)))
        let places = Array(0..<64) + Array(512..<576) + Array(1024..<original.count)
        for byte in places {
            for bit in 0..<8 {
                var damaged = original
                damaged[byte] ^= 1 << bit
                let copy = disk.copy()
                copy.setContents(of: segmentPath(1), to: damaged)
                try check(copy, lostMax: 1, "bit \(bit) of byte \(byte)")
            }
        }
    }

    @Test(arguments: [true, false])
    func `any flipped byte of a meta page costs nothing`(isClosed: Bool) throws {
        let disk = try store(isClosed: isClosed, isIdle: false)
        let original = try #require(disk.contents(of: metaPath))
        let inPage = Array(0..<72) + [2000] + Array(4090..<4096)
        for byte in inPage + inPage.map({ $0 + 4096 }) {
            var damaged = original
            damaged[byte] ^= 0x10
            let copy = disk.copy()
            copy.setContents(of: metaPath, to: damaged)
            try check(copy, lostMax: 0, "meta byte \(byte)")
        }
    }

    @Test func `a closed store that was cut anywhere names all that is missing`() throws {
        let disk = try store(isClosed: true)
        let original = try #require(disk.contents(of: segmentPath(1)))
        for length in 0..<original.count {
            let copy = disk.copy()
            copy.setContents(of: segmentPath(1), to: Array(original.prefix(length)))
            try check(copy, lostMax: Self.count, "cut after \(length) bytes")
        }
    }

    @Test func `an unfinished write cut anywhere keeps every record before it`() throws {
        let disk = try store(isClosed: false, isIdle: false)
        let ends = try Opened(disk.copy(), .plain).entries.map(\.payload.count)
        #expect(ends.count == Self.count)
        let original = try #require(disk.contents(of: segmentPath(1)))
        var positions: [Int] = []
        var reader = SegmentScan.Positions(original)
        while let end = reader.next() { positions.append(end) }
        for length in 1024..<original.count {
            let copy = disk.copy()
            copy.setContents(of: segmentPath(1), to: Array(original.prefix(length)))
            let opened = try Opened(copy, .plain)
            let whole = positions.count { $0 <= length }
            if opened.entries.map(\.sequence) != Array(1..<UInt64(whole + 1))
                || !opened.log.recovery.lost.isEmpty
            {
                Issue.record("cut after \(length) bytes: \(opened.entries.map(\.sequence))")
            }
            copy.endProcess()
            // What follows is appended where the tear was, and both are there afterwards.
            let next = try Opened(copy, .plain).log
            #expect(try next.append(kind: 1, payload: [1]).sequence == UInt64(whole + 1))
            try next.close()
            #expect(try Opened(copy, .plain).entries.count == whole + 1)
        }
    }

    @Test func `rot behind an old tear is still told from it`() throws {
        let disk = try store(isClosed: false, isIdle: false)
        var bytes = try #require(disk.contents(of: segmentPath(1)))
        bytes[bytes.count - 1] ^= 1  // the padding: nobody minds
        bytes[bytes.count - 10] ^= 1  // the last payload, in no meta page or group: a tear
        disk.setContents(of: segmentPath(1), to: bytes)
        let opened = try Opened(disk, .plain)
        #expect(opened.entries.count == Self.count - 1)
        #expect(opened.log.recovery.lost.isEmpty)
        for number in 0..<4 {
            try opened.log.append(kind: 1, payload: payload(number))
            try opened.log.flush()
        }
        disk.endProcess()
        let again = try Opened(disk, .plain)
        #expect(again.entries.count == Self.count + 3)
        #expect(again.log.recovery.lost.isEmpty, "the torn bytes aren't read again")
    }

    @Test func `whatever stands behind the end of a closed store is not written over`() throws {
        let disk = try store(isClosed: true)
        let original = try #require(disk.contents(of: segmentPath(1)))
        let group = Array(original[1024..<1048])
        for rest in [[1], [UInt8](repeating: 7, count: 24), group] {
            let copy = disk.copy()
            copy.setContents(of: segmentPath(1), to: original + rest)
            let log = try Opened(copy, .plain).log
            #expect(log.segments.map(\.index) == [1, 2])
            #expect(log.recovery.lost.isEmpty && log.recovery.damaged.isEmpty)
            try log.append(kind: 1, payload: [1])
            try log.close()
            #expect(try Opened(copy, .plain).entries.count == Self.count + 1)
        }
    }

    @Test func `a store of a later version is refused and left alone`() throws {
        let disk = try store(isClosed: true)
        for name in [metaPath, segmentPath(1)] {
            let copy = disk.copy()
            var bytes = try #require(copy.contents(of: name))
            let size = name == metaPath ? 4096 : 64
            let step = name == metaPath ? 4096 : 512
            for start in [0, step] {
                bytes[start + 8] = UInt8(LogFormat.version + 1)
                var page = Array(bytes[start..<start + size])
                page.withUnsafeMutableBytes {
                    guard let base = $0.baseAddress else { return }
                    base.store(UnsafeRawPointer(base).crc32c(size - 4), at: size - 4)
                }
                bytes.replaceSubrange(start..<start + size, with: page)
            }
            copy.setContents(of: name, to: bytes)
            let error = AppendLogError.newerFormat(
                path: name,
                version: LogFormat.version + 1,
                supported: LogFormat.version
            )
            #expect(throws: error) { try Opened(copy, .plain) }
            #expect(throws: error) { try LogReader(Opened.directory, files: copy) }
            let isUnchanged = copy.contents(of: name) == bytes
            #expect(isUnchanged)
        }
    }

    @Test func `without a whole meta page it is refused`() throws {
        let disk = try store(isClosed: true)
        var bytes = try #require(disk.contents(of: metaPath))
        bytes[100] ^= 1
        bytes[4196] ^= 1
        disk.setContents(of: metaPath, to: bytes)
        #expect(throws: AppendLogError.metaUnreadable(path: metaPath)) { try Opened(disk, .plain) }
        try disk.remove(metaPath)
        #expect(throws: AppendLogError.metaUnreadable(path: metaPath)) { try Opened(disk, .plain) }
    }

    @Test func `a rotten record doesn't keep the log from growing`() throws {
        let disk = SimulatedDisk(seed: 1)
        let log = try Opened(disk).log
        for number in 0..<12 { try log.append(kind: 1, payload: payload(number, bytes: 450)) }
        try log.flush()
        while log.runOnePreparation() {}
        #expect(disk.contents(of: segmentPath(2)) != nil, "the next segment is prepared")
        try log.close()
        var bytes = try #require(disk.contents(of: segmentPath(1)))
        bytes[1024 + 24 + 24 + 5] ^= 1
        disk.setContents(of: segmentPath(1), to: bytes)
        for round in 0..<3 {
            let again = try Opened(disk)
            #expect(again.log.recovery.lost.map(\.sequences) == [1...1])
            #expect(again.entries.count == 11 + 20 * round)
            for number in 0..<20 {
                try again.log.append(kind: 1, payload: payload(number, bytes: 450))
                try again.log.flush()
            }
            try again.log.close()
        }
    }

    @Test func `killed again and again while idle it doesn't grow`() throws {
        let disk = try store(isClosed: false)
        for _ in 0..<10 {
            #expect(try Opened(disk, .plain).entries.count == Self.count)
            disk.endProcess()
        }
        let segments = try disk.list(Opened.directory).filter { $0.hasPrefix("segment-") }
        #expect(segments.count <= 2, "\(segments)")
    }
}

/// A disk on which a sync fails: the kernel then calls the pages clean and reads them from its
/// cache.
@Suite
struct `After a failed sync` {
    @Test(arguments: 0..<50)
    func `nothing is acknowledged that is not on disk`(seed: UInt64) throws {
        let disk = SimulatedDisk(seed: seed)
        let log = try Opened(disk).log
        for number in 0..<5 { try log.append(kind: 1, payload: payload(number)) }
        try log.flush()
        for number in 5..<40 { try log.append(kind: 1, payload: payload(number, bytes: 300)) }
        disk.failSync(after: 0, errno: EIO)
        #expect(throws: (any Error).self) { try log.flush() }
        #expect(log.watermarks().durable == 5)
        disk.endProcess()

        // The cache still has all of it, with good checksums.
        let again = try Opened(disk)
        #expect(again.entries.count == 40)
        #expect(again.log.watermarks().durable == 40)
        try again.log.append(kind: 1, payload: payload(40))
        try again.log.flush()
        disk.crash(seed: seed)
        let after = try Opened(disk)
        #expect(after.entries.count == 41, "seed \(seed)")
        #expect(after.log.recovery.lost.isEmpty)
    }
}

extension SegmentScan {
    /// Where each record of a plain store's only segment ends.
    struct Positions {
        private let bytes: [UInt8]
        private var offset = SegmentHeader.areaBytes

        init(_ bytes: [UInt8]) {
            self.bytes = bytes
        }

        mutating func next() -> Int? {
            while offset + 24 <= bytes.count {
                let isGroup = bytes[offset + 1] == 0x47
                let length = bytes[offset + 4..<offset + 8].reversed().reduce(0) {
                    $0 << 8 | Int($1)
                }
                offset += isGroup ? 24 : RecordHeader.bytesOnDisk(payloadBytes: length)
                if !isGroup { return offset }
            }
            return nil
        }
    }
}
