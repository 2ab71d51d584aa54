// Part of QTasks. License: see LICENSE.

/// The tasks of one name in one queue, and of one key where they have one, in the order in which they are
/// leased.
struct Lane {
    /// What makes a lane: what a worker must know, where the task waits, and what limits per key go by.
    struct Key: Hashable {
        var queue: String
        var name: String
        var key: [UInt8] = []
    }

    let key: Key
    let queue: Lanes.QueueNumber
    /// Those with its key in its queue, where it has one.
    let group: Lanes.GroupNumber?
    /// The kinds of workers that can run it.
    var kinds: [Lanes.KindNumber]

    var queued = TaskLine()

    /// Those that run alone, because a process died with them and others in it.
    var suspects = TaskLine()

    /// See `QueueRules.ageing`.
    var ageing: UInt32? {
        get { queued.ageing }
        set {
            queued.ageing = newValue
            suspects.ageing = newValue
        }
    }

    /// Adds proposed without a lease whose verdict is still to come: who comes later must not
    /// overtake them.
    var unanswered = 0

    /// Leases on tasks of this lane, and tasks that wait for a time.
    var leased = 0
    var scheduled = 0

    var waiting: Int { queued.count + suspects.count }

    /// Whether nothing would be forgotten if the lane went.
    var isUnused: Bool {
        queued.isEmpty && suspects.isEmpty && unanswered == 0 && leased == 0 && scheduled == 0
    }
}
