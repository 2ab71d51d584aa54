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
            globalConfigPid: globalConfigPid,
            lastSequence: last
        )
        outbox.toBroker.append(opened.encoded(session: sessionNumber ?? 0))
        writeSnapshot()
    }

    /// Every unfinished task: those that run or wait for a time, each worker before the first lease of
    /// it, then the queued ones line by line.
    private mutating func writeSnapshot() {
        var writer = SnapshotWriter()
        for (queue, entry) in tasks.queues.entries where !entry.rules.isDefault {
            writer.write(.queue(queue, entry.rules))
        }
        writeProgressed(to: &writer)
        writeQueued(to: &writer)
        writeKeyed(to: &writer)
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
            queue: lane.queue,
            key: tasks.keys[number] ?? []
        )
    }

    private func writeQueued(to writer: inout SnapshotWriter) {
        let order = QueuedOrder(tasks.index, keys: tasks.keys, lanes: tasks.lanes.lanes.count)
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

    /// Queued tasks with keys: those of one key in one line together.
    private func writeKeyed(to writer: inout SnapshotWriter) {
        guard !tasks.keys.isEmpty else { return }
        var keyed: [KeyedTask] = []
        tasks.index.forEachCore { number, core in
            guard core.status == .new, let key = tasks.keys.number(of: number) else { return }
            keyed.append(
                KeyedTask(
                    line: QueuedOrder.Key(
                        lane: core.lane,
                        priority: core.priority,
                        isSuspect: core.flags.contains(.suspect)
                    ),
                    key: key,
                    place: QueuedPlace(sequence: core.sequence, handle: number)
                )
            )
        }
        keyed.sort { $0.order < $1.order }
        var start = 0
        while start < keyed.count {
            let first = keyed[start]
            let end = min(keyed.count, start + max(1, writer.placesLeft))
            let run = keyed[start..<end].prefix { $0.line == first.line && $0.key == first.key }
            let lane = tasks.lanes[first.line.lane]
            writer.write(
                .queued(
                    QueuedRun(
                        priority: first.line.priority,
                        isSuspect: first.line.isSuspect,
                        name: lane.name,
                        queue: lane.queue,
                        key: tasks.keys.key(first.key),
                        places: run.map(\.place)
                    )
                )
            )
            start = run.endIndex
        }
    }
}

/// A queued task that has a key.
private struct KeyedTask {
    var line: QueuedOrder.Key
    var key: UInt32
    var place: QueuedPlace

    /// By what a run has in common, then by the add.
    var order: (UInt64, UInt64, UInt64) {
        let priority = UInt64(UInt16(bitPattern: line.priority))
        return (
            UInt64(line.lane) << 32 | priority << 1 | (line.isSuspect ? 1 : 0), UInt64(key),
            place.sequence
        )
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
