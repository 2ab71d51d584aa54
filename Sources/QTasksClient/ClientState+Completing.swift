// Part of QTasks. License: see LICENSE.
//
// How calls end: task by task, or by their deadline.

import QTasksModel
import QTasksWire

extension ClientState {
    /// One add is taken, or refused for good.
    mutating func settleAdd(_ claim: Claim, failure: QTasksError?) {
        if claim.waits {
            // one that is taken goes on as a wait
            if let failure { report(.failed(failure), to: claim) }
            return
        }
        update(claim.call) { call in
            call.unanswered -= 1
            if let failure { call.failures[claim.index] = failure }
        }
        endIfComplete(claim.call)
    }

    /// One task's record is there, or there will be none.
    mutating func report(_ report: TaskReport, to claim: Claim) {
        update(claim.call) { call in
            guard call.reports[claim.index] == nil else { return }
            call.reports[claim.index] = report
            call.unanswered -= 1
        }
        endIfComplete(claim.call)
    }

    mutating func endIfComplete(_ number: UInt64) {
        guard let call = calls[number], call.kind != .exchange, call.unanswered == 0 else { return }
        if call.wantsReports {
            complete(number, .success(.reports(call.reports.compactMap { $0 }, of: call.ids)))
        } else {
            complete(number, .success(.added(call.ids, failures: call.failures)))
        }
    }

    mutating func complete(_ number: UInt64, _ result: Result<ClientReply, QTasksError>) {
        guard calls.removeValue(forKey: number) != nil else { return }
        completions.append(ClientCompletion(call: number, result: result))
        pruneDeadlines()
    }

    /// Drops entries of calls that have ended, so that no timer is left for them.
    mutating func pruneDeadlines() {
        while let first = deadlines.first, calls[first.call] == nil { deadlines.removeFirst() }
        if deadlines.count > 2 * calls.count + 64 {
            deadlines.prune { calls[$0.call] != nil }
        }
    }

    /// One of a call's adds isn't taken: this task holds its unique key.
    mutating func rename(_ claim: Claim, to holder: TaskID) {
        update(claim.call) { $0.ids[claim.index] = holder }
    }

    private mutating func update(_ number: UInt64, _ body: (inout Call) -> Void) {
        guard let index = calls.index(forKey: number) else { return }
        body(&calls.values[index])
    }
}

// MARK: - Deadlines

extension ClientState {
    /// A time given by ``nextDeadline`` has come.
    package mutating func timer(now: UInt64) {
        while let first = deadlines.first, first.deadline <= now {
            deadlines.removeFirst()
            expire(first.call, now: now)
        }
        guard session != nil else { return }
        if let at = repetition.at, at <= now { repeatAdds(now: now) }
        if let until = backoff.until, until <= now {
            backoff.fired()
            adds.requeue { $0.phase == .held }
            waits.requeue { $0.phase == .held }
            gets.requeue { $0.phase == .held }
        }
    }

    private mutating func repeatAdds(now: UInt64) {
        let before = now - min(now, repetition.interval)
        let overdue = adds.ids { $0.phase == .sent && $0.sentAt <= before }
        giveUpUncertain(overdue, now: now)
        adds.requeue { $0.phase == .sent && $0.sentAt <= before }
        repetition.fired(overdue: !overdue.isEmpty)
        if adds.unanswered > 0 { repetition.arm(now: now) }
    }

    /// Adds that were sent so long ago that another repetition might be a second execution.
    mutating func giveUpUncertain(_ ids: [TaskID], now: UInt64) {
        for id in ids {
            guard let since = adds[id]?.content.uncertainSince, since + Self.repeatMax < now else {
                continue
            }
            failAdd(
                id,
                QTasksError(
                    .timeout,
                    "\(broker) has not said for 5 minutes whether it took task \(id); "
                        + "look it up before adding it again"
                )
            )
        }
    }

    private mutating func expire(_ number: UInt64, now: UInt64) {
        guard let call = calls[number] else { return }
        if call.kind == .waits || call.kind == .addsWaiting, session != nil, !call.isInGrace {
            update(number) { $0.isInGrace = true }
            deadlines.insert(now + Self.waitGrace, call: number)
            return
        }
        if call.kind == .exchange {
            complete(number, .failure(.unreachable(broker, after: now - call.begun)))
            dropClaims(of: number, call)
            return
        }
        var open: [(Int, TaskReport?, QTasksError?)] = []
        for (index, id) in call.ids.enumerated() {
            if call.wantsReports {
                guard call.reports[index] == nil else { continue }
                open.append((index, lateReport(id, call, now: now), nil))
            } else if adds[id]?.claims.contains({ $0.call == number && $0.index == index }) == true
            {
                open.append((index, nil, lateAdd(id, call, now: now)))
            }
        }
        dropClaims(of: number, call)
        for (index, late, failure) in open {
            let claim = Claim(call: number, index: index)
            if let late {
                report(late, to: claim)
            } else {
                settleAdd(claim, failure: failure)
            }
        }
    }

    private func hasHeardNothing(since begun: UInt64) -> Bool {
        guard session == nil else { return false }
        guard let lastHeardAt else { return true }
        return lastHeardAt < begun
    }

    private func lateReport(_ id: TaskID, _ call: Call, now: UInt64) -> TaskReport {
        if adds[id] != nil, call.kind == .addsWaiting {
            return .failed(lateAdd(id, call, now: now))
        }
        let lookup = call.kind == .gets ? gets[id] : waits[id]
        if let refusal = lookup?.content.refusal {
            return .failed(refusal.error(about: id, after: now - call.begun))
        }
        if hasHeardNothing(since: call.begun) {
            return .failed(.unreachable(broker, after: now - call.begun))
        }
        return .timedOut(last: lookup?.content.last)
    }

    private func lateAdd(_ id: TaskID, _ call: Call, now: UInt64) -> QTasksError {
        if let refusal = adds[id]?.content.refusal {
            return refusal.error(about: id, after: now - call.begun)
        }
        if hasHeardNothing(since: call.begun) {
            return .unreachable(broker, after: now - call.begun)
        }
        return QTasksError(
            .timeout,
            "\(broker) has not acknowledged task \(id) within \((now - call.begun).asSeconds); "
                + "adding it again with the same ID is safe"
        )
    }

    /// Takes a call's claims out of every table, and questions that nobody asks any more with them.
    mutating func dropClaims(of number: UInt64, _ call: Call) {
        switch call.kind {
        case .adds: Self.drop(number, call.ids, from: &adds)
        case .addsWaiting:
            Self.drop(number, call.ids, from: &adds)
            Self.drop(number, call.ids, from: &waits)
        case .waits: Self.drop(number, call.ids, from: &waits)
        case .gets: Self.drop(number, call.ids, from: &gets)
        case .exchange:
            for (request, exchange) in exchanges where exchange.call == number {
                exchanges[request] = nil
            }
        }
        settleTimers()
    }

    private static func drop<Content>(
        _ call: UInt64,
        _ ids: [TaskID],
        from table: inout PendingTable<Content>
    ) {
        for id in ids {
            table.update(id) { $0.claims.removeAll { $0.call == call } }
            if table[id]?.claims.isEmpty == true { table.remove(id) }
        }
    }

    /// Where nothing is left to repeat or to try again, no timer is left either.
    mutating func settleTimers() {
        if adds.unanswered == 0 { repetition = Repetition() }
        if adds.heldCount + waits.heldCount + gets.heldCount == 0 { backoff.fired() }
    }
}

extension Refusal {
    /// What it comes to once there is no time left to try again.
    func error(about id: TaskID, after nanoseconds: UInt64) -> QTasksError {
        QTasksError(
            code.errorCode,
            "task \(id): \(message) (tried again for \(nanoseconds.asSeconds))"
        )
    }
}

extension QTasksError {
    static func unreachable(_ broker: String, after nanoseconds: UInt64) -> QTasksError {
        QTasksError(
            .brokerUnreachable,
            "\(broker) has not answered within \(nanoseconds.asSeconds); is its Broker running?"
        )
    }
}

extension UInt64 {
    /// Nanoseconds as a person reads them, such as `1.5 s`.
    var asSeconds: String {
        let hundredths = (self + 5_000_000) / 10_000_000
        let rest = hundredths % 100
        guard rest != 0 else { return "\(hundredths / 100) s" }
        let digits = rest % 10 == 0 ? "\(rest / 10)" : (rest < 10 ? "0\(rest)" : "\(rest)")
        return "\(hundredths / 100).\(digits) s"
    }
}
