// Part of QTasks. License: see LICENSE.
//
// The core's dealings with the log: appending, and reading back what isn't kept in memory.

import AppendLog
import QTasksModel
import QTasksWire

/// What became of an append.
enum Appended {
    case appended(StoredPlace)
    /// There is no room for it; there may be later.
    case noSpace
    /// It is longer than a record may be.
    case tooLong
    /// The log is gone for good, see ``StorageState/failure``.
    case failed
}

extension StorageState {
    /// Appends what stands in `head` and `body`.
    mutating func append(
        _ kind: StoredKind,
        body: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0),
        log: some TaskLog
    ) -> Appended {
        do throws(AppendLogError) {
            let place = try log.append(kind: kind, head: head.bytes, body: body)
            last = place.sequence
            tasks.lastSequence = last
            if kind == .add || kind.hasResult { recent.keep(place.position, head.bytes, body) }
            return .appended(place)
        } catch {
            switch error {
            case .outOfSpace: return .noSpace
            case .payloadTooLarge: return .tooLong
            case .system, .corrupt, .metaUnreadable, .notAStore, .newerFormat, .unknownKind,
                .locked,
                .unsuitableFileSystem:
                fail("\(error)")
                return .failed
            }
        }
    }

    /// The options of a task's add; `nil` where it can't be read.
    mutating func options(
        of entry: TaskEntry,
        log: some TaskLog
    ) -> (maxAttempts: UInt32?, maxDeliveries: UInt32?)? {
        do {
            return try recent.withRecord(at: entry.added, or: log) { bytes in
                var reader = WireReader(bytes)
                guard let add = try? StoredAdd(from: &reader),
                    let envelope = try? Envelope(add.envelope),
                    let options = try? EnvelopeOptions(envelope.options)
                else { return nil }
                return (options.maxAttempts, options.maxDeliveries)
            }
        } catch {
            reportUnreadable(entry, error)
            return nil
        }
    }

    /// What was just told of a task at `written` becomes durable within the interval that its add
    /// asked for, if it did.
    mutating func needSyncInInterval(of entry: TaskEntry, now: Now, log: some TaskLog) {
        guard entry.flags.contains(.interval) else { return }
        do {
            let durability = try recent.withRecord(at: entry.added, or: log) { bytes in
                var reader = WireReader(bytes)
                return (try? StoredAdd(from: &reader))?.durability
            }
            // what can't be read has asked for we don't know what
            needSync(durability ?? .synced, isWatched: false, now: now)
        } catch {
            reportUnreadable(entry, error)
            needsSync = true
        }
    }

    mutating func maxDeliveries(
        of entry: TaskEntry,
        log: some TaskLog
    ) -> UInt32 {
        options(of: entry, log: log)?.maxDeliveries ?? settings.config.maxDeliveries
    }

    /// Fills `assembly`'s record; leaves it empty where the log can't be read.
    ///
    /// - Parameters:
    ///   - task: Whose.
    ///   - isWhole: With all bytes, also those that could be told by their place.
    ///   - log: Where it lies.
    mutating func assembleRecord(
        of task: TaskIndex.Number,
        isWhole: Bool = false,
        log: some TaskLog
    ) {
        let entry = tasks.index[task]
        let worker =
            entry.worker == WorkerTable.none
            ? WorkerID(high: 0, low: 0) : tasks.workers[entry.worker].id
        do {
            let least = isWhole ? Int.max : settings.placedBytesMin
            try assembly.assemble(entry, worker, placingFrom: least, from: recent, log)
        } catch {
            reportUnreadable(entry, error)
        }
    }

    mutating func reportUnreadable(_ entry: TaskEntry, _ error: any Error) {
        counters.unreadable += 1
        notice(
            "record unreadable",
            "task \(entry.id), added as record \(entry.sequence): \(error)",
            isWarning: true
        )
    }
}
