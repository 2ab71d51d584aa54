// Part of QTasks. License: see LICENSE.
//
// Sessions, credit and deaths of workers (recovery.md, chapter 4).

package import QTasksModel
import QTasksWire

/// Who is at the other end of a worker's connection, as the kernel says (never as the peer says).
package enum PeerProcess: Sendable, Equatable {
    /// A process that the kernel shows us.
    case local(pid: Int32)
    /// Another host, or another pid namespace.
    case remote
    /// It has ended.
    case gone
}

extension BrokerState {
    /// A message on the workers' socket.
    ///
    /// - Parameters:
    ///   - bytes: The message; an empty one is the probe of a new connection.
    ///   - session: Where it came from.
    ///   - peer: Looked up for a `HELLO` and for what only the Starter may say.
    package mutating func workerMessage(
        _ bytes: UnsafeRawBufferPointer,
        from session: Session,
        peer: PeerProcess
    ) {
        if bytes.isEmpty { return greetWorker(session) }
        var reader = WireReader(bytes)
        do {
            let header = try MessageHeader.read(from: &reader)
            heard(from: session)
            try serveWorker(header, &reader, session, peer)
        } catch {
            notice(
                "refused",
                "a worker's message can't be read: \(error)",
                [("peer", "\(session)")],
                isWarning: true
            )
            let unread = error as? MessageHeader.Refusal
            let refusal = unread?.refusal ?? Refusal(.malformed, "\(error)")
            outbox.toWorkers.append((session, ErrorMessage.encoded(refusal, number: 0)))
        }
    }

    /// A connection that a message could not reach: its pidfd will tell if the process is gone.
    package mutating func workerUnreachable(_ session: Session) {
        if session == starter { starter = nil }
        guard let number = roster.number(of: session) else { return }
        roster.endSession(of: number)
    }

    private mutating func greetWorker(_ session: Session) {
        guard storage.isUp else {
            if waitingWorkers.count < 100_000 { waitingWorkers.append(session) }
            return
        }
        welcomeWorker(session)
    }

    mutating func welcomeWorker(_ session: Session) {
        greetings += 1
        outbox.toWorkers.append((session, welcome(number: greetings)))
    }

    private mutating func serveWorker(
        _ header: MessageHeader,
        _ reader: inout WireReader,
        _ session: Session,
        _ peer: PeerProcess
    ) throws {
        switch header.command {
        case .hello: try hello(try Hello(from: &reader), answering: header.number, session, peer)
        case .credit:
            let window = try CreditMessage.read(from: &reader)
            guard let worker = roster.number(of: session) else { return }
            roster[worker].window = max(roster[worker].window, window)
            dispatchWaiting()
        case .handBack:
            let message = try HandBack(from: &reader)
            guard let worker = roster.number(of: session) else { return }
            for holding in message.holdings where roster[worker].leases.contains(holding.lease) {
                release(holding.lease, cause: message.isUnreadable ? .unreadable : .handedBack)
                if message.isUnreadable { countUnreadable(worker) }
            }
        case .running: running(try RunningAttempt.read(from: &reader), from: session)
        case .heartbeat: break  // it was heard
        case .goodbye:
            guard let worker = roster.number(of: session) else { return }
            saidGoodbye(worker)
        case .starterHello, .exit, .drain, .stop, .retire, .roll, .idle:
            guard peer == .local(pid: settings.parentPid) else {
                notice(
                    "refused",
                    "only the Starter may send '\(header.command)'",
                    [("peer", "\(session)")],
                    isWarning: true
                )
                return
            }
            try starterMessage(header, &reader, session)
        default:
            throw WireError.invalid(field: "command")
        }
    }

    // MARK: HELLO

    private mutating func hello(
        _ told: Hello,
        answering greeting: UInt64,
        _ session: Session,
        _ peer: PeerProcess
    ) throws {
        guard storage.isUp else {
            // Storage went after our WELCOME: it gets another, and says all this again
            if !waitingWorkers.contains(session) { greetWorker(session) }
            return
        }
        guard peer != .gone else { return }
        guard let hello = located(told, peer) else {
            notice(
                "refused",
                "a worker whose process can't be watched from here, and that sends no heartbeats",
                [("worker", "\(told.worker)"), ("pid", "\(told.process.pid)")],
                isWarning: true
            )
            let refusal = Refusal(
                .unknownCommand,
                "a worker on another host or in another pid namespace must send heartbeats"
            )
            outbox.toWorkers.append((session, ErrorMessage.encoded(refusal, number: 0)))
            return
        }
        guard hello.names.allSatisfy({ TaskName.isValid($0) }) else {
            throw WireError.invalid(field: "names")
        }
        let known = roster.number(of: hello.worker)
        guard known != nil || roster.count < Roster.workersMax else { return }
        let worker = known ?? roster.add(WorkerEntry(id: hello.worker, process: hello.process))
        // what an older connection brings late is not how things stand
        guard greeting == 0 || greeting >= roster[worker].greeting else { return }
        roster[worker].greeting = greeting
        roster.begin(session, of: worker)
        // what this turn was to send on the older session is lost with it, as far as HELLO doesn't list it
        parcels[worker] = nil
        let wasReader = roster[worker].readsStore
        let wasWatched = known != nil && !roster[worker].isRemote
        describe(worker, hello)
        heard(of: worker)
        if hello.process.isRemote {
            if wasWatched { outbox.deeds.append(.forget(hello.worker)) }
        } else if !wasWatched {
            outbox.deeds.append(.check(hello.worker, hello.process))
        }
        propose(.worker(id: hello.worker, process: hello.process))
        if hello.readsStore || wasReader { propose(.reader(id: hello.worker, hello.readsStore)) }
        reconcile(worker, hello, session)
        if hello.process.isRemote { tellHeartbeat(to: session) }
        tellStarter(.joined, of: worker)
        notice(
            "worker joined",
            "a worker is ready",
            [
                ("worker", "\(hello.worker)"),
                ("pid", hello.process.isRemote ? "remote" : "\(hello.process.pid)"),
                ("slots", "\(hello.slots)"),
            ]
        )
        dispatchWaiting()
    }

    private mutating func describe(_ worker: Roster.Number, _ hello: Hello) {
        if let kind = roster[worker].kind { lanes.leave(kind) }
        roster[worker].process = hello.process
        roster[worker].parentPid = hello.parentPid
        roster[worker].slots = Int(hello.slots)
        roster[worker].window = hello.window
        roster[worker].names = Set(hello.names)
        roster[worker].isLeaving = false
        roster[worker].readsStore = hello.readsStore
        roster[worker].reportsRunning = hello.reportsRunning
        // it tells anew what is limited
        limits.removeAll(of: hello.worker)
        roster[worker].lingering = []
        roster[worker].unreadable = 0
        roster[worker].kind = lanes.join(roster[worker].names)
    }

    /// Compares what the worker holds with what the log says (H1, H2).
    private mutating func reconcile(
        _ worker: Roster.Number,
        _ hello: Hello,
        _ session: Session
    ) {
        var answer = WireWriter(.reconciled)
        var listed: Set<Lease> = []
        roster[worker].unwrittenResults = []
        for holding in hello.running {
            listed.insert(holding.lease)
            // one that was given up for its silence may come back before Storage has released what it held
            let isKnown = leases[holding.lease].map {
                $0.worker == hello.worker && $0.id == holding.id && $0.release?.cause != .silence
            }
            answer.integer(holding.lease.rawValue)
            let verdict: ReconcileVerdict = isKnown == true ? .keep : .abandon
            answer.u8(verdict.rawValue)
            if isKnown == true { hold(holding.lease, worker) }
        }
        for holding in hello.done {
            listed.insert(holding.lease)
            answer.integer(holding.lease.rawValue)
            answer.u8(ReconcileVerdict.sendAgain.rawValue)
            // only what was granted has an ID here: a lease that is still asked for was sent to nobody
            if let entry = leases[holding.lease], entry.worker == hello.worker,
                entry.id == holding.id
            {
                hold(holding.lease, worker)
            } else {
                roster[worker].unwrittenResults.insert(holding.lease)
            }
        }
        outbox.toWorkers.append((session, answer.bytes))
        for lease in roster[worker].leases where !listed.contains(lease) {
            roster[worker].leases.remove(lease)
            release(lease, cause: .notHeld)
        }
    }

    private mutating func hold(_ lease: Lease, _ worker: Roster.Number) {
        leases[lease]?.isHeld = true
        roster[worker].leases.insert(lease)
        if leases[lease]?.isSuspect == true { roster[worker].isExclusive = true }
    }

    /// A worker couldn't read arguments in the store: that task is sent whole next, and a worker that
    /// never can gets no more places.
    private mutating func countUnreadable(_ worker: Roster.Number) {
        roster[worker].unreadable += 1
        guard roster[worker].readsStore, roster[worker].unreadable == WorkerEntry.unreadableMax
        else { return }
        roster[worker].readsStore = false
        propose(.reader(id: roster[worker].id, false))
        notice(
            "store unreadable",
            "a worker can't read what it is told of the store: it is sent all arguments instead",
            [("worker", "\(roster[worker].id)")],
            isWarning: true
        )
    }

    // MARK: Deaths

    /// The kernel says that this worker's process has ended, or that it isn't there any more.
    ///
    /// - Parameters:
    ///   - id: Which worker.
    ///   - wasSeen: The Broker watched it die; else it was gone before this Broker began, which counts
    ///     against no task.
    package mutating func workerDied(_ id: WorkerID, wasSeen: Bool) {
        guard let number = roster.number(of: id) else { return }
        let entry = roster[number]
        // one that left in order has lost nothing
        if !entry.isLeaving || !entry.leases.isEmpty { deaths += 1 }
        // whatever its tasks left running must not write beside the next attempt (H16)
        outbox.deeds.append(.kill(id))
        outbox.deeds.append(.forget(id))
        let holdings = entry.leases.compactMap { lease in
            leases[lease]?.id.map { Holding(id: $0, lease: lease) }
        }
        let isShared = entry.leases.count + entry.lingering.count > 1
        // one that never spoke to this Broker was on its way out with an earlier run's Starter, for all
        // that is known; and one that was leaving ended because it was asked to
        let isSeen = wasSeen && entry.sessionNumber > 0
        let isOurs = entry.wasKilledByUs || entry.wasEndedForLimit || entry.isLeaving
        let isToBlame = isSeen && !isOurs
        let cause: ReleaseCause =
            entry.wasKilledByUs
            ? .drain : entry.wasEndedForLimit ? .neighbour : isSeen ? .death : .goneBefore
        if let kind = entry.kind { lanes.leave(kind) }
        if suspectHolder == number { suspectHolder = nil }
        parcels[number] = nil
        roster.remove(number)
        for lease in entry.leases {
            if let limit = limits[lease], limit.isOver, let attempt = limit.attempt {
                endOverdue(lease, OverdueAttempt(worker: id, attempt))
                continue
            }
            release(
                lease,
                cause: cause,
                isShared: isToBlame && isShared,
                counts: isToBlame && !isShared
            )
        }
        limits.removeAll(of: id)
        remember(entry, holding: holdings)
        notice(
            "worker died",
            "a worker's process has ended; what it ran goes to others",
            [
                ("worker", "\(id)"), ("pid", "\(entry.process.pid)"),
                ("tasks", "\(entry.leases.count)"),
            ],
            isWarning: !stopping.isUnderWay && !entry.isLeaving
        )
        checkDrained()
    }
}
