// Part of QTasks. License: see LICENSE.

package import QTasksModel
package import QTasksWire

/// How a worker ended, and what it held then: what there is to say of the attempts that ended with it.
package struct DeathEvidence: Sendable, Equatable {
    /// What the Starter saw.
    package var exit: ExitMessage

    /// Who it was; `nil` where it never spoke to this Broker, or was started by nobody's worker command.
    package var worker: WorkerID?

    /// The leases that went with it, as far as this Broker knows; Storage knows them all.
    package var holdings: [Holding] = []

    /// The Starter's number for it, which it waits for.
    package var number: UInt64 = 0
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

        init(pid: Int32, startTime: UInt64) {
            self.pid = pid
            self.startTime = startTime
        }

        init(_ exit: ExitMessage) {
            self.init(pid: exit.pid, startTime: exit.startTime)
        }
    }

    private struct Dead {
        var worker: WorkerID
        var holdings: [Holding]
    }

    private struct Told {
        /// `nil` once the death has been noticed as well.
        var exit: ExitMessage?
        var number: UInt64
        /// It is in the log, as far as there is anything to record.
        var isRecorded = false
    }

    private var dead = Recent<Process, Dead>(limit: Self.deadMax)
    private var told = Recent<Process, Told>(limit: Self.toldMax)

    /// A worker's process has ended.
    ///
    /// - Returns: The evidence, where the cause was told before.
    mutating func died(
        _ worker: WorkerID,
        _ process: WorkerProcess,
        holding holdings: [Holding]
    ) -> DeathEvidence? {
        let process = Process(pid: process.pid, startTime: process.startTime)
        guard let known = told[process], let exit = known.exit else {
            dead[process] = Dead(worker: worker, holdings: holdings)
            return nil
        }
        told[process]?.exit = nil
        return DeathEvidence(
            exit: exit,
            worker: worker,
            holdings: holdings,
            number: known.number
        )
    }

    /// The Starter has told a cause.
    ///
    /// - Parameters:
    ///   - exit: What it saw.
    ///   - number: What it is to be answered with.
    ///   - isExpected: The Broker knows the worker, and hasn't noticed its end.
    /// - Returns: The evidence, once for each process; `nil` where it is to be waited for.
    mutating func take(
        _ exit: ExitMessage,
        number: UInt64 = 0,
        isExpected: Bool
    ) -> DeathEvidence? {
        let process = Process(exit)
        // sent again, because our answer was lost
        guard told[process] == nil else { return nil }
        told[process] = Told(exit: isExpected ? exit : nil, number: number)
        if isExpected { return nil }
        let known = dead[process]
        return DeathEvidence(
            exit: exit,
            worker: known?.worker,
            holdings: known?.holdings ?? [],
            number: number
        )
    }

    /// Storage has recorded it, or has nothing to record it with.
    mutating func recorded(_ exit: ExitMessage) {
        told[Process(exit)]?.isRecorded = true
    }

    /// Whether the Starter need not keep it any longer.
    func isRecorded(_ exit: ExitMessage) -> Bool { told[Process(exit)]?.isRecorded ?? false }
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
