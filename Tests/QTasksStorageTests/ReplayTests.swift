// Part of QTasks. License: see LICENSE.

import AppendLog
import Glibc
import QTasksModel
import QTasksStorage
import QTasksWire
import Testing

/// The same numbers for the same seed.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) {
        state = seed
    }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
        return mixed ^ mixed >> 31
    }
}

/// Random work on a few tasks: every proposal and result, at any state.
struct RandomWork {
    var bench = Bench()
    var random: SeededGenerator
    private(set) var tasks: [TaskSubmission] = []
    private var leases: [Lease] = [Lease(incarnation: 7, counter: 0)]

    init(seed: UInt64) {
        random = SeededGenerator(seed: seed)
    }

    mutating func step() throws {
        bench.now.monotonic += UInt64.random(in: 0..<300_000_000, using: &random)
        // the wall clock steps, back too
        bench.now.wall = Timestamp(
            nanoseconds: bench.now.wall.nanoseconds
                + Int64.random(in: -500_000_000..<900_000_000, using: &random)
        )
        switch Int.random(in: 0..<10, using: &random) {
        case 0, 1: try add()
        case 2, 3, 4: lease()
        case 5, 6: finish()
        case 7: release()
        case 8: tellOfWorker()
        default: Bool.random(using: &random) ? bench.log.write() : bench.log.sync()
        }
        _ = try bench.told()
    }

    private mutating func add() throws {
        if let known = tasks.randomElement(using: &random), Bool.random(using: &random) {
            return try bench.add(known)
        }
        let name = ["a", "b", "c"].randomElement(using: &random) ?? "a"
        var task = bench.submission(name)
        task.queue = Bool.random(using: &random) ? "default" : "other"
        task.priority = Int16.random(in: -2...2, using: &random)
        let levels: [Durability?] = [.written, .interval(milliseconds: 40), nil, nil]
        task.durability = levels.randomElement(using: &random) ?? nil
        if Int.random(in: 0..<4, using: &random) == 0 { task.start = .after(milliseconds: 900) }
        tasks.append(task)
        try bench.add(
            task,
            isWatched: Bool.random(using: &random),
            lease: Bool.random(using: &random) ? newLease() : .none
        )
    }

    private mutating func newLease() -> Lease {
        let lease = Lease(incarnation: 7, counter: UInt32(leases.count))
        leases.append(lease)
        return lease
    }

    /// A task with the lease that it has, mostly.
    private mutating func holding() -> (TaskID, Lease)? {
        guard let task = tasks.randomElement(using: &random) else { return nil }
        guard let number = bench.state.tasks.index.number(of: task.id) else { return nil }
        let held = bench.state.tasks.index[number].lease
        let other = leases.randomElement(using: &random) ?? .none
        return (task.id, Int.random(in: 0..<5, using: &random) == 0 ? other : held)
    }

    private mutating func lease() {
        guard let task = tasks.randomElement(using: &random) else { return }
        bench.lease(task.id, newLease(), synced: Bool.random(using: &random))
    }

    private mutating func finish() {
        guard let (id, lease) = holding() else { return }
        let failure = TaskFailure(type: "E", message: "m", trace: "t")
        let outcomes: [TaskOutcome] = [
            .success(result: [1, 2], contentType: "x/y"), .error(failure), .cancel(reason: "r"),
            .retry(failure, afterMilliseconds: 100, maxAttempts: 3),
            .retry(failure, afterMilliseconds: 0, maxAttempts: 9),
        ]
        bench.push(id, lease, outcomes.randomElement(using: &random) ?? .error(failure))
    }

    private mutating func release() {
        guard let (id, lease) = holding() else { return }
        bench.release(
            id,
            lease,
            Bool.random(using: &random) ? .death : .notHeld,
            isShared: Bool.random(using: &random),
            counts: Bool.random(using: &random)
        )
    }

    private mutating func tellOfWorker() {
        let process = WorkerProcess(
            pid: Int32.random(in: 1...3, using: &random),
            startTime: 4,
            bootID: Bench.bootID
        )
        bench.propose(.worker(id: Bench.worker, process: process))
    }
}

/// A seed from QTASKS_TEST_SEED, else the given one.
func seeds(_ count: UInt64) -> [UInt64] {
    if let text = getenv("QTASKS_TEST_SEED"), let seed = UInt64(String(cString: text)) {
        return [seed]
    }
    return Array(1...count)
}

extension TaskFold {
    /// Every entry as the log has it.
    var entries: [TaskEntry] {
        index.numbers.map { number in
            var entry = index[number]
            entry.flags.remove(.watched)
            return entry
        }
    }
}

@Suite
struct `Replaying the log` {
    @Test(arguments: seeds(40))
    func `gives the state that was live, and the same snapshot (P5)`(seed: UInt64) throws {
        var work = RandomWork(seed: seed)
        for _ in 0..<400 { try work.step() }
        let opened = work.bench.now
        var replayed = StorageState(settings: Bench.settings(), now: opened)
        try work.bench.log.replay(into: &replayed)

        #expect(replayed.tasks.entries == work.bench.state.tasks.entries, "seed \(seed)")
        #expect(replayed.tasks.lanes == work.bench.state.tasks.lanes, "seed \(seed)")
        #expect(replayed.tasks.workers == work.bench.state.tasks.workers, "seed \(seed)")
        #expect(replayed.tasks.latest == work.bench.state.tasks.latest, "seed \(seed)")
        let live = try work.bench.snapshot()
        work.bench.state = replayed
        #expect(try work.bench.snapshot() == live, "seed \(seed)")
        #expect(live.last == .end)
    }

    @Test(arguments: seeds(10))
    func `counts every task once, whatever happens to it`(seed: UInt64) throws {
        var work = RandomWork(seed: seed)
        for _ in 0..<300 { try work.step() }
        work.bench.propose(.count(number: 5))
        guard case .counts(5, let lanes)? = try work.bench.told().last else {
            Issue.record("no counts, seed \(seed)")
            return
        }
        let entries = work.bench.state.tasks.entries
        #expect(
            lanes.reduce(0) { $0 + $1.byStatus.reduce(0, +) } == UInt64(entries.count),
            "seed \(seed)"
        )
        for status in TaskStatus.allCases {
            let counted = lanes.reduce(0) { $0 + $1.byStatus[Int(status.code) - 1] }
            #expect(counted == UInt64(entries.count { $0.status == status }), "seed \(seed)")
        }
    }

    @Test func `after a restart of the host goes by the wall clock`() throws {
        var bench = Bench()
        var task = bench.submission()
        task.start = .after(milliseconds: 10_000)
        try bench.add(task)
        var settings = Bench.settings()
        settings.bootID = TaskID(high: 8, low: 8)
        let opened = Now(
            wall: Timestamp(nanoseconds: bench.now.wall.nanoseconds + 4_000_000_000),
            monotonic: 100
        )
        var replayed = StorageState(settings: settings, now: opened)
        try bench.log.replay(into: &replayed)
        #expect(replayed.tasks.entries[0].due == DueTime(boot: 6_000_000_100))
    }

    @Test(arguments: seeds(10))
    func `gives the same records, read from the log alone (P1)`(seed: UInt64) throws {
        var work = RandomWork(seed: seed)
        for _ in 0..<300 { try work.step() }
        let live = try work.tasks.map { try work.bench.record($0.id) }
        try work.bench.reopen()
        let read = try work.tasks.map { try work.bench.record($0.id) }
        #expect(read == live && read.contains { $0?.outcome != nil }, "seed \(seed)")
        #expect(work.bench.state.counters.unreadable == 0, "seed \(seed)")
    }

    @Test func `reads what has gone out of the newest records from the log`() throws {
        var bench = Bench()
        var tasks: [TaskSubmission] = []
        for index in 0..<1200 {
            var task = bench.submission()
            task.arguments = [UInt8](repeating: UInt8(index % 251), count: 15_000 + index)
            tasks.append(task)
            try bench.add(task)
        }
        for task in tasks { #expect(try bench.record(task.id)?.submission == task) }
    }

    @Test func `passes over what it doesn't know`() throws {
        var state = StorageState(settings: Bench.settings(), now: Bench().now)
        let place = StoredPlace(sequence: 1, position: RecordPosition(segment: 1, offset: 0))
        try [UInt8](repeating: 0, count: 9).withUnsafeBytes {
            try state.replay(kind: 200, payload: $0, at: place)
        }
        #expect(state.tasks.unknownRecords == 1)
    }
}

@Suite
struct `A new session` {
    @Test func `is told each unfinished task, and each worker before its leases (P5)`() throws {
        var bench = Bench()
        let process = WorkerProcess(pid: 5, startTime: 6, bootID: Bench.bootID)
        bench.propose(.worker(id: Bench.worker, process: process))
        let running = try bench.runningTask()
        let queued = try bench.addedTask()
        let items = try bench.snapshot()
        #expect(items.count == 4)
        #expect(items[0] == .worker(id: Bench.worker, process: process))
        guard case .running(let first, running, _, Bench.worker) = items[1],
            case .queued(let second) = items[2]
        else {
            Issue.record("\(items)")
            return
        }
        #expect(first.place == bench.place(of: running))
        #expect(second.places == [bench.place(of: queued)])
        #expect(first.name == "a.task" && first.queue == "default")
        #expect(second.name == "a.task" && second.queue == "default")
    }

    @Test func `hears nothing that an older one asked for`() throws {
        var bench = Bench()
        try bench.add(bench.submission())
        _ = try bench.snapshot()
        #expect(try bench.synced().isEmpty)
    }

    @Test func `passes over what the Broker proposed before it heard of the session`() throws {
        var bench = Bench()
        let task = bench.submission()
        var envelope = WireWriter()
        try task.write(to: &envelope)
        let late = envelope.bytes.withUnsafeBytes { envelope in
            var writer = WireWriter(.propose, number: bench.state.sessionNumber ?? 0)
            Proposal.add(
                number: 1,
                isWatched: false,
                lease: .none,
                worker: Bench.worker,
                envelope: envelope
            ).write(to: &writer)
            return writer.bytes
        }
        _ = try bench.snapshot()
        late.withUnsafeBytes { bench.state.brokerMessage($0, now: bench.now, log: bench.log) }
        #expect(bench.state.tasks.index.count == 0)
        try bench.add(task)
        #expect(bench.state.tasks.index.count == 1)
    }

    @Test func `comes in pieces where there is much to tell`() throws {
        var bench = Bench()
        for _ in 0..<22_000 { try bench.add(bench.submission()) }
        bench.state.brokerSession(incarnation: 7, globalConfigPid: 0)
        let messages = bench.state.flush().toBroker.dropFirst()
        #expect(messages.count == 2)
        #expect(messages.allSatisfy { $0.count < 257 << 10 })
    }
}

@Suite
struct `Malformed input` {
    @Test(arguments: seeds(20))
    func `is dropped and counted, never a crash (P7)`(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        var work = RandomWork(seed: seed)
        for _ in 0..<60 { try work.step() }
        for _ in 0..<400 {
            let bytes = Self.noise(&random)
            bytes.withUnsafeBytes {
                work.bench.state.results($0, now: work.bench.now, log: work.bench.log)
                work.bench.state.brokerMessage($0, now: work.bench.now, log: work.bench.log)
            }
            work.bench.state.decideReleases(now: work.bench.now, log: work.bench.log)
            _ = try work.bench.synced()
        }
        #expect(work.bench.state.counters.malformed > 100, "seed \(seed)")
        let entries = work.bench.state.tasks.entries
        var replayed = StorageState(settings: Bench.settings(), now: work.bench.now)
        try work.bench.log.replay(into: &replayed)
        #expect(replayed.tasks.entries.map(\.status) == entries.map(\.status), "seed \(seed)")
    }

    @Test func `in an add is refused with its number`() throws {
        var bench = Bench()
        var task = bench.submission()
        task.headers = [.init(name: "h", value: "v")]
        var writer = WireWriter()
        try task.write(to: &writer)
        var bytes = writer.bytes
        // the header's name gets no bytes: such a record could be stored, but not written again
        let option = Envelope.fixedBytes + task.name.utf8.count
        bytes[option + 3] = 0
        bytes.withUnsafeBytes {
            bench.propose(
                .add(
                    number: 6,
                    isWatched: false,
                    lease: .none,
                    worker: Bench.worker,
                    envelope: $0
                )
            )
        }
        #expect(try bench.told() == [.refused(6, .badOption)])
    }

    @Test func `in a result leaves the task as it is`() throws {
        var bench = Bench()
        let lease = Lease(incarnation: 7, counter: 1)
        let id = try bench.runningTask(lease)
        var writer = WireWriter(.results)
        writer.worker(Bench.worker)
        let start = writer.reserveU32()
        writer.id(id)
        writer.integer(lease.rawValue)
        writer.integer(Int64(1))
        writer.integer(Int64(2))
        writer.u8(1)
        writer.integer(UInt16(50))
        writer.patch(UInt32(writer.count - start), at: start)
        writer.bytes.withUnsafeBytes { bench.state.results($0, now: bench.now, log: bench.log) }
        #expect(bench.state.counters.malformed == 1)
        #expect(try bench.status(id) == .process)
    }

    /// Random bytes, or a message that begins well.
    private static func noise(_ random: inout SeededGenerator) -> [UInt8] {
        let tail = (0..<Int.random(in: 0..<90, using: &random)).map { _ in
            UInt8.random(in: 0...9, using: &random)
        }
        let command: Command = Bool.random(using: &random) ? .propose : .results
        return Bool.random(using: &random) ? tail : WireWriter(command).bytes + tail
    }
}
