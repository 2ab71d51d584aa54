// Part of QTasks. License: see LICENSE.
//
// From the local queue into a slot, and from there into the outbox.

import QTasksModel
import QTasksWire

extension WorkerState {
    /// Fills free slots from the queue.
    mutating func startQueued(now: Now, into starts: inout [TaskDelivery]) {
        while queued > 0 && occupied < slots, let delivery = queue.popFirst() {
            guard let index = held.index(forKey: delivery.lease),
                held.values[index].phase == .queued
            else { continue }
            queued -= 1
            occupied += 1
            started += 1
            held.values[index].phase = .running
            held.values[index].startedAt = now
            if let limit = timeLimit(of: delivery) {
                let (sum, overflow) = now.monotonic.addingReportingOverflow(limit)
                let deadline = overflow ? UInt64.max : sum
                held.values[index].deadline = deadline
                reports.append(report(of: held.values[index]))
                limited += 1
                limitAt = min(limitAt ?? .max, deadline)
            }
            starts.append(delivery)
        }
    }

    /// What the Broker should know of an attempt with a deadline.
    func report(of task: Held) -> RunningAttempt {
        let delivery = task.delivery
        let rules = rules[delivery.handler]
        let failures = delivery.failures == .max ? .max : delivery.failures + 1
        return RunningAttempt(
            lease: delivery.lease,
            deadline: task.deadline ?? .max,
            startedAt: task.startedAt.wall,
            retryMilliseconds: rules.retry.delayMilliseconds(afterFailures: failures, random: 0.5),
            maxAttempts: rules.retriesTimeLimit
                ? delivery.maxAttempts ?? rules.retry.maxAttempts : 1
        )
    }

    /// A handler has returned whose end the Broker may be waiting for.
    mutating func reportReturn(of task: Held) {
        guard task.deadline != nil || task.phase == .over else { return }
        reports.append(RunningAttempt(returned: task.delivery.lease))
    }

    /// In nanoseconds; `nil`: it may take for ever.
    private func timeLimit(of delivery: TaskDelivery) -> UInt64? {
        guard let milliseconds = delivery.timeLimitMilliseconds else {
            return rules[delivery.handler].timeLimitNanoseconds
        }
        let (nanoseconds, overflow) = milliseconds.multipliedReportingOverflow(by: 1_000_000)
        return overflow ? .max : nanoseconds
    }

    /// A running task no longer has a deadline that counts.
    mutating func forgetLimit(of task: Held) {
        guard task.deadline != nil else { return }
        limited -= 1
        // Else the moment stays: it may come too early, and then only costs a look.
        if limited == 0 { limitAt = nil }
    }

    /// Ends the attempts whose time is over, and finds the next deadline.
    mutating func endOverdue(now: Now) {
        var next = UInt64.max
        var ended: [Held] = []
        for task in held.values {
            guard let deadline = task.deadline else { continue }
            guard task.phase == .running || task.phase == .stopping else { continue }
            if deadline <= now.monotonic {
                ended.append(task)
            } else {
                next = min(next, deadline)
            }
        }
        limitAt = next == .max ? nil : next
        for task in ended { endOverdue(task, now: now) }
    }

    private mutating func endOverdue(_ task: Held, now: Now) {
        let delivery = task.delivery
        forgetLimit(of: task)
        held[delivery.lease]?.phase = .over
        over += 1
        cancels.append(delivery)
        note(.overTimeLimit(delivery.id))
        let end = AttemptEnd(
            lease: delivery.lease,
            outcome: overdueOutcome(of: delivery),
            startedAt: task.startedAt.wall,
            finishedAt: now.wall
        )
        save(end, of: delivery, now: now)
    }

    private mutating func overdueOutcome(of delivery: TaskDelivery) -> TaskOutcome {
        let rules = rules[delivery.handler]
        let milliseconds = (timeLimit(of: delivery) ?? 0) / 1_000_000
        let failure = TaskFailure(
            type: TaskFailure.timeLimitType,
            message: "ran longer than its limit of \(milliseconds) ms"
        )
        guard rules.retriesTimeLimit else { return .error(failure) }
        return rules.retry.outcome(
            of: failure,
            failuresBefore: delivery.failures,
            maxAttempts: delivery.maxAttempts ?? rules.retry.maxAttempts,
            random: nextRandom()
        )
    }

    /// Sends a result, and keeps it until it is acknowledged.
    mutating func save(_ end: AttemptEnd, of delivery: TaskDelivery, now: Now) {
        var outcome = end.outcome
        if case .success(let result, _) = outcome, result.count > resultBytesMax {
            outcome = .error(
                TaskFailure(
                    type: "ResultTooLarge",
                    message: "\(result.count) bytes where the system takes \(resultBytesMax)"
                )
            )
        }
        let entry = ResultEntry(
            id: delivery.id,
            lease: delivery.lease,
            startedAt: end.startedAt,
            finishedAt: end.finishedAt,
            outcome: outcome
        )
        save(entry, now: now)
    }

    mutating func save(_ entry: ResultEntry, now: Now) {
        outbox.add(entry, now: now.monotonic)
        packer.add(entry)
    }

    /// Gives back all that hasn't started.
    mutating func handBackQueue() {
        while let delivery = queue.popFirst() {
            guard let task = held[delivery.lease], task.phase == .queued else { continue }
            held[delivery.lease] = nil
            handBacks.append(delivery.holding)
        }
        queued = 0
        stallAt = nil
    }

    /// Tasks that were asked for ahead of short ones must not wait behind long ones while other
    /// workers may have slots free.
    mutating func checkStall(now: UInt64) {
        stallAt = nil
        guard queued > 0, started == startedBeforeStall else { return }
        note(.stalled(queued))
        ahead.stalled(for: Self.stallNanoseconds)
        handBackQueue()
    }

    /// Watches a queue that stays, and only that.
    mutating func watchStall(now: UInt64) {
        guard queued > 0 else {
            stallAt = nil
            return
        }
        guard stallAt == nil else { return }
        stallAt = now + Self.stallNanoseconds
        startedBeforeStall = started
    }
}
