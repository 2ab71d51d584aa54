// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksProcess
import Testing

@testable import AppendLog

/// What somebody outside makes of a place that he was told of.
@Suite
struct `A record read from outside` {
    private let disk = SimulatedDisk(seed: 5)
    private let log: Log
    private var records: LogRecords { LogRecords(Opened.directory, files: disk) }

    init() throws {
        log = try Opened(disk).log
    }

    /// Appends records of 1000 bytes and lets the log's threads have done all there is to do.
    private func append(_ numbers: Range<Int>) throws -> [(UInt64, RecordPosition)] {
        var places: [(UInt64, RecordPosition)] = []
        for number in numbers {
            places.append(try log.append(kind: 1, payload: payload(number, bytes: 1000)))
        }
        log.submit()
        settle()
        return places
    }

    private func settle() {
        while log.runOneWrite() || log.runOneSync() || log.runOnePreparation() || log.runOneKeep() {
        }
    }

    /// Compacts the oldest segment; everything in it is carried forward.
    private func compact() throws {
        #expect(log.beginCompaction())
        var isOver = false
        while !isOver {
            let step = log.compactNext { view in
                let bytes = [UInt8](view.payload)
                _ = try? log.carry(view, kind: view.kind, payloadBytes: bytes.count) {
                    $0.copyBytes(from: bytes)
                }
            }
            switch step {
            case .record: break
            case .waiting: settle()
            case .finished: isOver = true
            case .damaged: isOver = true
            }
        }
        // the meta pages take turns, and what either names stays
        for _ in 0..<3 {
            settle()
            log.noteIdle()
        }
        settle()
    }

    private func exists(_ segment: UInt32) -> Bool {
        disk.contents(of: segmentPath(segment)) != nil
    }

    @Test func `is mapped and read in part, and checked whole`() throws {
        let (sequence, position) = try append(0..<3)[1]
        let expected = payload(1, bytes: 1000)
        let mapped = try records.map(position, sequence: sequence)
        #expect(mapped.isSound() && [UInt8](mapped.payload) == expected)
        for range in [0..<1000, 0..<1, 300..<301, 500..<1000, 1000..<1000] {
            var target = [UInt8](repeating: 0, count: range.count)
            try target.withUnsafeMutableBytes { target in
                try records.read(
                    position,
                    sequence: sequence,
                    from: range.lowerBound,
                    into: target
                )
            }
            #expect(target == Array(expected[range]))
        }
    }

    @Test func `is not taken for another`() throws {
        let places = try append(0..<3)
        let (sequence, position) = places[1]
        let next = RecordPosition(segment: position.segment, offset: position.offset + 8)
        #expect(throws: AppendLogError.self) { try records.map(position, sequence: sequence + 1) }
        #expect(throws: AppendLogError.self) { try records.map(next, sequence: sequence) }
        let gone = RecordPosition(segment: 99, offset: position.offset)
        #expect(throws: AppendLogError.self) { try records.map(gone, sequence: sequence) }
        // the same place, sequence and bytes in a segment with another salt
        let path = segmentPath(position.segment)
        var bytes = try #require(disk.contents(of: path))
        let other = try Opened(SimulatedDisk(seed: 6)).log.segments[0]
        let header = SegmentHeader(
            index: position.segment,
            salt: other.salt,
            incarnation: 1,
            firstSequence: 1,
            predecessor: RecordPosition(segment: 0, offset: 0)
        )
        bytes.withUnsafeMutableBytes { bytes in
            if let base = bytes.baseAddress { header.encode(to: base) }
        }
        disk.setContents(of: path, to: bytes)
        #expect(throws: AppendLogError.self) { try records.map(position, sequence: sequence) }
    }

    @Test func `that has rotted says so`() throws {
        let (sequence, position) = try append(0..<3)[1]
        let path = segmentPath(position.segment)
        var bytes = try #require(disk.contents(of: path))
        bytes[Int(position.offset) + 500] ^= 1
        disk.setContents(of: path, to: bytes)
        #expect(try !records.map(position, sequence: sequence).isSound())
        var target = [UInt8](repeating: 0, count: 10)
        #expect(throws: AppendLogError.self) {
            try target.withUnsafeMutableBytes {
                try records.read(position, sequence: sequence, from: 0, into: $0)
            }
        }
    }

    @Test func `keeps its segment while that is held, whatever compaction has moved`() throws {
        let (sequence, position) = try append(0..<40)[0]
        log.hold(position.segment)
        log.hold(position.segment)
        try compact()
        #expect(log.segments.first?.index != position.segment, "it is no part of the log any more")
        #expect(exists(position.segment))
        #expect(try records.map(position, sequence: sequence).isSound())
        log.unhold(position.segment)
        settle()
        #expect(exists(position.segment), "somebody else still holds it")
        log.unhold(position.segment)
        settle()
        #expect(!exists(position.segment))
        #expect(throws: AppendLogError.self) { try records.map(position, sequence: sequence) }
    }

    @Test func `goes with its segment where nobody holds it, and stays where it is mapped`() throws
    {
        let (sequence, position) = try append(0..<40)[0]
        let mapped = try records.map(position, sequence: sequence)
        try compact()
        #expect(!exists(position.segment))
        #expect(mapped.isSound())
    }

    @Test func `shows its beginning for little`() throws {
        let places = try append(0..<3)
        let shown = try log.withStart(of: places[2].1, bytes: 20) { ($0, $1, [UInt8]($2)) }
        let (sequence, bytes, start) = try #require(shown)
        #expect(sequence == 3 && bytes == 1000 && start == Array(payload(2, bytes: 1000)[..<20]))
        let (_, unwritten) = try log.append(kind: 1, payload: payload(3, bytes: 1000))
        #expect(try log.withStart(of: unwritten, bytes: 20) { _, _, _ in true } == nil)
    }

    @Test func `is mapped from a real file, wherever in a page it begins`() throws {
        let home = try TemporaryFolder()
        let log = try Log.open(at: home.path, options: .plain) { _ in }
        var places: [(UInt64, RecordPosition)] = []
        for number in 0..<40 {
            places.append(try log.append(kind: 1, payload: payload(number, bytes: 3000 + number)))
        }
        try log.flush()
        let records = LogRecords(home.path)
        #expect(records.canBeOpened)
        #expect(!LogRecords(home.path + "/nowhere").canBeOpened)
        for (number, (sequence, position)) in places.enumerated() {
            let mapped = try records.map(position, sequence: sequence)
            #expect(mapped.isSound())
            #expect([UInt8](mapped.payload) == payload(number, bytes: 3000 + number))
        }
        try log.close()
    }
}
