// Part of QTasks. License: see LICENSE.

package import QTasksModel
package import QTasksWire

/// How a worker ended, and what it held then: what there is to say of the attempts that ended with it.
package struct DeathEvidence: Sendable, Equatable {
    /// What the Starter saw.
    package var exit: ExitMessage

    /// Who it was; `nil` where it never spoke to this Broker, or was started by nobody's worker command.
    package var worker: WorkerID?

    /// The leases that went with it.
    package var holdings: [Holding] = []
}

/// Brings together what the Broker learns first, who died with what in hand, and what only the
/// Starter knows, in whichever order they come.
struct DeathRegister {
    /// Deaths whose cause may still be told.
    static let deadMax = 1000

    /// Causes that were told, whether or not the death was known.
    static let toldMax = 256

    private struct Process: Hashable {
        var pid: Int32
        var startTime: UInt64
    }

    private struct Dead {
        var worker: WorkerID
        var holdings: [Holding]
    }

    private var dead = Recent<Process, Dead>(limit: Self.deadMax)
    /// Of those whose death hasn't been noticed yet the cause, of others `nil`.
    private var told = Recent<Process, ExitMessage?>(limit: Self.toldMax)

    /// A worker's process has ended.
    ///
    /// - Returns: The evidence, where the cause was told before.
    mutating func died(
        _ worker: WorkerID,
        _ process: WorkerProcess,
        holding holdings: [Holding]
    ) -> DeathEvidence? {
        let process = Process(pid: process.pid, startTime: process.startTime)
        guard let exit = told[process] ?? nil else {
            dead[process] = Dead(worker: worker, holdings: holdings)
            return nil
        }
        told[process] = .some(nil)
        return DeathEvidence(exit: exit, worker: worker, holdings: holdings)
    }

    /// The Starter has told a cause.
    ///
    /// - Parameters:
    ///   - exit: What it saw.
    ///   - isExpected: The Broker knows the worker, and hasn't noticed its end.
    /// - Returns: The evidence, once for each process; `nil` where it is to be waited for.
    mutating func take(_ exit: ExitMessage, isExpected: Bool) -> DeathEvidence? {
        let process = Process(pid: exit.pid, startTime: exit.startTime)
        // sent again, because our answer was lost
        guard told[process] == nil else { return nil }
        if isExpected {
            told[process] = exit
            return nil
        }
        told[process] = .some(nil)
        let known = dead[process]
        return DeathEvidence(exit: exit, worker: known?.worker, holdings: known?.holdings ?? [])
    }
}

/// A dictionary that forgets its oldest keys.
struct Recent<Key: Hashable, Value> {
    private let limit: Int
    private var values: [Key: Value] = [:]
    private var order: [Key] = []

    init(limit: Int) {
        self.limit = limit
    }

    subscript(key: Key) -> Value? {
        get { values[key] }
        set {
            guard let newValue else { return }
            if values.updateValue(newValue, forKey: key) == nil { order.append(key) }
            if order.count > limit { values[order.removeFirst()] = nil }
        }
    }
}
