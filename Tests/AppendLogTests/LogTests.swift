// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc
import QTasksProcess
import Testing

@testable import AppendLog

/// The log on the real file system, with its threads.
@Suite(.timeLimit(.minutes(10)))
struct `A log on disk` {
    private let home: TemporaryFolder
    private let directory: String

    init() throws {
        home = try TemporaryFolder()
        directory = home.path
    }

    private func open(
        _ options: LogOptions = LogOptions(),
        onProgress: (@Sendable () -> Void)? = nil
    ) throws -> (log: Log, entries: [Entry]) {
        var entries: [Entry] = []
        let log = try Log.open(at: directory, options: options, onProgress: onProgress) {
            entries.append(Entry($0))
        }
        return (log, entries)
    }

    @Test func `gives back what was appended, over many segments and openings`() throws {
        let options = LogOptions(
            segmentBytes: 64 << 10,
            recordBytesMax: 10_000,
            zeroFillAheadBytes: 16 << 10,
            zeroFillChunkBytes: 4096
        )
        var expected: [[UInt8]] = []
        for round in 0..<3 {
            let (log, entries) = try open(options)
            #expect(entries.map(\.payload) == expected)
            #expect(entries.map(\.sequence) == Array(1..<UInt64(expected.count + 1)))
            #expect(log.incarnation == UInt32(round + 1))
            #expect(log.recovery.wasClean == (round > 0))
            for entry in entries { #expect(try log.read(entry.position) == entry.payload) }
            for number in 0..<200 {
                let bytes = payload(number + round, bytes: number % 17 == 0 ? 9_999 : number)
                let (sequence, position) = try log.append(kind: 1, payload: bytes)
                expected.append(bytes)
                #expect(sequence == UInt64(expected.count))
                #expect(try log.read(position) == bytes, "also before it is written")
                if number % 10 == 0 { log.submit() }
            }
            try log.flush()
            #expect(
                log.watermarks()
                    == Watermarks(written: sequence(expected), durable: sequence(expected))
            )
            try log.close()
        }
    }

    private func sequence(_ all: [[UInt8]]) -> UInt64 {
        UInt64(all.count)
    }

    @Test func `keeps kind and flags, empty payloads, and payloads given in pieces`() throws {
        let (log, _) = try open()
        try log.append(kind: 255, flags: 129, payload: [])
        let pieces: [[UInt8]] = [[1, 2], [], [3]]
        try pieces[0].withUnsafeBytes { first in
            try pieces[2].withUnsafeBytes { last in
                _ = try log.append(
                    kind: 0,
                    pieces: [first, UnsafeRawBufferPointer(start: nil, count: 0), last]
                )
            }
        }
        try log.close()
        var seen: [String] = []
        let again = try Log.open(at: directory) {
            seen.append("\($0.sequence) \($0.kind) \($0.flags) \([UInt8]($0.payload))")
        }
        #expect(seen == ["1 255 129 []", "2 0 0 [1, 2, 3]"])
        try again.close()
    }

    @Test func `survives an end without close`() throws {
        var log: Log? = try open().log
        try log?.append(kind: 1, payload: payload(1))
        try log?.flush()
        log = nil
        let (again, entries) = try open()
        #expect(entries.map(\.payload) == [payload(1)])
        #expect(!again.recovery.wasClean)
        try again.close()
    }

    @Test func `has one writer, and the error says who`() throws {
        let (log, _) = try open()
        let lock = "\(directory)/lock"
        #expect(throws: AppendLogError.locked(path: lock, holder: getpid())) { try open() }
        try log.close()
        try open().log.close()
    }

    @Test func `refuses a payload over the limit and goes on`() throws {
        let (log, _) = try open(LogOptions(recordBytesMax: 10))
        #expect(throws: AppendLogError.payloadTooLarge(bytes: 11, limit: 10)) {
            try log.append(kind: 1, payload: payload(1, bytes: 11))
        }
        #expect(try log.append(kind: 1, payload: payload(1, bytes: 10)).sequence == 1)
        try log.close()
    }

    @Test func `tells its owner when the watermarks moved`() throws {
        let event = eventfd(0, Int32(EFD_CLOEXEC))
        defer { close(event) }
        let (log, _) = try open(onProgress: { eventfd_write(event, 1) })
        try log.append(kind: 1, payload: payload(1))
        log.submit()
        while log.watermarks().durable < 1 {
            var waiting = pollfd(fd: event, events: Int16(POLLIN), revents: 0)
            let isReady = poll(&waiting, 1, 10_000)
            try #require(isReady == 1, "no word in 10 s")
            var count: eventfd_t = 0
            eventfd_read(event, &count)
        }
        try log.close()
    }

    @Test func `is read by others while it is written`() throws {
        let (log, _) = try open(LogOptions(segmentBytes: 8192, recordBytesMax: 2000))
        for number in 0..<50 { try log.append(kind: 3, payload: payload(number, bytes: 500)) }
        try log.flush()
        let reader = try LogReader(directory)
        var seen: [Entry] = []
        let report = reader.forEach { seen.append(Entry($0)) }
        #expect(seen.map(\.payload) == (0..<50).map { payload($0, bytes: 500) })
        #expect(report.records == 50 && report.lastSequence == 50 && !report.isDamaged)
        #expect(!reader.isClean)
        #expect(reader.incarnation == 1)
        for entry in seen {
            #expect(try reader.withPayload(at: entry.position) { [UInt8]($0) } == entry.payload)
        }
        try log.append(kind: 3, payload: payload(50))
        try log.close()
        var count = 0
        let closed = try LogReader(directory)
        closed.forEach { _ in count += 1 }
        #expect(count == 51)
        #expect(closed.isClean)
        #expect(closed.durableAtLeast == 51)
    }

    @Test func `zero-fills its segment ahead of the records`() throws {
        let (log, _) = try open()
        try log.append(kind: 1, payload: payload(1))
        try log.flush()
        try log.close()  // waits for the chunk in hand
        let file = try PosixFiles().open("\(directory)/segment-0000000001", .read)
        defer { PosixFiles().close(file) }
        #expect(try PosixFiles().size(file) <= 2 << 20, "a small store stays small")
    }

    @Test func `refuses a directory whose meta file is another program's`() throws {
        let file = try PosixFiles().open("\(directory)/meta", .create)
        try Array("hello".utf8).withBytes { (bytes) throws(AppendLogError) in
            try PosixFiles().write(file, [bytes], at: 0)
        }
        PosixFiles().close(file)
        #expect(throws: AppendLogError.notAStore(path: "\(directory)/meta")) { try open() }
    }
}
