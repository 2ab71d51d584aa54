// Part of QTasks. License: see LICENSE.
//
// A Broker comes, or comes back: it is told everything anew and knows nothing else.

import QTasksModel
import QTasksWire

extension StorageState {
    /// The size at which a message of the snapshot is closed, in bytes.
    private static var snapshotBytes: Int { 64 << 10 }

    /// The Broker began a session: what an older one waited for is dropped, since it asks again.
    ///
    /// - Parameters:
    ///   - incarnation: This opening of the store.
    ///   - globalConfigPid: GlobalConfig's process, 0 where there is none yet.
    package mutating func brokerSession(incarnation: UInt32, globalConfigPid: Int32) {
        guard failure == nil else { return }
        awaitingWritten.removeAll()
        awaitingDurable.removeAll()
        releases = []
        deferred = []
        tasks.unwatchAll()
        verdicts = Self.emptyVerdicts
        outbox.toBroker = []
        isServing = true
        sessionNumber = sessionNumber.map { $0 + 1 } ?? 0
        toldDurable = 0
        let opened = Opened(
            incarnation: incarnation,
            pid: settings.pid,
            globalConfigPid: globalConfigPid
        )
        outbox.toBroker.append(opened.encoded(session: sessionNumber ?? 0))
        writeSnapshot()
    }

    /// Every unfinished task, by its place in line; each worker before the first lease of it.
    private mutating func writeSnapshot() {
        var told = [Bool](repeating: false, count: tasks.workers.workers.count)
        var writer = WireWriter(.snapshot, reserving: Self.snapshotBytes + 1024)
        for number in 0..<TaskIndex.Number(tasks.index.count) {
            write(tasks.index[number], &told, to: &writer)
            if writer.count >= Self.snapshotBytes {
                outbox.toBroker.append(writer.bytes)
                writer = WireWriter(.snapshot, reserving: Self.snapshotBytes + 1024)
            }
        }
        SnapshotItem.end.write(to: &writer)
        outbox.toBroker.append(writer.bytes)
    }

    private func write(_ entry: TaskEntry, _ told: inout [Bool], to writer: inout WireWriter) {
        switch entry.status {
        case .new: SnapshotItem.queued(placement(of: entry)).write(to: &writer)
        case .scheduled:
            SnapshotItem.scheduled(placement(of: entry), due: entry.due).write(to: &writer)
        case .process:
            let worker = tasks.workers[entry.worker]
            if !told[Int(entry.worker)], let process = worker.process {
                told[Int(entry.worker)] = true
                SnapshotItem.worker(id: worker.id, process: process).write(to: &writer)
            }
            SnapshotItem.running(placement(of: entry), lease: entry.lease, worker: worker.id)
                .write(to: &writer)
        case .success, .error, .cancel, .dead: break
        }
    }

    private func placement(of entry: TaskEntry) -> Placement {
        let lane = tasks.lanes[entry.lane]
        return Placement(
            id: entry.id,
            sequence: entry.sequence,
            priority: entry.priority,
            isSuspect: entry.isSuspect,
            name: lane.name,
            queue: lane.queue
        )
    }
}
