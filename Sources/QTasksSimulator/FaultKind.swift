// Part of QTasks. License: see LICENSE.

/// What can go wrong in a run, and what operators do in the middle of it; counted where it really struck.
package enum FaultKind: Int, CaseIterable, Sendable {
    // Processes.
    case killWorker, killStorage, killGlobalConfig, killBroker, killStarter, killClient, killAll
    /// SIGSTOP, and SIGCONT later.
    case stall
    case workerLeaves
    /// A handler goes on although its time is over or its task is cancelled: its worker is ended over it.
    case limitOverrun
    /// The Starter is asked to stop, drains, and is started again.
    case stop
    case clientGivesUp

    // The network.
    case brokenSession, messageLost, messageLate
    /// A connection that breaks delivers its last message twice, which ZeroMQ itself never does.
    case messageRepeated
    /// What an older connection still delivers is read after what a newer one brought.
    case messageReordered

    // The host and its disk.
    case powerLoss
    /// A power failure found bytes that were not synced.
    case unsyncedBytes
    case slowDisk
    /// `EIO`.
    case writeError, syncError
    /// `ENOSPC`, until there is room again.
    case diskFull
    /// A bit turned over in the newest meta page, or in a segment.
    case metaRot, segmentRot
    /// The wall clock is set, either way; the time since the boot goes on.
    case clockStep
    /// What a reference pointed to is gone, or can't be read.
    case placeGone

    // Operators.
    case queuePaused
    /// How many run at once, of a queue or of a key, is limited, or another limit.
    case queueLimited
    /// The same of how many start in a time.
    case startsLimited
    /// The same of how many wait.
    case queueBounded
    /// A dead task is forgotten before its time is over.
    case deadPurged

    /// As `--json` names it: `kill_worker`.
    package var name: String {
        "\(self)".reduce(into: "") { name, letter in
            name += letter.isUppercase ? "_\(letter.lowercased())" : "\(letter)"
        }
    }
}

/// How often each kind of fault struck.
package struct FaultCounts: Sendable, Equatable {
    private var counts = [Int](repeating: 0, count: FaultKind.allCases.count)

    package init() {}

    package subscript(kind: FaultKind) -> Int {
        get { counts[kind.rawValue] }
        set { counts[kind.rawValue] = newValue }
    }

    package static func += (left: inout Self, right: Self) {
        for place in left.counts.indices { left.counts[place] += right.counts[place] }
    }
}
