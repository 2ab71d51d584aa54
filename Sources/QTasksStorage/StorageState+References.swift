// Part of QTasks. License: see LICENSE.
//
// Large arguments stay where they are: a worker that can read the store is told of their place, and
// the segment stays until the task isn't running any more.

import AppendLog
import QTasksModel
import QTasksWire

extension StorageState {
    /// How many running tasks were told by their place.
    package var referenceCount: Int { references.count }

    /// Grants a lease by telling where the arguments lie.
    ///
    /// - Returns: `false` where the worker needs the bytes.
    mutating func tellPlaced(
        _ number: UInt64,
        _ task: TaskIndex.Number,
        _ entry: TaskEntry,
        log: some TaskLog
    ) -> Bool {
        // most tasks are small, and this is asked for each
        guard entry.addedBytes >= settings.placedBytesMin, isPlaceable(entry) else { return false }
        let placed = try? log.withStart(of: entry.added) { start -> (LeasedTask, [UInt8])? in
            guard let (add, head, arguments) = self.arguments(of: entry, in: start) else {
                return nil
            }
            let leased = LeasedTask(
                lease: entry.lease,
                attempt: entry.attempt,
                failures: entry.failures,
                epoch: entry.epoch,
                isSuspect: entry.isSuspect,
                addedAt: add,
                arguments: arguments
            )
            return (leased, Array(head.bytes))
        }
        guard case .some(.some(let (leased, head))) = placed else { return false }
        hold(entry.added.segment, for: task, log: log)
        head.withUnsafeBytes { say(.leased(number: number, leased, envelope: $0)) }
        return true
    }

    /// Where the arguments of a task lie that was leased with its add; `nil` where its worker needs
    /// the bytes.
    mutating func placeArguments(
        of task: TaskIndex.Number,
        log: some TaskLog
    ) -> PayloadReference? {
        guard tasks.index.isUsed(task),
            tasks.index.core(task).addedBytes.bytes >= settings.placedBytesMin
        else { return nil }
        let entry = tasks.index[task]
        guard isPlaceable(entry) else { return nil }
        let arguments = try? log.withStart(of: entry.added) {
            self.arguments(of: entry, in: $0)?.arguments
        }
        guard case .some(.some(let arguments)) = arguments else { return nil }
        hold(entry.added.segment, for: task, log: log)
        return arguments
    }

    /// The task isn't running any more: its segment need not stay for it.
    mutating func dropReference(of task: TaskIndex.Number, log: some TaskLog) {
        guard !references.isEmpty, let segment = references.removeValue(forKey: task) else {
            return
        }
        log.unhold(segment)
    }

    private mutating func hold(
        _ segment: UInt32,
        for task: TaskIndex.Number,
        log: some TaskLog
    ) {
        log.hold(segment)
        if let former = references.updateValue(segment, forKey: task) { log.unhold(former) }
    }

    private func isPlaceable(_ entry: TaskEntry) -> Bool {
        entry.status == .process
            && !entry.flags.contains(.sentWhole) && entry.worker != WorkerTable.none
            && readers.contains(tasks.workers[entry.worker].id)
    }

    /// When the task was added, its envelope's head, and where its arguments lie; `nil` where they
    /// aren't large or that isn't what stands there.
    private func arguments(
        of entry: TaskEntry,
        in start: RecordStart
    ) -> (addedAt: Timestamp, head: Envelope, arguments: PayloadReference)? {
        var reader = WireReader(start.bytes)
        guard let head = try? StoredAddHead(from: &reader) else { return nil }
        guard let envelope = try? Envelope(headFrom: &reader), envelope.id == entry.id,
            envelope.argumentBytes >= settings.placedBytesMin,
            reader.position + envelope.argumentBytes <= start.recordBytes
        else { return nil }
        let arguments = PayloadReference(
            segment: entry.added.segment,
            offset: entry.added.offset,
            sequence: start.sequence,
            start: UInt32(reader.position),
            count: UInt32(envelope.argumentBytes)
        )
        return (head.addedAt, envelope, arguments)
    }
}
