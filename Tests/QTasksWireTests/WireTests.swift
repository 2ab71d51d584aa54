// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire
import Testing

private func submission() -> TaskSubmission {
    var submission = TaskSubmission(name: "größe", arguments: Array("{\"a\":1}".utf8))
    submission.queue = "images"
    submission.priority = -7
    submission.contentType = "application/cbor"
    submission.maxAttempts = 3
    submission.maxDeliveries = 2
    submission.timeLimitMilliseconds = 1500
    submission.start = .after(milliseconds: 250)
    submission.expires = Timestamp(nanoseconds: 1_700_000_000_000_000_000)
    submission.key = [1, 2, 3]
    submission.parent = TaskID()
    submission.headers = [.init(name: "traceparent", value: "00-ab"), .init(name: "x", value: "")]
    submission.durability = .written
    submission.retentionSeconds = 3600
    return submission
}

@Suite
struct `An envelope` {
    @Test func `carries every field of an add`() throws {
        let submission = submission()
        var writer = WireWriter()
        try submission.write(to: &writer)
        let read = try writer.bytes.withUnsafeBytes { try TaskSubmission(Envelope($0)) }
        #expect(read == submission)
    }

    @Test func `of a plain task is the fixed part, the name and the arguments`() throws {
        let task = TaskSubmission(name: "work", arguments: Array("{}".utf8))
        var writer = WireWriter()
        try task.write(to: &writer)
        #expect(writer.count == 32 + 4 + 2)
        #expect(try writer.bytes.withUnsafeBytes { try TaskSubmission(Envelope($0)) } == task)
    }

    @Test func `has an interval's milliseconds behind its code, and one byte for other levels`()
        throws
    {
        let option: [UInt8: Durability] = [
            0: .synced, 1: .written, 2: .interval(milliseconds: 0x0102),
        ]
        for (code, durability) in option {
            var task = TaskSubmission(name: "w", arguments: [])
            task.durability = durability
            var writer = WireWriter()
            try task.write(to: &writer)
            let value: [UInt8] = code == 2 ? [5, 0, 2, 0x02, 0x01, 0, 0] : [1, 0, code]
            #expect(Array(writer.bytes[33...]) == [11] + value)
            #expect(try writer.bytes.withUnsafeBytes { try TaskSubmission(Envelope($0)) } == task)
        }
    }

    @Test(arguments: [
        [11, 1, 0, 2], [11, 1, 0, 3], [11, 5, 0, 1, 1, 0, 0, 0], [11, 5, 0, 2, 0, 0, 0, 0],
        [11, 5, 0, 2, 0x81, 0xEE, 0x36, 0],
    ])
    func `with a durability that can't be is refused`(option: [UInt8]) {
        #expect(throws: WireError.self) {
            try option.withUnsafeBytes { _ = try EnvelopeOptions($0) }
        }
    }

    @Test func `of options that can't be is never written`() throws {
        var short = TaskSubmission(name: "w", arguments: [])
        short.retentionSeconds = 599
        var never = TaskSubmission(name: "w", arguments: [])
        never.durability = .interval(milliseconds: 0)
        for (task, word) in [(short, "599"), (never, "interval:0")] {
            var writer = WireWriter()
            let error = #expect(throws: QTasksError.self) { try task.write(to: &writer) }
            #expect(error?.code == .badOption && error?.message.contains(word) == true)
            #expect(writer.count == 0)
        }
    }

    @Test func `cut off anywhere is refused`() throws {
        var writer = WireWriter()
        try submission().write(to: &writer)
        for count in 0..<writer.count {
            #expect(throws: WireError.self, "cut after \(count) bytes") {
                _ = try Array(writer.bytes.prefix(count)).withUnsafeBytes {
                    try TaskSubmission(Envelope($0))
                }
            }
        }
    }

    @Test func `with any bit flipped is another task or refused, never a crash`() throws {
        var writer = WireWriter()
        try submission().write(to: &writer)
        for index in 0..<writer.count {
            for bit in 0..<8 {
                var bytes = writer.bytes
                bytes[index] ^= 1 << UInt8(bit)
                _ = try? bytes.withUnsafeBytes { try TaskSubmission(Envelope($0)) }
            }
        }
    }

    @Test func `passes over options of a later version unless they matter`() throws {
        func read(tag: UInt8) throws {
            var options = WireWriter()
            options.u8(tag)
            options.integer(UInt16(1))
            options.u8(9)
            _ = try options.bytes.withUnsafeBytes { try EnvelopeOptions($0) }
        }
        try read(tag: 200)
        #expect(throws: WireError.self) { try read(tag: 100) }
    }

    @Test func `does not take a bad name`() {
        var writer = WireWriter()
        #expect(throws: QTasksError.self) {
            try TaskSubmission(name: "a\u{0}", arguments: []).write(to: &writer)
        }
        #expect(writer.count == 0)
    }

    @Test func `keeps a moment to the millisecond, and never an earlier one`() throws {
        for (asked, kept) in [(5_000_000, 5), (5_000_001, 6), (5_999_999, 6), (-1, 0)]
            as [(Int64, Int64)]
        {
            var submission = TaskSubmission(name: "a.task", arguments: [])
            submission.start = .at(Timestamp(nanoseconds: asked))
            var writer = WireWriter()
            try submission.write(to: &writer)
            let read = try writer.bytes.withUnsafeBytes { try TaskSubmission(try Envelope($0)) }
            #expect(read.start == .at(Timestamp(nanoseconds: kept * 1_000_000)))
        }
    }
}

@Suite
struct `Messages` {
    @Test func `of another protocol, version or command are told apart`() throws {
        func refusal(_ bytes: [UInt8]) -> MessageHeader.Refusal? {
            bytes.withUnsafeBytes { bytes in
                var reader = WireReader(bytes)
                do throws(MessageHeader.Refusal) {
                    _ = try MessageHeader.read(from: &reader)
                    return nil
                } catch {
                    return error
                }
            }
        }
        let number: [UInt8] = [7, 0, 0, 0, 0, 0, 0, 0]
        #expect(refusal(Array("QT".utf8) + [1, 4] + number) == nil)
        #expect(refusal(Array("XY".utf8) + [1, 4] + number) == .malformed)
        #expect(refusal(Array("QT".utf8)) == .malformed)
        #expect(
            refusal(Array("QT".utf8) + [2, 4] + number) == .unsupportedVersion(2, number: 7)
        )
        #expect(refusal(Array("QT".utf8) + [1, 0xEE] + number) == .unknownCommand(0xEE, number: 7))
    }

    @Test(arguments: [
        TaskOutcome.success(result: [1, 2], contentType: nil),
        .success(result: [], contentType: "text/plain"),
        .error(TaskFailure(type: "E", message: "m", trace: "t")),
        .cancel(reason: "enough"),
        .retry(TaskFailure(type: "E", message: "m"), afterMilliseconds: 5, maxAttempts: 9),
    ])
    func `a result says how an attempt ended`(outcome: TaskOutcome) throws {
        let entry = ResultEntry(
            id: TaskID(),
            lease: Lease(incarnation: 3, counter: 4),
            startedAt: Timestamp(nanoseconds: 5),
            finishedAt: Timestamp(nanoseconds: 6),
            outcome: outcome
        )
        var writer = WireWriter()
        entry.write(to: &writer)
        try writer.bytes.withUnsafeBytes { (bytes: UnsafeRawBufferPointer) throws in
            var reader = WireReader(bytes)
            #expect(try ResultEntry(from: &reader) == entry)
            #expect(reader.isAtEnd)
        }
    }

    @Test func `a record tells all that is known of a task`() throws {
        var record = TaskRecord(
            submission: submission(),
            sequence: 9,
            status: .error,
            attempt: 2,
            failures: 2,
            deaths: 1,
            epoch: 1,
            lease: Lease(incarnation: 1, counter: 2),
            worker: WorkerID(),
            addedAt: Timestamp(nanoseconds: 1),
            notBefore: nil,
            startedAt: Timestamp(nanoseconds: 2),
            finishedAt: Timestamp(nanoseconds: 3),
            outcome: .error(TaskFailure(type: "E", message: "m"))
        )
        record.isUnroutable = true
        var writer = WireWriter()
        record.write(to: &writer)
        try writer.bytes.withUnsafeBytes { (bytes: UnsafeRawBufferPointer) throws in
            var reader = WireReader(bytes)
            #expect(try TaskRecord(from: &reader) == record)
        }
        #expect(JSONCheck.isValid(record.json))
    }

    @Test func `a hello carries a worker's whole state`() throws {
        let hello = Hello(
            worker: WorkerID(),
            process: WorkerProcess(pid: 5, startTime: 6, bootID: TaskID()),
            parentPid: 4,
            slots: 10,
            window: 12,
            names: ["a", "größe"],
            running: [Holding(id: TaskID(), lease: Lease(rawValue: 1))],
            done: [Holding(id: TaskID(), lease: Lease(rawValue: 2))],
            sendsHeartbeats: true
        )
        try hello.encoded().withUnsafeBytes { (bytes: UnsafeRawBufferPointer) throws in
            var reader = WireReader(bytes)
            #expect(try MessageHeader.read(from: &reader).command == .hello)
            #expect(try Hello(from: &reader) == hello)
        }
    }
}

@Suite
struct `A snapshot` {
    private static let placement = Placement(
        place: QueuedPlace(sequence: 1 << 40, handle: 7),
        priority: -2,
        isSuspect: true,
        name: "größe",
        queue: "images"
    )

    private static let run = QueuedRun(
        priority: 3,
        isSuspect: false,
        name: "work",
        queue: "default",
        places: (1...1000).map { QueuedPlace(sequence: $0 * 3, handle: UInt32($0)) }
    )

    @Test(
        arguments: [
            .queued(run), .scheduled(placement, due: DueTime(boot: 9)),
            .scheduled(placement, due: DueTime(wall: Timestamp(nanoseconds: 9))),
            .running(
                placement,
                id: TaskID(),
                lease: Lease(incarnation: 1, counter: 2),
                worker: WorkerID()
            ),
            .end,
        ] as [SnapshotItem]
    )
    func `is read as it was written`(item: SnapshotItem) throws {
        var writer = WireWriter()
        item.write(to: &writer)
        try writer.bytes.withUnsafeBytes { bytes in
            var reader = WireReader(bytes)
            let read = try SnapshotItem(from: &reader)
            #expect(read == item && reader.isAtEnd)
        }
    }

    @Test func `takes 12 bytes for a queued task`() {
        var writer = WireWriter()
        Self.run.write(to: &writer)
        #expect(writer.count == 1000 * 12 + 20)
    }
}
