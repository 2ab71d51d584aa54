// Part of QTasks. License: see LICENSE.

import HeapModule
import QTasksModel
import QTasksWire

/// When workers are ended that don't end an attempt by themselves.
///
/// ```
///   RUNNING      limit        + kill-after     + kill-after
///   ---+-----------+----------------+----------------+-->
///      began       the worker       SIGTERM          SIGKILL to its process group
///                  ends it
/// ```
///
/// O(log n) for each event. A lease has one entry; what the heap has of an older moment of it is passed
/// over.
struct HardLimits {
    struct Limit {
        var worker: WorkerID
        /// Of ``RunningAttempt``; `nil` for one that was cancelled and had no limit.
        var attempt: RunningAttempt?
        /// When the next step is due.
        var at: UInt64
        /// The worker was asked to end.
        var isOver = false
    }

    private struct Moment: Comparable {
        var at: UInt64
        var lease: Lease

        static func < (left: Self, right: Self) -> Bool {
            (left.at, left.lease.rawValue) < (right.at, right.lease.rawValue)
        }
    }

    private var limits: [Lease: Limit] = [:]
    private var moments = Heap<Moment>()
    private var leases: [WorkerID: Set<Lease>] = [:]

    var isEmpty: Bool { limits.isEmpty }

    /// When something is due next; `nil` while nothing is awaited (P8).
    var next: UInt64? { moments.min?.at }

    subscript(lease: Lease) -> Limit? { limits[lease] }

    /// The attempts in this worker's process that are watched.
    func leases(of worker: WorkerID) -> Set<Lease> { leases[worker] ?? [] }

    mutating func set(_ lease: Lease, _ limit: Limit) {
        limits[lease] = limit
        leases[limit.worker, default: []].insert(lease)
        moments.insert(Moment(at: limit.at, lease: lease))
        prune()
    }

    mutating func remove(_ lease: Lease) {
        guard let limit = limits.removeValue(forKey: lease) else { return }
        leases[limit.worker]?.remove(lease)
        if leases[limit.worker]?.isEmpty == true { leases[limit.worker] = nil }
        prune()
    }

    mutating func removeAll(of worker: WorkerID) {
        for lease in leases(of: worker) { remove(lease) }
    }

    /// The leases whose moment has come.
    mutating func takeDue(now: UInt64) -> [Lease] {
        var due: [Lease] = []
        while let moment = moments.min, moment.at <= now {
            moments.removeMin()
            if limits[moment.lease]?.at == moment.at { due.append(moment.lease) }
            prune()
        }
        return due
    }

    /// No timer is left for what has ended.
    private mutating func prune() {
        while let moment = moments.min, limits[moment.lease]?.at != moment.at {
            moments.removeMin()
        }
        // most attempts end long before their time
        if moments.count > 2 * limits.count + 64 {
            moments = Heap(limits.map { Moment(at: $0.value.at, lease: $0.key) })
        }
    }
}
