// Part of QTasks. License: see LICENSE.
//
// Who runs what, and why a second time (P2, P4, P5).

import QTasksModel
import QTasksStorage
import QTasksWire
import QTasksWorker

/// One execution of a handler.
struct Execution {
    var holding: Holding
    let worker: SimulatedWorker
    /// The handler has not returned, and its process lives.
    var isRunning = true
    /// Its worker asked it to end: the outcome may be decided without it.
    var isCancelled = false
    /// What the handler returned.
    var outcome: TaskOutcome?
}

extension Checker {
    /// A worker starts a handler.
    ///
    /// - Returns: What that handler will do.
    func started(_ delivery: TaskDelivery, by worker: SimulatedWorker) -> Scenario.Step {
        let id = delivery.id
        world.trace(
            worker.name,
            .started(
                delivery.holding,
                task: world.scenario.number(of: id),
                attempt: delivery.attempt
            )
        )
        if executions[delivery.lease] != nil {
            fail("P5: \(name(id)) is executed twice under \(delivery.lease)")
        }
        if !isTakenAway(delivery.lease) { check(delivery, worker) }
        executions[delivery.lease] = Execution(holding: delivery.holding, worker: worker)
        return world.scenario.step(of: delivery)
    }

    /// Its worker may not have heard yet that the task is cancelled, by an operator who may have it run anew, or
    /// that it is another's by now: it was stalled for long.
    private func isTakenAway(_ lease: Lease) -> Bool {
        changes.revoked.contains(lease) || passedOver.contains(lease)
    }

    /// Its turn it is, by the log, and nobody else's.
    private func check(_ delivery: TaskDelivery, _ worker: SimulatedWorker) {
        let id = delivery.id
        checkLease(delivery, worker)
        for execution in executions.values where execution.holding.id == id && execution.isRunning {
            if !execution.isCancelled, !isTakenAway(execution.holding.lease) {
                fail(
                    "P5: \(name(id)) starts on \(worker.name) under \(delivery.lease) while it "
                        + "runs on \(execution.worker.name) under \(execution.holding.lease)"
                )
            }
        }
        if let last = attempts[id], delivery.attempt <= last {
            fail("P2: \(name(id)) begins attempt \(delivery.attempt) after attempt \(last)")
        }
        attempts[id] = delivery.attempt
    }

    private func isLimited(_ id: TaskID) -> Bool {
        let number = world.scenario.number(of: id)
        return number >= 0
            && world.scenario.tasks[number].submission.timeLimitMilliseconds != nil
    }

    /// A handler gets what its client sent, on whatever way.
    func checkArguments(_ arguments: [UInt8], of id: TaskID) {
        let number = world.scenario.number(of: id)
        guard number >= 0 else { return }
        if arguments != world.scenario.tasks[number].submission.arguments {
            fail("\(name(id)) is executed with other arguments than it was added with")
        }
    }

    private func checkLease(_ delivery: TaskDelivery, _ worker: SimulatedWorker) {
        guard let task = ledger.tasks[delivery.id] else {
            return fail("\(name(delivery.id)) is executed and isn't in the log")
        }
        guard task.status == .process, task.lease == delivery.lease, task.worker == worker.id else {
            return fail(
                "P5: \(worker.name) starts \(name(delivery.id)) under \(delivery.lease); by the "
                    + "log it is \(task.status) under \(task.lease)"
            )
        }
        guard task.attempt == delivery.attempt, task.failures == delivery.failures else {
            return fail(
                "\(name(delivery.id)) is told attempt \(delivery.attempt), failures "
                    + "\(delivery.failures); by the log \(task.attempt), \(task.failures)"
            )
        }
    }

    func returned(_ delivery: TaskDelivery, _ outcome: TaskOutcome) {
        executions[delivery.lease]?.isRunning = false
        executions[delivery.lease]?.outcome = outcome
    }

    /// A worker asked a handler to end.
    func cancelled(_ delivery: TaskDelivery) {
        executions[delivery.lease]?.isCancelled = true
    }

    func workerDied(_ worker: SimulatedWorker) {
        statistics.restarts += 1
        var alone: [Lease] = []
        for (lease, execution) in executions
        where execution.worker === worker && execution.isRunning {
            executions[lease]?.isRunning = false
            if !execution.isCancelled { alone.append(lease) }
        }
        if alone.count > 1 { sharedDeaths.formUnion(alone) }
    }

    // MARK: Records about leases

    /// A lease may end without a result only where its worker is dead, or never began.
    func beforeRelease(_ record: Ledger.Record) {
        guard record.kind == StoredKind.release.rawValue else { return }
        statistics.releases += 1
        record.bytes.withUnsafeBytes { bytes in
            var reader = WireReader(bytes)
            guard let release = try? StoredRelease(from: &reader) else { return }
            check(release)
        }
    }

    private func check(_ release: StoredRelease) {
        let lease = release.holding.lease
        let execution = executions[lease]
        let what = "lease \(lease) of \(name(release.holding.id)) is released as \(release.cause)"
        switch release.cause {
        case .death, .goneBefore, .neighbour:
            if let worker = ledger.tasks[release.holding.id]?.worker,
                let living = world.livingWorker(worker)
            {
                fail("P5: \(what) while \(living.name) lives")
            }
        case .notHeld, .handedBack:
            if let execution, execution.worker.isAlive, !execution.isCancelled {
                fail("P5: \(what), but \(execution.worker.name) has begun to run it")
            }
        case .silence:
            if let execution, execution.worker.isAlive, !execution.worker.isRemote {
                fail("P5: \(what) while \(execution.worker.name), which is watched, lives")
            }
            passedOver.insert(lease)
            statistics.silences += 1
            if execution?.worker.isAlive == true { statistics.falseSilences += 1 }
        case .drain:
            if !world.hasBeenStopped { fail("\(what) and nobody drains") }
            if execution?.worker.isRemote == true { passedOver.insert(lease) }
            if let execution, execution.worker.isAlive, execution.isRunning,
                !execution.worker.isRemote
            {
                fail("P5: \(what), but \(execution.worker.name) still runs it")
            }
        case .unreadable: fail("\(what): a cause that no record has")
        }
        if release.isCounted, sharedDeaths.contains(lease) {
            fail("P4: \(what) and counted, but its process ran others too")
        }
        if release.isCounted, let worker = ledger.tasks[release.holding.id]?.worker,
            wasEnded(worker)
        {
            fail("P4: \(what) and counted, but the Broker ended its worker")
        }
        checkUnread(release.holding, what)
    }

    /// A result that has arrived counts before the release (H26).
    private func checkUnread(_ holding: Holding, _ what: String) {
        for bytes in unreadResults {
            reading(bytes) { _, reader in
                _ = try reader.worker("worker")
                while !reader.isAtEnd {
                    let entry = try ResultEntry(from: &reader)
                    if entry.lease == holding.lease {
                        fail("H26: \(what), but its result is there")
                    }
                }
            }
        }
    }

    /// What is committed is what the handler returned under this very lease.
    func afterFinish(_ record: Ledger.Record) {
        if record.kind == StoredKind.stale.rawValue { statistics.staleResults += 1 }
        guard record.kind == StoredKind.finish.rawValue else { return }
        record.bytes.withUnsafeBytes { bytes in
            var reader = WireReader(bytes)
            guard let finish = try? StoredFinish(from: &reader),
                let entry = try? ResultEntry(finish.result)
            else { return fail("a FINISH that can't be read") }
            check(entry)
        }
    }

    private func check(_ entry: ResultEntry) {
        guard let execution = executions[entry.lease], execution.holding.id == entry.id else {
            return fail("P2: a result of \(name(entry.id)) under \(entry.lease), which nobody ran")
        }
        switch entry.outcome {
        case .error(let failure) where failure.type == TaskFailure.timeLimitType,
            .retry(let failure, _, _) where failure.type == TaskFailure.timeLimitType:
            // by its worker's word, or by the Broker's, which then ended that worker if it could
            let wasOurs = !execution.worker.isAlive || execution.worker.isRemote
            if execution.worker.isRemote { passedOver.insert(entry.lease) }
            if !execution.isCancelled, !wasOurs || !isLimited(entry.id) {
                fail("\(name(entry.id)) had no time limit to run past")
            }
        default:
            if entry.outcome != execution.outcome {
                fail("P2: \(name(entry.id)) did not end like that under \(entry.lease)")
            }
        }
    }
}
