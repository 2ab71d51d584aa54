// Part of QTasks. License: see LICENSE.
//
// A queue's rules and a task's key: what is written down of them, and what a Broker is told.

import AppendLog
import QTasksModel
import QTasksWire
import Testing

@testable import QTasksStorage

@Suite
struct `A queue's rules in the log` {
    var bench = Bench()

    private static func message(
        _ queue: String = "mail",
        _ change: (inout QueueChange) -> Void
    ) -> QueueMessage {
        var message = QueueMessage(queue: queue, change: QueueChange())
        change(&message.change)
        return message
    }

    @Test mutating func `are told once they are on disk, and hold after a restart (P1)`() throws {
        var expected = QueueRules()
        expected.isPaused = true
        expected.keyRate = StartRate(10, perMilliseconds: 60_000, burst: 3)
        bench.propose(
            .queue(
                number: 4,
                Self.message {
                    $0.setPaused(true)
                    $0.setKeyRate(expected.keyRate)
                }
            )
        )
        #expect(try bench.written().isEmpty, "not before it is durable")
        #expect(try bench.synced() == [.queue(4, "mail", .rules(expected))])
        try bench.reopen()
        #expect(try bench.snapshot().first == .queue("mail", expected))
    }

    @Test mutating func `keep what a change doesn't name; the same again writes nothing`() throws {
        bench.propose(.queue(number: 4, Self.message { $0.setConcurrency(7) }))
        bench.propose(.queue(number: 5, Self.message { $0.setPaused(true) }))
        _ = try bench.synced()
        let last = bench.log.last
        bench.propose(.queue(number: 6, Self.message { $0.setPaused(true) }))
        bench.propose(.queue(number: 7, Self.message { _ in }))
        var expected = QueueRules()
        expected.concurrency = 7
        expected.isPaused = true
        #expect(
            try bench.synced()
                == [.queue(6, "mail", .rules(expected)), .queue(7, "mail", .rules(expected))]
        )
        #expect(bench.log.last == last)
    }

    @Test mutating func `are refused where the disk is full, with what helps (P9)`() throws {
        bench.log.refusal = .outOfSpace(bytes: 1, preparedBytesLeft: 0)
        bench.propose(.queue(number: 4, Self.message { $0.setPaused(true) }))
        let told = try bench.synced()
        guard case .queue(4, "mail", .refused(let refusal)) = told.first else {
            Issue.record("\(told)")
            return
        }
        #expect(refusal.code == .storageUnavailable)
        #expect(try bench.snapshot() == [.end])
    }
}

@Suite
struct `A task's key` {
    var bench = Bench()

    private mutating func keyed(_ key: String) throws -> TaskID {
        var task = bench.submission()
        task.key = Array(key.utf8)
        return try bench.addedTask(task)
    }

    private mutating func runs() throws -> [String: [UInt64]] {
        var runs: [String: [UInt64]] = [:]
        for case .queued(let run) in try bench.snapshot() {
            let key = String(decoding: run.key, as: UTF8.self)
            runs[key, default: []] += run.places.map(\.sequence)
        }
        return runs
    }

    @Test mutating func `is told to a Broker with the places of all tasks that have it`() throws {
        for key in ["a", "b", "a"] { _ = try keyed(key) }
        _ = try bench.addedTask()
        #expect(try runs() == ["a": [1, 3], "b": [2], "": [4]])
        try bench.reopen()
        #expect(try runs() == ["a": [1, 3], "b": [2], "": [4]])
    }

    @Test mutating func `is there again after a requeue, and forgotten after a success`() throws {
        let id = try keyed("a")
        bench.cancel(id)
        bench.requeue(id)
        _ = try bench.synced()
        #expect(try runs().keys.sorted() == ["a"])
        let lease = Lease(incarnation: 7, counter: 9)
        bench.lease(id, lease)
        bench.push(id, lease)
        _ = try bench.synced()
        #expect(bench.state.tasks.keys.isEmpty && bench.state.tasks.keys.count == 0)
    }

    @Test mutating func `of no byte, or of more than 255, is refused (P7)`() throws {
        for count in [0, 256] {
            var envelope = WireWriter()
            var task = bench.submission()
            task.key = [1]
            try task.write(to: &envelope)
            // what no client of ours writes
            var bytes = envelope.bytes
            bytes = Self.withKey(of: count, bytes)
            bytes.withUnsafeBytes {
                bench.propose(
                    .add(
                        number: 1,
                        isWatched: false,
                        lease: .none,
                        worker: Bench.worker,
                        envelope: $0
                    )
                )
            }
            #expect(try bench.synced() == [.refused(1, .badOption)], "\(count) bytes")
        }
    }

    /// The envelope of a task whose only option is a key of one byte, with one of another length.
    private static func withKey(of count: Int, _ envelope: [UInt8]) -> [UInt8] {
        let name = Int(envelope[22])
        let before = Envelope.fixedBytes + name
        let key = [UInt8](repeating: 1, count: count)
        let option = [7, UInt8(truncatingIfNeeded: count), UInt8(count >> 8)] + key
        var bytes = envelope[..<before] + option + envelope[(before + 4)...]
        for (offset, value) in [(0, bytes.count), (24, option.count)] {
            for byte in 0..<4 {
                bytes[offset + byte] = UInt8(truncatingIfNeeded: value >> (8 * byte))
            }
        }
        return Array(bytes)
    }
}
