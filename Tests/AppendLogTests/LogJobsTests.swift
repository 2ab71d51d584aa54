// Part of QTasks. License: see LICENSE.

import Testing

@testable import AppendLog

/// The interleavings of the three threads, forced one by one.
@Suite
struct `The log's jobs` {
    private var assembler: GroupAssembler
    private var jobs: LogJobs

    init() {
        let options = LogOptions.small
        assembler = GroupAssembler(
            continuing: RecordPosition(segment: 1, offset: 1024),
            salt: 1,
            nextSequence: 1,
            incarnation: 1,
            segmentBytes: options.segmentBytes,
            newSalt: { 2 }
        )
        jobs = LogJobs(
            meta: MetaPage(),
            end: assembler.end,
            handle: LogFileHandle(rawValue: 1),
            filledEnd: 1024,
            options: options
        )
    }

    private mutating func submit(bytes: Int = 100) {
        _ = assembler.append(kind: 1, flags: 0, payloadBytes: bytes) { _ in }
        let last = assembler.nextSequence - 1
        jobs.submit(assembler.close(durableUpTo: 0), end: assembler.end, last: last, sync: true)
    }

    private mutating func write() throws {
        let next = jobs.nextWrite()
        let job = try #require(next)
        jobs.wrote(job, with: job.handle ?? LogFileHandle(rawValue: Int32(job.segment)))
    }

    @Test mutating func `what is written during a sync isn't durable by it`() throws {
        submit()
        try write()
        let next = jobs.nextSync()
        let sync = try #require(next)
        submit()
        try write()
        #expect(!jobs.canSync, "one at a time")
        _ = jobs.synced(sync)
        #expect(jobs.marks == Watermarks(written: 2, durable: 1))
        let last = jobs.nextSync()
        _ = jobs.synced(try #require(last))
        #expect(jobs.marks == Watermarks(written: 2, durable: 2))
    }

    @Test mutating func `a write waits where zeros are on their way to its place`() throws {
        submit(bytes: 8)
        try write()
        let preparation = jobs.nextPreparation()
        let filling = try #require(preparation)
        #expect(filling.from == 1024 + 24 + 32)
        submit(bytes: 8)
        #expect(!jobs.canWrite)
        jobs.prepared(filling)
        try write()
        #expect(jobs.filledEnd(of: 1) == filling.to, "it fits into what is filled")
        if let next = jobs.nextPreparation() { #expect(next.from == filling.to) }
    }

    @Test mutating func `zeros begin behind a write that is on its way`() throws {
        submit(bytes: 2000)
        let next = jobs.nextWrite()
        let job = try #require(next)
        let preparation = jobs.nextPreparation()
        let filling = try #require(preparation)
        #expect(filling.from == job.end)
    }

    @Test mutating func `a new segment's name is synced with its first record`() throws {
        for _ in 0..<4 { submit(bytes: 2000) }
        try write()
        try write()
        guard case .data(let files, let syncsDirectory, let upTo, _) = jobs.nextSync() else {
            Issue.record("there is data to sync")
            return
        }
        #expect(files.map(\.rawValue) == [1, 2])
        #expect(syncsDirectory)
        #expect(upTo == 4)
    }

    @Test mutating func `a complete segment is let go of, and the meta page told`() throws {
        for _ in 0..<4 { submit(bytes: 2000) }
        try write()
        try write()
        let sync = jobs.nextSync()
        let complete = jobs.synced(try #require(sync))
        #expect(complete.map(\.rawValue) == [1])
        guard case .meta(let page) = jobs.nextSync() else {
            Issue.record("a meta page is due")
            return
        }
        #expect(page.durableAtLeast == 4)
        #expect(page.mark == assembler.end)
        #expect(!page.isClean)
    }

    @Test mutating func `after a failure there are no more`() {
        submit()
        jobs.fail(.notAStore(path: ""))
        submit()
        #expect(!jobs.canWrite)
        #expect(!jobs.canSync)
        #expect(!jobs.canPrepare)
        #expect(jobs.failure == .notAStore(path: ""))
    }
}
