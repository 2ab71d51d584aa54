// Part of QTasks. License: see LICENSE.
//
// A Broker comes, or comes back: it is told everything anew and knows nothing else.

import QTasksModel
import QTasksWire

extension StorageState {
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
        compactions = Compactions()
        tasks.unwatchAll()
        readers = []
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

    /// Every unfinished task: those that run or wait for a time, each worker before the first lease of
    /// it, then the queued ones line by line.
    private mutating func writeSnapshot() {
        var writer = SnapshotWriter()
        writeProgressed(to: &writer)
        writeQueued(to: &writer)
        writer.write(.end)
        outbox.toBroker += writer.take()
    }

    private func writeProgressed(to writer: inout SnapshotWriter) {
        var told = [Bool](repeating: false, count: tasks.workers.endNumber)
        tasks.index.forEachCore { number, core in
            switch core.status {
            case .scheduled:
                let entry = tasks.index[number]
                writer.write(.scheduled(placement(of: entry, number), due: entry.due))
            case .process: writeRunning(number, &told, to: &writer)
            case .new, .success, .error, .cancel, .dead, nil: break
            }
        }
    }

    private func writeRunning(
        _ number: TaskIndex.Number,
        _ told: inout [Bool],
        to writer: inout SnapshotWriter
    ) {
        let entry = tasks.index[number]
        let worker = tasks.workers[entry.worker]
        if !told[Int(entry.worker)], let process = worker.process {
            told[Int(entry.worker)] = true
            writer.write(.worker(id: worker.id, process: process))
        }
        writer.write(
            .running(
                placement(of: entry, number),
                id: entry.id,
                lease: entry.lease,
                worker: worker.id
            )
        )
    }

    func placement(of entry: TaskEntry, _ number: TaskIndex.Number) -> Placement {
        let lane = tasks.lanes[entry.lane]
        return Placement(
            place: QueuedPlace(sequence: entry.sequence, handle: number),
            priority: entry.priority,
            isSuspect: entry.isSuspect,
            name: lane.name,
            queue: lane.queue
        )
    }

    private func writeQueued(to writer: inout SnapshotWriter) {
        let order = QueuedOrder(tasks.index, lanes: tasks.lanes.lanes.count)
        for line in order.lines {
            let lane = tasks.lanes[line.key.lane]
            var told = 0
            while told < line.count {
                let run = QueuedRun(
                    priority: line.key.priority,
                    isSuspect: line.key.isSuspect,
                    name: lane.name,
                    queue: lane.queue,
                    places: order.places(
                        of: line,
                        from: told,
                        atMost: writer.placesLeft,
                        in: tasks.index
                    )
                )
                writer.write(.queued(run))
                told += run.places.count
            }
        }
    }
}

/// Messages of a snapshot, each closed once it is long enough.
private struct SnapshotWriter {
    /// The size at which a message is closed, in bytes: large enough that its own cost is lost in it,
    /// small enough that the Broker reads one while the next is sent.
    private static let messageBytes = 256 << 10

    private var messages: [[UInt8]] = []
    private var writer = WireWriter(.snapshot)

    /// How many places the message has room for; at least one.
    var placesLeft: Int { max(1, QueuedRun.places(in: Self.messageBytes - writer.count)) }

    mutating func write(_ item: SnapshotItem) {
        item.write(to: &writer)
        guard writer.count >= Self.messageBytes else { return }
        messages.append(writer.bytes)
        writer = WireWriter(.snapshot)
    }

    mutating func take() -> [[UInt8]] {
        messages.append(writer.bytes)
        return messages
    }
}
