// Part of QTasks. License: see LICENSE.

package import QTasksWire

/// Ends of workers that the Broker hasn't taken yet.
///
/// A worker and the Broker may die at once, and a send that returns has proven nothing: each end is kept
/// until its number comes back, and sent again to whichever Broker greets us next.
package struct ExitOutbox {
    /// Of more the oldest are forgotten: a Broker that stays away keeps no evidence, but no memory either.
    static let kept = 256

    package init() {}

    private var entries: [(number: UInt64, message: [UInt8])] = []
    private var nextNumber: UInt64 = 1

    /// Keeps it.
    ///
    /// - Returns: What to send now.
    package mutating func add(_ exit: ExitMessage) -> [UInt8] {
        let message = exit.encoded(number: nextNumber)
        entries.append((nextNumber, message))
        nextNumber += 1
        if entries.count > Self.kept { entries.removeFirst() }
        return message
    }

    /// The Broker has it.
    package mutating func taken(_ number: UInt64) {
        entries.removeAll { $0.number == number }
    }

    /// What a new session begins with, in order.
    package var messages: [[UInt8]] { entries.map(\.message) }
}
