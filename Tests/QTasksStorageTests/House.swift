// Part of QTasks. License: see LICENSE.

import AppendLog
import QTasksModel
import QTasksWire

@testable import QTasksStorage

/// The log, with what housekeeping writes into it counted.
final class CountedLog: OverheardLog {
    let kept: Log
    private(set) var carried = 0
    private(set) var appended: [StoredKind: Int] = [:]

    init(_ log: Log) {
        kept = log
    }

    func append(
        kind: StoredKind,
        head: [UInt8],
        body: UnsafeRawBufferPointer
    ) throws(AppendLogError) -> StoredPlace {
        let place = try kept.append(kind: kind, head: head, body: body)
        appended[kind, default: 0] += 1
        return place
    }

    func carry(
        _ view: borrowing RecordView,
        kind: UInt8,
        flags: UInt8,
        payloadBytes: Int,
        fill: (UnsafeMutableRawBufferPointer) -> Void
    ) throws(AppendLogError) -> RecordPosition {
        let position = try kept.carry(
            view,
            kind: kind,
            flags: flags,
            payloadBytes: payloadBytes,
            fill: fill
        )
        carried += 1
        return position
    }
}

/// A store on a simulated disk and its keeper, one step at a time: nobody works for the log unless told to.
final class House {
    private(set) var disk = SimulatedDisk(seed: 5)
    private let open: (SimulatedDisk) throws -> OpenedStore
    private(set) var log: CountedLog
    var state: StorageState
    private(set) var keeper: StorageKeeper
    private(set) var now = Now(
        wall: Timestamp(nanoseconds: 1_700_000_000_000_000_000),
        monotonic: 5_000_000_000
    )
    /// What the Broker was told about compactions.
    private(set) var compactions: [Told] = []
    private var generator = TaskIDGenerator(seed: (21, 22))
    private var leases: UInt32 = 0
    private var workers: Int32 = 0

    /// - Parameters:
    ///   - keeping: What the keeper goes by.
    ///   - quota: What all files may take up, in bytes.
    ///   - zeroFillAhead: How far the log takes room ahead, in bytes; without, a full disk is its end.
    /// - Throws: Where the store can't be opened.
    init(
        _ keeping: StorageKeeper.Settings = StorageKeeper.Settings(history: .none),
        quota: Int? = nil,
        zeroFillAhead: Int = 0
    ) throws {
        var config = QueueConfig()
        config.retention.standard = Retention(seconds: 600, failureSeconds: 600) ?? .standard
        var options = LogOptions(
            segmentBytes: 12 << 10,
            recordBytesMax: 6 << 10,
            zeroFillAheadBytes: zeroFillAhead,
            zeroFillChunkBytes: 4 << 10
        )
        options.quotaBytes = quota
        let (opening, start) = (options, now)
        open = { disk in
            try OpenedStore(
                Bench.settings(config),
                options: opening,
                keeping: keeping,
                now: start,
                files: disk,
                driver: .manual
            )
        }
        let store = try open(disk)
        log = CountedLog(store.log)
        (state, keeper) = (store.state, store.keeper)
        meetBroker()
    }

    /// Storage is killed and starts again; what it had written is there.
    func reopen() throws {
        try commit()
        disk = disk.copy()
        let store = try open(disk)
        log = CountedLog(store.log)
        (state, keeper) = (store.state, store.keeper)
        meetBroker()
    }

    private func meetBroker() {
        state.brokerSession(incarnation: log.incarnation, globalConfigPid: 0)
        _ = state.flush()
    }

    func pass(_ seconds: UInt64) {
        now.monotonic += seconds * 1_000_000_000
        now.wall = Timestamp(nanoseconds: now.wall.nanoseconds + Int64(seconds) * 1_000_000_000)
    }

    // MARK: Tasks

    @discardableResult
    func add(_ count: Int, bytes: Int = 100) throws -> [TaskID] {
        try (0..<count).map { _ in
            let task = TaskSubmission(
                id: generator.next(milliseconds: 1_000),
                name: "a",
                arguments: Array(repeating: 0x20, count: bytes)
            )
            var writer = WireWriter()
            try task.write(to: &writer)
            leases += 1
            let lease = Lease(incarnation: log.incarnation, counter: leases)
            writer.bytes.withUnsafeBytes {
                propose(
                    .add(
                        number: 1,
                        isWatched: false,
                        lease: lease,
                        worker: Bench.worker,
                        envelope: $0
                    )
                )
            }
            return task.id
        }
    }

    /// Adds tasks until that is so.
    func fill(until isFull: () -> Bool) throws {
        for _ in 0..<10_000 where !isFull() {
            try add(1)
            try commit()
        }
        guard isFull() else { throw KeptModel.Complaint("there is room without end") }
    }

    func finish(_ ids: [TaskID]) {
        for id in ids {
            guard let number = state.tasks.index.number(of: id) else { continue }
            var writer = WireWriter(.results)
            writer.worker(Bench.worker)
            ResultEntry(
                id: id,
                lease: state.tasks.index[number].lease,
                startedAt: now.wall,
                finishedAt: now.wall,
                outcome: .success(result: [0x31], contentType: nil)
            ).write(to: &writer)
            writer.bytes.withUnsafeBytes { state.results($0, now: now, log: log) }
        }
    }

    /// Workers that live, each with a record of its own.
    func learnWorkers(_ count: Int) {
        for _ in 0..<count {
            workers += 1
            let process = WorkerProcess(pid: workers, startTime: 1, bootID: Bench.bootID)
            propose(.worker(id: WorkerID(high: 7, low: UInt64(workers)), process: process))
        }
    }

    func propose(_ proposal: Proposal) {
        var writer = WireWriter(.propose, number: state.sessionNumber ?? 0)
        proposal.write(to: &writer)
        writer.bytes.withUnsafeBytes { state.brokerMessage($0, now: now, log: log) }
    }

    // MARK: Turns

    /// Everything that was appended becomes durable, and what waited for that is told; the log keeps no
    /// house.
    func commit() throws {
        log.kept.submit(sync: true)
        while log.kept.runOneWrite() || log.kept.runOneSync() || log.kept.runOnePreparation() {}
        state.watermarks(log.kept.watermarks(), log: log)
        try tell()
    }

    private func tell() throws {
        for message in state.flush().toBroker {
            try message.withUnsafeBytes { bytes in
                var reader = WireReader(bytes)
                guard try MessageHeader.read(from: &reader).command == .verdicts else { return }
                _ = try reader.raw(16, "watermarks")
                while !reader.isAtEnd {
                    let told = try Told(try Verdict(from: &reader))
                    switch told {
                    case .compacted, .notCompacted: compactions.append(told)
                    default: break
                    }
                }
            }
        }
    }

    /// One step of the keeper; `looks`: how often it finds that it has time left.
    @discardableResult
    func step(looks: Int = .max) -> StorageKeeper.Pace {
        var looks = looks
        return keeper.step(&state, log, now: now) {
            looks -= 1
            return looks < 0
        }
    }

    /// What the log's keeping thread has to do.
    func keepLog() {
        while log.kept.runOneKeep() {}
    }

    /// Steps until there is nothing left to do.
    func settle() throws {
        for _ in 0..<10_000 {
            try commit()
            log.kept.noteIdle()
            try commit()
            keepLog()
            let pace = step()
            try tell()
            let didWork = log.kept.hasUnsubmitted || log.kept.runOneWrite() || log.kept.runOneKeep()
            if pace == .idle, !didWork { return }
        }
        throw KeptModel.Complaint("housekeeping has no end")
    }

    func takeSyncWish() -> Bool { state.takeSyncWish(now: now.monotonic) }

    var nextDeadline: UInt64? { keeper.nextDeadline(&state, now: now) }
}
