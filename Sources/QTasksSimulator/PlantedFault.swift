// Part of QTasks. License: see LICENSE.

/// A mistake put into the system on purpose, by changing messages on their way, what a core is told, or
/// what the log and the disk say to each other: a checker that doesn't find it isn't worth its name.
package enum PlantedFault: String, CaseIterable, Sendable {
    // The list of recovery.md, chapter 9, in its order.

    /// A result under an older lease is taken for the current one's.
    case staleLeaseAccepted
    /// Each CREDIT counts on top of those before it.
    case creditAsIncrement
    /// What a dead connection still delivers is taken for the new session's.
    case oldSessionHonoured
    /// What a worker lists as running in its HELLO is not looked at.
    case helloNotReconciled
    /// An add that was there already is acknowledged at once.
    case repeatAddAcknowledgedBeforeDurable
    /// Storage itself takes what is written for durable.
    case resultToldBeforeDurable
    /// Releases are decided before the results that have arrived.
    case releaseWithoutReadingPull
    /// What compaction copied counts by where it lies: a copied add is newer than the end of its task.
    case replayByPosition
    /// Compaction lets go of the record that ended a task while its add goes on.
    case finalRecordDroppedBeforeItsAdd
    /// What the newest meta page doesn't name is deleted, though the older one does.
    case filesOfTheOlderMetaDeleted
    /// A sync that failed is done again and believed.
    case tailReusedAfterAFailedSync
    /// A death counts against each of those that died together.
    case sharersDeathsCounted
    /// At the end of the grace leases are given back and their workers go on.
    case drainRequeuesRunningTasks
    /// After a restart tasks stand in line as their adds lie on disk.
    case orderByPosition
    /// A delay is written down by the wall clock alone.
    case dueByWallClockAfterAStep

    // Others.

    /// When a moment of the wall clock comes is reckoned once, and no step moves it.
    case wallClockReckonedOnce
    /// Storage's `durable` watermark says what is only written.
    case addAcknowledgedBeforeDurable
    /// A lease that its worker doesn't hold is never given back.
    case lostDispatchForgotten
    /// The Broker is told that who came last came first.
    case orderReversed
    /// A worker's result is acknowledged when it is passed on, not when it is committed.
    case resultAcknowledgedUnsaved
    /// Compaction carries a task forward as it was added: what happened to it since is lost.
    case carriedAsAdded
    /// Compaction carries a task forward that was forgotten: its add outlives the record of its end.
    case forgottenCarriedForward
    /// What a worker says of a cancelled task under the lease that it had is taken.
    case cancelKeepsLease
    /// A task that is queued again stays in its epoch.
    case requeueWithoutEpoch
    /// Who ran beside a handler that had to be ended with its worker has died of it.
    case hardLimitCountsANeighbour
    /// A Broker that begins anew takes no queue for paused or limited.
    case rulesForgottenAtRestart
    /// One more runs than a queue's or a key's limit lets.
    case limitOffByOne
    /// A rate lets one more start at once than its burst.
    case rateOfEachBurst
    /// A key's tasks wait for longer than its rate says, and others go before them.
    case keyHeldBackTooLong
}

extension PlantedFault {
    /// As `--plant` names it: `stale-lease-accepted`.
    package var name: String {
        rawValue.reduce(into: "") { name, letter in
            name += letter.isUppercase ? "-\(letter.lowercased())" : "\(letter)"
        }
    }

    package init?(name: String) {
        guard let fault = Self.allCases.first(where: { $0.name == name }) else { return nil }
        self = fault
    }
}
