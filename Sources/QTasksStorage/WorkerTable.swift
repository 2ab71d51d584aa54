// Part of QTasks. License: see LICENSE.

import AppendLog
import QTasksModel
import QTasksWire

/// The workers that the log speaks of, each under a number.
///
/// It counts how many tasks speak of each. A worker that none speaks of is forgotten at once where a
/// record says that its process has ended; else it may live and be idle, and is kept until
/// ``WorkerTable/idleMax`` others have been idle since. Its number is then given out again. All this
/// follows from records alone, so that a replay comes to the same table.
package struct WorkerTable: Equatable {
    package typealias Number = UInt32

    /// Stands for "no worker".
    package static let none = Number.max

    /// Idle workers that are kept: four times as many as a Broker takes at once.
    static let idleMax = 4 * 4096

    struct Worker: Equatable {
        var id: WorkerID
        /// `nil` until the Broker has told.
        var process: WorkerProcess?
        /// A record says that its process isn't there any more.
        var hasEnded = false
        /// How many tasks speak of it.
        var tasks = 0
        /// The idle ones on either side, by since when they are; of those in use neither.
        fileprivate var older = WorkerTable.none
        fileprivate var newer = WorkerTable.none
    }

    private(set) var workers: [Worker?] = []
    /// Where the record lies that tells of a worker, by number.
    ///
    /// After an opening known only of those that were read. Not part of what the log says: compaction moves it.
    private var places: [RecordPosition] = []
    private var numbers: [WorkerID: Number] = [:]
    private var free: [Number] = []
    // Leases come in runs for one worker.
    private var latest: Number = WorkerTable.none

    private var idle = 0
    private var oldestIdle: Number = WorkerTable.none
    private var newestIdle: Number = WorkerTable.none

    package init() {}

    /// How many workers are known.
    var count: Int { numbers.count }

    /// Beyond the highest number in use.
    var endNumber: Int { workers.count }

    subscript(number: Number) -> Worker {
        _read {
            guard let worker = workers[Int(number)] else {
                preconditionFailure("worker \(number) is forgotten")
            }
            yield worker
        }
    }

    /// One more task speaks of a worker, which gets a number where it has none.
    mutating func retain(_ id: WorkerID) -> Number {
        let number = number(of: id)
        if workers[Int(number)]?.tasks == 0 { leaveIdle(number) }
        workers[Int(number)]?.tasks += 1
        return number
    }

    /// One task less speaks of it; nothing happens where it spoke of none.
    mutating func release(_ number: Number) {
        guard number != Self.none else { return }
        precondition(self[number].tasks > 0, "a task gives back the worker that it took")
        workers[Int(number)]?.tasks -= 1
        guard self[number].tasks == 0 else { return }
        joinIdle(number)
        if self[number].hasEnded { forget(number) } else { forgetOldest() }
    }

    /// Its process isn't there any more.
    mutating func hasEnded(_ number: Number) {
        guard number != Self.none else { return }
        workers[Int(number)]?.hasEnded = true
    }

    /// Which process a worker is.
    ///
    /// - Parameters:
    ///   - process: The process.
    ///   - id: The worker.
    ///   - place: Where the record lies that says so, if that is known.
    mutating func set(
        _ process: WorkerProcess,
        of id: WorkerID,
        at place: RecordPosition = .none
    ) {
        let number = number(of: id)
        places[Int(number)] = place
        workers[Int(number)]?.process = process
        workers[Int(number)]?.hasEnded = false
        guard self[number].tasks == 0 else { return }
        leaveIdle(number)
        joinIdle(number)
        forgetOldest()
    }

    /// Which process a worker is, where that is known.
    func process(of id: WorkerID) -> WorkerProcess? {
        numbers[id].flatMap { workers[Int($0)]?.process }
    }

    /// Whether a record at this place has to go on when its segment does: it tells who a worker is whose
    /// process may still be there.
    ///
    /// Of several that tell the same one is enough: a compaction that was broken off leaves its copies
    /// beside what they stand for, and if each were copied again they would double every time.
    func isNeeded(_ process: WorkerProcess, of id: WorkerID, at place: RecordPosition) -> Bool {
        guard let number = numbers[id], let worker = workers[Int(number)] else { return false }
        return worker.process == process && !worker.hasEnded && places[Int(number)] <= place
    }

    /// A worker's record was carried forward.
    mutating func moved(_ id: WorkerID, to place: RecordPosition) {
        guard let number = numbers[id] else { return }
        places[Int(number)] = place
    }

    package static func == (left: Self, right: Self) -> Bool { left.workers == right.workers }

    /// The number of a worker; a new one, which is idle, where it isn't known.
    private mutating func number(of id: WorkerID) -> Number {
        if latest != Self.none, workers[Int(latest)]?.id == id { return latest }
        latest = numbers[id] ?? add(id)
        return latest
    }

    private mutating func add(_ id: WorkerID) -> Number {
        let number = free.popLast() ?? Number(workers.count)
        if Int(number) == workers.count {
            workers.append(nil)
            places.append(.none)
        }
        workers[Int(number)] = Worker(id: id)
        places[Int(number)] = .none
        numbers[id] = number
        joinIdle(number)
        return number
    }

    // MARK: Idle workers

    private mutating func joinIdle(_ number: Number) {
        workers[Int(number)]?.older = newestIdle
        workers[Int(number)]?.newer = Self.none
        if newestIdle == Self.none {
            oldestIdle = number
        } else {
            workers[Int(newestIdle)]?.newer = number
        }
        newestIdle = number
        idle += 1
    }

    private mutating func leaveIdle(_ number: Number) {
        let (older, newer) = (self[number].older, self[number].newer)
        if older == Self.none { oldestIdle = newer } else { workers[Int(older)]?.newer = newer }
        if newer == Self.none { newestIdle = older } else { workers[Int(newer)]?.older = older }
        workers[Int(number)]?.older = Self.none
        workers[Int(number)]?.newer = Self.none
        idle -= 1
    }

    private mutating func forgetOldest() {
        if idle > Self.idleMax { forget(oldestIdle) }
    }

    private mutating func forget(_ number: Number) {
        leaveIdle(number)
        numbers[self[number].id] = nil
        workers[Int(number)] = nil
        free.append(number)
        if latest == number { latest = Self.none }
    }
}
