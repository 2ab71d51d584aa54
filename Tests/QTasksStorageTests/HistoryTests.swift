// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksModel
import QTasksWire
import Testing

@testable import AppendLog
@testable import QTasksStorage

@Suite
struct `Where history begins` {
    private static let second: UInt64 = 1_000_000_000
    private static let segmentBytes = 1000

    /// A checkpoint at a second, and so many bytes into the log.
    private static func checkpoint(
        _ number: UInt32,
        second at: UInt64,
        byte: Int,
        bytes: Int = 0
    ) -> CheckpointInfo {
        var checkpoint = Checkpoint(
            number: number,
            salt: 1,
            incarnation: 1,
            startSequence: UInt64(byte),
            start: RecordPosition(
                segment: UInt32(byte / segmentBytes) + 1,
                offset: UInt32(byte % segmentBytes)
            )
        )
        checkpoint.stamp = at * second
        checkpoint.bytes = bytes
        return CheckpointInfo(checkpoint)
    }

    /// With a log that has so many bytes by now.
    private static func base(
        _ window: HistoryWindow,
        _ checkpoints: [CheckpointInfo],
        second now: UInt64,
        bytes: Int
    ) -> HistoryBase {
        HistoryBase(window, checkpoints: checkpoints, now: now * second) { position in
            bytes - (Int(position.segment) - 1) * segmentBytes - Int(position.offset)
        }
    }

    private static func window(_ seconds: UInt64, _ bytes: UInt64) -> HistoryWindow {
        HistoryWindow(seconds: seconds, bytes: bytes) ?? .none
    }

    private let three = [
        Self.checkpoint(1, second: 100, byte: 500),
        Self.checkpoint(2, second: 200, byte: 2500),
        Self.checkpoint(3, second: 300, byte: 4500),
    ]

    @Test func `nowhere without a window: the newest checkpoint alone is needed`() {
        let base = Self.base(.none, three, second: 300, bytes: 5000)
        #expect(base.firstSegment == .max && base.obsolete == [1, 2])
        #expect(Self.base(.none, [], second: 300, bytes: 5000).obsolete.isEmpty)
    }

    @Test func `at the log's beginning while no checkpoint is as old as the window`() {
        let base = Self.base(Self.window(1000, 10_000), three, second: 1000, bytes: 5000)
        #expect(base.firstSegment == 0 && base.obsolete == [])
        #expect(Self.base(Self.window(1, 1), [], second: 9, bytes: 9).firstSegment == 0)
    }

    @Test func `at the newest checkpoint that is as old as the window`() {
        let window = Self.window(100, 1_000_000)
        #expect(Self.base(window, three, second: 299, bytes: 5000).firstSegment == 1)
        let base = Self.base(window, three, second: 300, bytes: 5000)
        #expect(base.firstSegment == 3 && base.obsolete == [1])
        #expect(Self.base(window, three, second: 400, bytes: 5000).firstSegment == 5)
    }

    @Test func `at the newest checkpoint with as many bytes behind it, if that comes later`() {
        let window = Self.window(1_000_000, 2000)
        #expect(Self.base(window, three, second: 300, bytes: 4499).firstSegment == 1)
        let base = Self.base(window, three, second: 300, bytes: 4500)
        #expect(base.firstSegment == 3 && base.obsolete == [1])
    }

    @Test func `in steps of an eighth: checkpoints between are not kept`() {
        let close = (0...20).map {
            Self.checkpoint(UInt32($0) + 1, second: UInt64($0), byte: $0 * 10)
        }
        let base = Self.base(Self.window(80, 1_000_000), close, second: 20, bytes: 300)
        // the first, each tenth second's, and the newest
        #expect(base.firstSegment == 0)
        #expect(Set(close.map(\.number)).subtracting(base.obsolete) == [1, 11, 21])
    }

    @Test func `in larger steps where checkpoints are large`() {
        let large = (0...4).map {
            Self.checkpoint(UInt32($0) + 1, second: UInt64($0), byte: $0 * 1000, bytes: 900)
        }
        let base = Self.base(Self.window(1_000_000, 8000), large, second: 4, bytes: 5000)
        #expect(Set(large.map(\.number)).subtracting(base.obsolete) == [1, 3, 5])
    }

    @Test(arguments: seeds(200))
    func `stays where it was when what is obsolete is gone`(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        var (at, byte): (UInt64, Int) = (0, 0)
        let checkpoints = (1...UInt32.random(in: 1...40, using: &random)).map { number in
            at += UInt64.random(in: 0...50, using: &random)
            byte += Int.random(in: 0...3000, using: &random)
            let bytes = Int.random(in: 0...2000, using: &random)
            return Self.checkpoint(number, second: at, byte: byte, bytes: bytes)
        }
        let window = Self.window(
            UInt64.random(in: 1...2000, using: &random),
            UInt64.random(in: 1...50_000, using: &random)
        )
        at += UInt64.random(in: 0...50, using: &random)
        byte += Int.random(in: 0...3000, using: &random)
        let base = Self.base(window, checkpoints, second: at, bytes: byte)
        let left = checkpoints.filter { !base.obsolete.contains($0.number) }
        #expect(left.last == checkpoints.last, "seed \(seed)")
        let again = Self.base(window, left, second: at, bytes: byte)
        #expect(again.firstSegment == base.firstSegment, "seed \(seed)")
        #expect(again.obsolete.isEmpty, "seed \(seed)")
        // it is never younger than the window
        guard base.firstSegment > 0, let first = left.first else { return }
        let isOld = at >= window.seconds && first.stamp <= (at - window.seconds) * Self.second
        let isFar = byte - Int(first.startSequence) >= Int(window.bytes)
        #expect(first.start.segment == base.firstSegment && (isOld || isFar), "seed \(seed)")
    }
}

@Suite
struct `A store through which tasks pass` {
    /// Tasks that come, run and end, a few at a time.
    private struct Passing {
        let store: KeptStore
        private var generator = TaskIDGenerator(seed: (1, 2))
        private var leases: UInt32 = 0
        private(set) var refused = 0

        init(_ plan: KeptStore.Plan) throws {
            store = KeptStore(seed: 1, plan)
            try store.open()
        }

        private mutating func leased(
            _ name: String,
            bytes: Int,
            _ change: (inout TaskSubmission) -> Void = { _ in }
        ) throws -> (TaskID, Lease)? {
            leases += 1
            let lease = Lease(incarnation: 1, counter: leases)
            var task = TaskSubmission(
                id: generator.next(milliseconds: UInt64(leases)),
                name: name,
                arguments: [UInt8](repeating: 5, count: bytes)
            )
            change(&task)
            try store.add(task, first: (lease, Bench.worker))
            guard store.state.tasks.index.number(of: task.id) != nil else {
                refused += 1
                return nil
            }
            return (task.id, lease)
        }

        /// Tasks that have killed their workers.
        mutating func bury(_ count: Int) throws {
            for _ in 0..<count {
                guard let (id, lease) = try leased("deadly", bytes: 100, { $0.maxDeliveries = 1 })
                else { continue }
                store.propose(
                    .release(
                        number: 3,
                        holding: Holding(id: id, lease: lease),
                        cause: .death,
                        isShared: false,
                        counts: true
                    )
                )
                try store.turn(jobs: 0, keeps: false)
            }
        }

        /// Tasks that succeed; then so much time passes.
        mutating func pass(_ count: Int, bytes: Int, seconds: Int64) throws {
            for _ in 0..<count {
                if let (id, lease) = try leased("quick", bytes: bytes) {
                    let outcome = TaskOutcome.success(result: [1], contentType: nil)
                    store.push(id, lease, outcome, from: Bench.worker)
                }
                try store.turn(jobs: 8, looks: 4)
            }
            store.pass(seconds * 1_000_000_000)
            try store.settle()
        }
    }

    private static func plan(
        _ history: HistoryWindow,
        segmentBytes: Int = 32 << 10
    ) -> KeptStore.Plan {
        var plan = KeptStore.Plan()
        plan.options = LogOptions(
            segmentBytes: segmentBytes,
            recordBytesMax: 8 << 10,
            zeroFillAheadBytes: segmentBytes / 4,
            zeroFillChunkBytes: segmentBytes / 8
        )
        plan.keeping.history = history
        plan.keeping.checkpointBytes = segmentBytes
        plan.config.retention.standard = Retention(seconds: 600) ?? .standard
        return plan
    }

    @Test func `takes no more room than they do, whatever is buried under them`() throws {
        let plan = Self.plan(.none, segmentBytes: 256 << 10)
        var tasks = try Passing(plan)
        try tasks.bury(400)
        for _ in 0..<50 {
            try tasks.pass(60, bytes: 700, seconds: 300)
            let log = try #require(tasks.store.log?.kept)
            let alive = log.segments.reduce(0) { $0 + tasks.store.state.tasks.usage[$1.index] }
            let most = alive + 3 * plan.options.segmentBytes
            #expect(log.bytesUsed <= most, "\(log.bytesUsed) bytes, of which \(alive) are alive")
        }
        #expect(tasks.store.model.tasks.values.count { $0.status == .dead } == 400)
        #expect(tasks.store.model.expiries > 2500)
        try tasks.store.compareLive()
        try tasks.store.compareCopy(withoutCheckpoints: true)
    }

    @Test(arguments: [(20_000, 96 << 10), (3600, 1 << 30)] as [(UInt64, UInt64)])
    func `keeps what the window has, and little more`(seconds: UInt64, bytes: UInt64) throws {
        let window = try #require(HistoryWindow(seconds: seconds, bytes: bytes))
        let plan = Self.plan(window)
        var tasks = try Passing(plan)
        var compacted = false
        for _ in 0..<40 {
            try tasks.pass(50, bytes: 300, seconds: 300)
            let log = try #require(tasks.store.log?.kept)
            let first = try #require(log.segments.first).index
            guard first > 1 else { continue }
            compacted = true
            let now = UInt64(tasks.store.state.tasks.latest.nanoseconds)
            let reaches = log.checkpoints.contains { checkpoint in
                checkpoint.start.segment >= first
                    && (checkpoint.stamp + seconds * 1_000_000_000 <= now
                        || log.bytes(since: checkpoint.start) >= Int(bytes))
            }
            #expect(reaches, "history is shorter than \(window)")
        }
        #expect(compacted)
        try tasks.store.compareCopy(withoutCheckpoints: true)
    }

    @Test func `gives up its history before it refuses a task`() throws {
        let window = try #require(HistoryWindow(seconds: 1 << 30, bytes: 1 << 40))
        var plan = Self.plan(window, segmentBytes: 128 << 10)
        plan.options.quotaBytes = 4 << 20
        var tasks = try Passing(plan)
        for _ in 0..<40 {
            try tasks.pass(40, bytes: 6000, seconds: 700)
            let log = try #require(tasks.store.log?.kept)
            #expect(log.bytesUsed <= 4 << 20)
        }
        let log = try #require(tasks.store.log?.kept)
        #expect(tasks.refused == 0)
        #expect(log.hasRoom)
        #expect(try #require(log.segments.first).index > 20)
        try tasks.store.compareLive()
        try tasks.store.compareCopy(withoutCheckpoints: true)
    }
}
