// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire

/// The workers that the log speaks of, each under a number.
package struct WorkerTable: Equatable {
    package typealias Number = UInt32

    /// Stands for "no worker".
    package static let none = Number.max

    struct Worker: Equatable {
        var id: WorkerID
        /// `nil` until the Broker has told.
        var process: WorkerProcess?
    }

    private(set) var workers: [Worker] = []
    private var numbers: [WorkerID: Number] = [:]
    // Leases come in runs for one worker.
    private var latest: Number = WorkerTable.none

    package init() {}

    subscript(number: Number) -> Worker { workers[Int(number)] }

    /// The number of a worker; a new one where it isn't known.
    mutating func number(of id: WorkerID) -> Number {
        if latest != Self.none, workers[Int(latest)].id == id { return latest }
        if let number = numbers[id] {
            latest = number
            return number
        }
        let number = Number(workers.count)
        workers.append(Worker(id: id))
        numbers[id] = number
        latest = number
        return number
    }

    mutating func set(_ process: WorkerProcess, of id: WorkerID) {
        let number = number(of: id)
        workers[Int(number)].process = process
    }

    /// Which process a worker is, where that is known.
    func process(of id: WorkerID) -> WorkerProcess? {
        numbers[id].flatMap { workers[Int($0)].process }
    }

    package static func == (left: Self, right: Self) -> Bool { left.workers == right.workers }
}
