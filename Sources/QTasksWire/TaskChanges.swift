// Part of QTasks. License: see LICENSE.
//
// What an operator, or a program, changes of tasks that are there: cancel, requeue, forget. Protocol.md has
// the clients' part with worked bytes: change both.

package import QTasksModel

/// What is to become of a task.
package enum TaskChange: UInt8, Sendable, CaseIterable {
    /// It ends as `cancel`, whether it waits or runs.
    case cancel = 1
    /// A task in `error`, `dead` or `cancel` is queued again, in a new epoch.
    case requeue = 2
    /// A task in `dead` is gone, before its time is over.
    case forget = 3

    package var command: Command {
        switch self {
        case .cancel: .cancel
        case .requeue: .requeue
        case .forget: .forget
        }
    }
}

/// `CANCEL`, `REQUEUE`, `FORGET`: reason (text; empty but for a cancel), task IDs to the end.
///
/// Idempotent but for this: a requeue that is sent again finds a task that isn't final any more, a forget
/// none.
package struct ChangeMessage: Sendable, Equatable {
    package var change: TaskChange
    package var reason: String
    package var ids: [TaskID]

    package init(_ change: TaskChange, reason: String = "", ids: [TaskID]) {
        self.change = change
        self.reason = reason
        self.ids = ids
    }

    package func encoded(number: UInt64) -> [UInt8] {
        var writer = WireWriter(change.command, number: number, reserving: 64 + 16 * ids.count)
        writer.text(reason)
        for id in ids { writer.id(id) }
        return writer.bytes
    }

    package init(_ change: TaskChange, from reader: inout WireReader) throws(WireError) {
        self.change = change
        reason = try reader.text("reason")
        ids = []
        while !reader.isAtEnd { ids.append(try reader.id("task ID")) }
    }
}

/// One answer in `CHANGED`: task ID (16), what became of it (1), status (1; 0 where there is no such
/// task), and after a refusal its sentence (text).
package struct ChangeReceipt: Sendable, Equatable {
    package enum Verdict: Sendable, Equatable {
        /// It is done, as durable as the task asked; or was already.
        case done
        /// There is no such task.
        case unknown
        /// Not in the status that it has.
        case notPossible
        case refused(Refusal)
    }

    package var id: TaskID
    package var verdict: Verdict
    /// What holds now.
    package var status: TaskStatus?

    package init(id: TaskID, verdict: Verdict, status: TaskStatus?) {
        self.id = id
        self.verdict = verdict
        self.status = status
    }

    package func write(to writer: inout WireWriter) {
        writer.id(id)
        switch verdict {
        case .done: writer.u8(0)
        case .unknown: writer.u8(1)
        case .notPossible: writer.u8(2)
        case .refused(let refusal): writer.u8(refusal.code.rawValue)
        }
        writer.u8(status?.code ?? 0)
        if case .refused(let refusal) = verdict { writer.text(refusal.message) }
    }

    package init(from reader: inout WireReader) throws(WireError) {
        id = try reader.id("task ID")
        let code = try reader.u8("verdict")
        status = try reader.status()
        switch code {
        case 0: verdict = .done
        case 1: verdict = .unknown
        case 2: verdict = .notPossible
        default:
            guard let code = RefusalCode(rawValue: code) else { throw .invalid(field: "verdict") }
            verdict = .refused(Refusal(code, try reader.text("message")))
        }
    }
}

/// What Storage answers to a change that a client asked for.
package enum ChangeVerdict: Sendable, Equatable {
    /// A task that waited is cancelled; `due`: nanoseconds of `CLOCK_BOOTTIME` where it was scheduled,
    /// else 0.
    case withdrawn(Placement, due: DueTime)
    /// A task that ran is cancelled, under this lease.
    case revoked(Lease)
    /// It waits again.
    case requeued(Placement)
    /// It is gone.
    case forgotten
    /// Nothing was changed; a cancelled task that is to be cancelled is so already.
    case unchanged(TaskStatus?)
    case refused(Refusal)

    package func write(to writer: inout WireWriter) {
        switch self {
        case .withdrawn(let placement, let due):
            writer.u8(1)
            placement.write(to: &writer)
            writer.integer(due.rawValue)
        case .revoked(let lease):
            writer.u8(2)
            writer.integer(lease.rawValue)
        case .requeued(let placement):
            writer.u8(3)
            placement.write(to: &writer)
        case .forgotten: writer.u8(6)
        case .unchanged(let status):
            writer.u8(4)
            writer.u8(status?.code ?? 0)
        case .refused(let refusal):
            writer.u8(5)
            writer.u8(refusal.code.rawValue)
            writer.text(refusal.message)
        }
    }

    package init(from reader: inout WireReader) throws(WireError) {
        switch try reader.u8("change") {
        case 1: self = .withdrawn(try Placement(from: &reader), due: try reader.dueTime())
        case 2: self = .revoked(try reader.lease("lease"))
        case 3: self = .requeued(try Placement(from: &reader))
        case 6: self = .forgotten
        case 4: self = .unchanged(try reader.status())
        case 5:
            guard let code = RefusalCode(rawValue: try reader.u8("code")) else {
                throw WireError.invalid(field: "code")
            }
            self = .refused(Refusal(code, try reader.text("message")))
        default: throw .invalid(field: "change")
        }
    }
}
