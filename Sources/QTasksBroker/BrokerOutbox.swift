// Part of QTasks. License: see LICENSE.

package import QTasksModel
package import QTasksWire

/// What a turn of the Broker's core wants done outside: messages, packed as they came together, and
/// the few other deeds.
package struct BrokerOutbox {
    /// Something to do that isn't a message.
    package enum Deed: Equatable {
        /// Find out whether this process still lives, and watch it: it holds leases.
        case check(WorkerID, WorkerProcess)
        /// Stop watching it: it isn't ours any more.
        case forget(WorkerID)
        /// SIGTERM this worker: it is to end as soon as it can.
        case terminate(WorkerID)
        /// SIGKILL this worker's process group.
        case kill(WorkerID)
        /// No worker holds a lease any more.
        case drained
        /// Storage has stopped in order; so shall the Broker.
        case finish
    }

    /// One line of the log at info or above.
    package struct Notice {
        package var isWarning = false
        package var event: StaticString
        package var message: String
        package var details: [(key: String, value: String)] = []
    }

    /// One arrow of the diagrams, for `--log-level debug`.
    package struct Arrow {
        package var event: StaticString
        package var task: TaskID
        package var peer: String
    }

    package var toStorage: [StorageMessage] = []
    package var toClients: [(session: Session, message: [UInt8])] = []
    /// Messages for clients that are put together from the store as they are sent.
    package var placed: [PlacedReply] = []
    package var toWorkers: [(session: Session, message: [UInt8])] = []
    package var deeds: [Deed] = []
    /// Pids of workers whose memory is to be looked at (``BrokerState/weighed(_:residentBytes:)``).
    package var toWeigh: [WorkerID: Int32] = [:]
    package var notices: [Notice] = []
    package var arrows: [Arrow] = []

    package var isEmpty: Bool {
        toStorage.isEmpty && toClients.isEmpty && placed.isEmpty && toWorkers.isEmpty
            && deeds.isEmpty && notices.isEmpty && arrows.isEmpty
    }
}

/// What one worker gets at the end of this turn: acknowledgements and tasks in one message.
struct WorkParcel {
    var acknowledged: [Lease] = []
    var tasks = WireWriter(reserving: 0)

    func encoded() -> [UInt8] {
        var writer = WireWriter(.work, reserving: 32 + 8 * acknowledged.count + tasks.count)
        writer.integer(UInt32(acknowledged.count))
        for lease in acknowledged { writer.integer(lease.rawValue) }
        writer.raw(tasks.bytes)
        return writer.bytes
    }
}
