// Part of QTasks. License: see LICENSE.
//
// What the Starter saw of a worker's end, on record with the tasks that ended with it (P4).

import AppendLog
import QTasksModel
import QTasksWire
import Testing

@testable import QTasksStorage

private let first = Lease(incarnation: 7, counter: 1)
private let second = Lease(incarnation: 7, counter: 2)
private let process = WorkerProcess(pid: 50, startTime: 7, bootID: Bench.bootID)

private func exit(pid: Int32 = 50, startTime: UInt64 = 7) -> ExitMessage {
    ExitMessage(
        pid: pid,
        startTime: startTime,
        wasSignal: true,
        code: 11,
        maxResidentBytes: 9 << 20,
        userMicroseconds: 100,
        systemMicroseconds: 23,
        errorTail: Array("last words\n".utf8)
    )
}

@Suite
struct `Evidence of a death` {
    private var bench: Bench

    init() {
        bench = Bench()
        bench.propose(.worker(id: Bench.worker, process: process))
    }

    private func recorded() throws -> [StoredEvidence] {
        try bench.log.records.filter { $0.kind == .evidence }.map { record in
            try record.payload.withUnsafeBytes {
                var reader = WireReader($0)
                return try StoredEvidence(from: &reader)
            }
        }
    }

    @Test
    mutating func `is recorded once for each task that was in the process, however often told`()
        throws
    {
        let one = try bench.runningTask(first)
        let two = try bench.runningTask(second)
        bench.release(one, first, isShared: true)
        bench.release(two, second, isShared: true)
        for _ in 0..<2 { bench.propose(.evidence(number: 12, exit())) }
        let stored = [(one, first), (two, second)].map { id, lease in
            StoredEvidence(
                at: bench.now.wall,
                holding: Holding(id: id, lease: lease),
                worker: Bench.worker,
                exit: exit()
            )
        }
        #expect(try recorded() == stored)
        // both processes were killed before the Starter heard that it is written
        try bench.reopen()
        bench.propose(.evidence(number: 12, exit()))
        #expect(try recorded() == stored)
    }

    @Test mutating func `is written before the Broker hears so`() throws {
        let id = try bench.runningTask(first)
        bench.release(id, first, counts: true)
        _ = try bench.written()
        bench.propose(.evidence(number: 12, exit()))
        #expect(try bench.told().isEmpty)
        #expect(try bench.written() == [.evidence(12)])
        bench.propose(.evidence(number: 13, exit()))
        #expect(try bench.told() == [.evidence(13)], "there is nothing left to record")
    }

    @Test mutating func `waits for the releases that it explains, and no requeue for it`() throws {
        let id = try bench.runningTask(first)
        bench.deliver([
            bench.releaseProposal(id, first, counts: true), .evidence(number: 12, exit()),
        ])
        #expect(try recorded().isEmpty, "PULL may have a result still")
        bench.state.decideReleases(now: bench.now, log: bench.log)
        #expect(try recorded().count == 1)
        #expect(try bench.written() == [.released(3, .new, isSuspect: false), .evidence(12)])
    }

    @Test mutating func `is none where the task's result came before the death (H26)`() throws {
        let id = try bench.runningTask(first)
        bench.deliver([
            bench.releaseProposal(id, first, counts: true), .evidence(number: 12, exit()),
        ])
        bench.push(id, first)
        bench.state.decideReleases(now: bench.now, log: bench.log)
        #expect(try recorded().isEmpty)
        #expect(try bench.synced().contains(.evidence(12)), "the Starter need not keep it")
    }

    @Test mutating func `finds its leases when the Broker that saw the death has died as well`()
        throws
    {
        let id = try bench.runningTask(first)
        bench.release(id, first, counts: true)
        _ = try bench.written()
        try bench.reopen()
        bench.propose(.evidence(number: 1, exit(startTime: 8)))
        #expect(try recorded().isEmpty, "another process under the same pid")
        bench.propose(.evidence(number: 2, exit()))
        #expect(try recorded().map(\.holding) == [Holding(id: id, lease: first)])
    }

    @Test mutating func `is none of a process of an earlier boot`() throws {
        let id = try bench.runningTask(first)
        bench.release(id, first, counts: true)
        _ = try bench.written()
        var settings = Bench.settings()
        settings.bootID = TaskID(high: 9, low: 9)
        try bench.reopen(settings)
        bench.propose(.evidence(number: 2, exit()))
        #expect(try recorded().isEmpty)
    }

    @Test mutating func `is kept until its task is requeued, or gone`() throws {
        var task = bench.submission()
        task.maxDeliveries = 1
        let id = try bench.runningTask(first, task)
        bench.release(id, first, counts: true)
        bench.propose(.evidence(number: 12, exit()))
        #expect(bench.state.tasks.evidence.leases(of: id) == [first])
        bench.requeue(id)
        #expect(bench.state.tasks.evidence.items.isEmpty)
        bench.propose(.evidence(number: 12, exit()))
        #expect(try recorded().count == 1, "nor of that epoch")
        bench.propose(.worker(id: Bench.worker, process: process))
        bench.lease(id, second)
        bench.release(id, second, counts: true)
        bench.propose(.evidence(number: 13, exit()))
        #expect(bench.state.tasks.evidence.leases(of: id) == [second])
        let fold = bench.state.tasks
        try bench.reopen()
        #expect(bench.state.tasks.evidence == fold.evidence)
        #expect(bench.state.tasks.usage == fold.usage)
        let number = try #require(bench.state.tasks.index.number(of: id))
        bench.state.tasks.remove(number)
        #expect(bench.state.tasks.evidence.items.isEmpty)
        #expect(bench.state.tasks.usage != fold.usage)
    }

    @Test mutating func `waits for room on a full disk, up to a number, and ends nothing (P9)`()
        throws
    {
        let id = try bench.runningTask(first)
        bench.release(id, first, counts: true)
        _ = try bench.written()
        bench.log.refusal = .outOfSpace(bytes: 1, preparedBytesLeft: 0)
        for number in 0..<UInt64(StorageState.evidenceDeferredMax) {
            bench.propose(.evidence(number: number, exit()))
        }
        #expect(bench.state.failure == nil && bench.state.awaitsSpace)
        #expect(try bench.told().isEmpty, "the Starter keeps it")
        bench.log.refusal = nil
        bench.state.spaceMayBeBack(now: bench.now, log: bench.log)
        #expect(try recorded().count == 1 && !bench.state.awaitsSpace)
        #expect(try bench.written().count == StorageState.evidenceDeferredMax)

        bench.lease(id, second)
        bench.release(id, second, counts: true)
        bench.log.refusal = .outOfSpace(bytes: 1, preparedBytesLeft: 0)
        for number in 0...UInt64(StorageState.evidenceDeferredMax) {
            bench.propose(.evidence(number: number, exit()))
        }
        let notices = bench.state.flush().notices
        #expect(notices.map(\.event) == ["evidence dropped"])
        bench.log.refusal = nil
        bench.state.spaceMayBeBack(now: bench.now, log: bench.log)
        #expect(try recorded().count == 1, "what was dropped is gone")
        #expect(bench.state.failure == nil)
    }

    @Test func `of one task is kept of its last hundred deaths`() {
        var table = EvidenceTable()
        let id = TaskID(high: 1, low: 1)
        func item(_ number: UInt32, at offset: UInt32) -> EvidenceTable.Item {
            EvidenceTable.Item(
                lease: Lease(incarnation: 1, counter: number),
                sequence: UInt64(number),
                position: RecordPosition(segment: 1, offset: offset),
                bytes: 10
            )
        }
        let most = UInt32(EvidenceTable.mostOfTask)
        for number in (1...most).reversed() {
            #expect(table.insert(item(number, at: number), of: id) == nil)
        }
        #expect(table.insert(item(most + 1, at: 900), of: id) == item(1, at: 1))
        #expect(table.insert(item(5, at: 1000), of: id) == item(5, at: 5), "a copy")
        #expect(table.insert(item(5, at: 5), of: id) == item(5, at: 5), "what it was copied from")
        let leases = (2...most + 1).map { Lease(incarnation: 1, counter: $0) }
        #expect(table.leases(of: id) == leases)
    }
}

@Suite
struct `Compaction and evidence` {
    /// Evidence records in the log.
    private static func evidence(_ house: House) throws -> [UInt64] {
        var sequences: [UInt64] = []
        let reader = try StoreReader(Bench.settings().directory, files: house.disk)
        reader.log.forEach { record in
            if record.kind == StoredKind.evidence.rawValue { sequences.append(record.sequence) }
        }
        return sequences
    }

    @Test func `carries it forward with its task, once, and comes to an end`() throws {
        let house = try House()
        house.propose(.worker(id: Bench.worker, process: process))
        let ids = try house.add(40)
        for id in ids {
            let number = try #require(house.state.tasks.index.number(of: id))
            house.propose(
                .release(
                    number: 3,
                    holding: Holding(id: id, lease: house.state.tasks.index[number].lease),
                    cause: .death,
                    isShared: false,
                    counts: true
                )
            )
        }
        house.propose(.evidence(number: 12, exit()))
        house.state.decideReleases(now: house.now, log: house.log)
        // enough that goes, so that the oldest segments are worth it
        house.finish(try house.add(300))
        try house.settle()
        let before = try Self.evidence(house)
        #expect(before.count == 40)
        for number in 0..<3 {
            house.propose(.compact(number: UInt64(number)))
            try house.settle()
            #expect(Set(try Self.evidence(house)) == Set(before))
            #expect(try Self.evidence(house).count == 40, "each of them once")
        }
        let carried = house.log.carried
        for _ in 0..<10 { try house.settle() }
        #expect(house.log.carried == carried, "what is alive is not copied over and over")
        try house.reopen()
        #expect(ids.allSatisfy { house.state.tasks.evidence.leases(of: $0).count == 1 })
    }
}
