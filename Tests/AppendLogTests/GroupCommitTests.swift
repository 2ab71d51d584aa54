// Part of QTasks. License: see LICENSE.

import Glibc
import Testing

@testable import AppendLog

/// When the disk is asked for what, step by step.
@Suite
struct `Group commit` {
    private let disk = SimulatedDisk(seed: 1)
    private let log: Log

    init() throws {
        log = try Opened(disk, .plain).log
    }

    @Test func `takes all that came while the writer was busy in one write and one sync`() throws {
        let before = disk.counts
        for number in 0..<10 {
            try log.append(kind: 1, payload: payload(number))
            log.submit()
        }
        #expect(log.watermarks() == Watermarks(written: 0, durable: 0))
        #expect(log.runOneWrite())
        #expect(!log.runOneWrite())
        #expect(log.watermarks() == Watermarks(written: 10, durable: 0))
        try log.append(kind: 1, payload: payload(10))
        log.submit()
        #expect(log.runOneWrite())
        #expect(log.runOneSync())
        #expect(!log.runOneSync())
        #expect(log.watermarks() == Watermarks(written: 11, durable: 11))
        #expect(disk.counts.writes - before.writes == 2)
        #expect(disk.counts.syncs - before.syncs == 1)
        #expect(disk.counts.directorySyncs == before.directorySyncs)
    }

    @Test func `syncs nothing that didn't ask for it, until somebody does`() throws {
        try log.append(kind: 1, payload: payload(1))
        log.submit(sync: false)
        #expect(log.runOneWrite())
        #expect(!log.runOneSync())
        log.submit(sync: true)
        #expect(!log.runOneWrite())
        #expect(log.runOneSync())
        #expect(log.watermarks().durable == 1)
    }

    @Test func `writes the lower bound once after the last commit, and not again`() throws {
        try log.append(kind: 1, payload: payload(1))
        try log.flush()
        log.noteIdle()
        #expect(log.runOneSync())
        log.noteIdle()
        #expect(!log.runOneSync())
        #expect(try LogReader(Opened.directory, files: disk).durableAtLeast == 1)
    }

    @Test func `does nothing at all where nothing was submitted`() {
        log.submit()
        #expect(!log.runOneWrite())
        #expect(!log.runOneSync())
        #expect(!log.runOnePreparation())
    }

    @Test(arguments: ["write", "sync"])
    func `stops for good at a failure`(of call: String) throws {
        try log.append(kind: 1, payload: payload(1))
        try log.flush()
        if call == "write" {
            disk.failWrite(after: 0, errno: EIO)
        } else {
            disk.failSync(after: 0, errno: EIO)
        }
        try log.append(kind: 1, payload: payload(2))
        let name = call == "write" ? "pwrite" : "fdatasync"
        let error = AppendLogError.system(call: name, path: segmentPath(1), errno: EIO)
        #expect(throws: error) { try log.flush() }
        #expect(log.failure == error)
        #expect(log.watermarks().durable == 1)
        #expect(throws: error) { try log.append(kind: 1, payload: payload(3)) }
        log.submit()
        #expect(!log.runOneWrite())
        #expect(!log.runOneSync())
        #expect(throws: error) { try log.close() }
        let again = try Opened(disk)
        #expect(again.entries.first?.payload == payload(1))
        #expect(!again.log.recovery.wasClean)
    }
}

@Suite
struct `Closing a log` {
    /// The page said "closed by its writer" though its predecessor had failed.
    @Test func `that has failed in the background does not mark it closed`() throws {
        let disk = SimulatedDisk(seed: 1)
        let log = try Opened(disk, .plain).log
        try log.append(kind: 1, payload: payload(1))
        try log.flush()
        log.noteIdle()
        disk.failSync(after: 0, errno: EIO)
        #expect(log.runOneSync())
        #expect(log.failure != nil)
        #expect(throws: AppendLogError.self) { try log.close() }
        let again = try Opened(disk, .plain)
        #expect(!again.log.recovery.wasClean)
        #expect(again.entries.count == 1)
    }
}

@Suite
struct `A full disk` {
    @Test func `shows as short of space while what is prepared can still be used`() throws {
        let disk = SimulatedDisk(seed: 1)
        let log = try Opened(disk).log
        while log.runOnePreparation() {}
        #expect(log.hasRoom)
        disk.setCapacity(disk.bytesUsed)
        // Larger records first: they use up what is prepared, and more can't be had.
        while log.hasRoom {
            try log.append(kind: 1, payload: payload(1, bytes: 100))
            try log.flush()
            while log.runOnePreparation() {}
        }
        #expect(log.preparedBytesLeft > 24 + 24 + 8)
        #expect(throws: (any Error).self) {
            try log.append(kind: 1, payload: payload(2, bytes: log.preparedBytesLeft))
        }
        while log.preparedBytesLeft >= 24 + 24 + 8 {
            try log.append(kind: 2, payload: payload(3, bytes: 8))
            try log.flush()
        }
        #expect(throws: (any Error).self) {
            try log.append(kind: 1, payload: payload(4, bytes: 100))
        }
        #expect(log.failure == nil)
        #expect(!log.runOnePreparation())

        log.retrySpace()
        #expect(log.runOnePreparation())
        #expect(!log.hasRoom)
        disk.setCapacity(.max)
        log.retrySpace()
        #expect(log.runOnePreparation())
        #expect(log.hasRoom)
        let last = log.lastSequence
        try log.append(kind: 1, payload: payload(5, bytes: 100))
        try log.close()
        #expect(try Opened(disk).entries.count == Int(last) + 1)
    }
}
