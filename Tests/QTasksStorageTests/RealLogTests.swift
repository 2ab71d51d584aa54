// Part of QTasks. License: see LICENSE.

import AppendLog
import Glibc
import QTasksModel
import QTasksProcess
import QTasksStorage
import QTasksWire
import Testing

@Suite
struct `Storage on a real log` {
    private static let options = LogOptions(
        segmentBytes: 1 << 20,
        recordBytesMax: 1 << 16,
        zeroFillAheadBytes: 0
    )

    private static func open(_ folder: TemporaryFolder) throws -> (Log, StorageState) {
        var state = StorageState(settings: Bench.settings(), now: Bench().now)
        let log = try Log.open(at: folder.path + "/store", options: options, driver: .manual) {
            do {
                try state.replay($0)
            } catch {
                Issue.record("record \($0.sequence): \(error)")
            }
        }
        return (log, state)
    }

    private static func propose(
        _ proposals: [Proposal],
        to state: inout StorageState,
        _ log: Log
    ) {
        var writer = WireWriter(.propose)
        for proposal in proposals { proposal.write(to: &writer) }
        writer.bytes.withUnsafeBytes { state.brokerMessage($0, now: Bench().now, log: log) }
    }

    @Test func `has every task again when it is opened anew (P1, P5)`() throws {
        let folder = try TemporaryFolder()
        var (log, state) = try Self.open(folder)
        state.brokerSession(incarnation: log.incarnation, globalConfigPid: 0)
        let tasks = (0..<50).map { TaskSubmission(name: "t", arguments: Array("\($0)".utf8)) }
        for (number, task) in tasks.enumerated() {
            var writer = WireWriter()
            try task.write(to: &writer)
            writer.bytes.withUnsafeBytes { envelope in
                let lease = Lease(incarnation: log.incarnation, counter: UInt32(number))
                let add = Proposal.add(
                    number: UInt64(number),
                    isWatched: false,
                    lease: lease,
                    worker: Bench.worker,
                    envelope: envelope
                )
                Self.propose([add], to: &state, log)
            }
        }
        let result = ResultEntry(
            id: tasks[7].id,
            lease: Lease(incarnation: log.incarnation, counter: 7),
            startedAt: Timestamp(nanoseconds: 1),
            finishedAt: Timestamp(nanoseconds: 2),
            outcome: .success(result: [9], contentType: nil)
        )
        state.push(result, from: Bench.worker, now: Bench().now, log: log)
        let wantsSync = state.takeSyncWish()
        #expect(wantsSync)
        try log.flush()
        state.watermarks(log.watermarks(), log: log)
        let live = state.tasks.entries
        try log.close()

        var (again, replayed) = try Self.open(folder)
        #expect(again.incarnation == log.incarnation + 1)
        #expect(replayed.tasks.entries == live)
        replayed.brokerSession(incarnation: again.incarnation, globalConfigPid: 0)
        _ = replayed.flush()
        Self.propose([.read(number: 4, id: tasks[7].id, isWhole: false)], to: &replayed, again)
        replayed.watermarks(again.watermarks(), log: again)
        let answer = try #require(replayed.flush().toBroker.first)
        try answer.withUnsafeBytes { bytes in
            var reader = WireReader(bytes)
            _ = try MessageHeader.read(from: &reader)
            _ = try reader.raw(16, "watermarks")
            guard case .record(4, let record) = try Told(try Verdict(from: &reader)) else {
                Issue.record("no record")
                return
            }
            #expect(record?.submission == tasks[7] && record?.result == [9])
        }
        try again.close()
    }

    @Test func `has what was written when its process is gone without a close (P1)`() throws {
        let folder = try TemporaryFolder()
        var entries: [TaskEntry] = []
        do {
            var (log, state) = try Self.open(folder)
            state.brokerSession(incarnation: log.incarnation, globalConfigPid: 0)
            var writer = WireWriter()
            try TaskSubmission(name: "t", arguments: [1]).write(to: &writer)
            writer.bytes.withUnsafeBytes {
                let add = Proposal.add(
                    number: 1,
                    isWatched: false,
                    lease: .none,
                    worker: Bench.worker,
                    envelope: $0
                )
                Self.propose([add], to: &state, log)
            }
            log.submit(sync: false)
            while log.runOneWrite() {}
            entries = state.tasks.entries
        }
        let (log, state) = try Self.open(folder)
        #expect(entries.count == 1)
        #expect(state.tasks.entries.map(\.id) == entries.map(\.id))
        try log.close()
    }
}
