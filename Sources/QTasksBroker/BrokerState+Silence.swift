// Part of QTasks. License: see LICENSE.
//
// Workers whose processes the kernel can't show us: heartbeats tell that they live, and a silence lets
// us guess that they don't. Fencing makes a wrong guess harmless: what they hand in later is refused by its
// lease (recovery.md, H19).

import QTasksModel
import QTasksWire
import ZeroMQ

extension BrokerState {
    /// A `HELLO` as it is to be believed, after who is at the other end of the connection; `nil`: the
    /// worker is refused.
    func located(_ hello: Hello, _ peer: PeerProcess) -> Hello? {
        if peer == .local(pid: hello.process.pid), hello.process.pid > 0 { return hello }
        // one that is watched goes on being watched: the connection this came by may be gone, and its
        // descriptor somebody else's
        if let known = roster.number(of: hello.worker), !roster[known].isRemote,
            roster[known].process == hello.process
        {
            return hello
        }
        guard hello.sendsHeartbeats else { return nil }
        var hello = hello
        hello.process = hello.process.asRemote
        hello.parentPid = 0
        return hello
    }

    /// How often the worker is to be heard of, which goes behind `RECONCILED`.
    mutating func tellHeartbeat(to session: Session) {
        let message = WatchedMessage(
            intervalMilliseconds: UInt32(settings.heartbeatNanoseconds / 1_000_000),
            silenceMilliseconds: UInt32(settings.silenceNanoseconds / 1_000_000)
        )
        outbox.toWorkers.append((session, message.encoded()))
    }

    /// Something came from this connection.
    ///
    /// Costs nothing while no worker is remote.
    mutating func heard(from session: Session) {
        guard silenceAt != nil, let worker = roster.number(of: session) else { return }
        heard(of: worker)
    }

    /// A worker lives, or its time to say so begins.
    mutating func heard(of worker: Roster.Number) {
        guard roster[worker].isRemote else { return }
        let at = now.monotonic + settings.silenceNanoseconds - settings.heartbeatNanoseconds
        roster[worker].silentAt = at
        roster[worker].isDoubted = false
        silenceAt = min(silenceAt ?? .max, at)
    }

    /// Storage is back: while it was away nobody could be greeted, and who had no session couldn't speak.
    mutating func excuseSilence() {
        guard silenceAt != nil else { return }
        for worker in roster.all { heard(of: worker) }
    }

    /// Gives up the workers of whom nothing was heard for too long.
    ///
    /// Never in the turn that finds the silence: a Broker that was stopped itself, or slept with its host, has what
    /// was said meanwhile still before it.
    mutating func endSilences() {
        guard storage.isUp, let due = silenceAt, due <= now.monotonic else { return }
        silenceAt = nil
        for worker in roster.all where roster[worker].isRemote {
            if roster[worker].silentAt <= now.monotonic {
                guard !roster[worker].isDoubted else {
                    giveUp(worker)
                    continue
                }
                roster[worker].isDoubted = true
                roster[worker].silentAt = now.monotonic + settings.heartbeatNanoseconds
            }
            silenceAt = min(silenceAt ?? .max, roster[worker].silentAt)
        }
        checkDrained()
    }

    /// Its tasks go to others; it hears of that with the answer to its next `HELLO`, if it lives.
    private mutating func giveUp(_ number: Roster.Number) {
        let entry = roster[number]
        if let kind = entry.kind { lanes.leave(kind) }
        if suspectHolder == number { suspectHolder = nil }
        parcels[number] = nil
        revoked[number] = nil
        roster.remove(number)
        // its next life here counts its sessions anew: what was asked for this one is not for that
        for lease in leases.keys where leases[lease]?.worker == entry.id {
            leases[lease]?.sessionNumber = LeaseEntry.noSession
        }
        for lease in entry.leases where leases[lease]?.release == nil {
            release(lease, cause: .silence)
        }
        limits.removeAll(of: entry.id)
        // alive after all, it says what it holds as soon as it reads this. Once, and by the same connection: a second
        // HELLO would not list what was sent meanwhile, and that would be given to others (P5)
        if let session = entry.session { welcomeWorker(session) }
        notice(
            "worker silent",
            "nothing was heard of a worker that can't be watched; what it ran goes to others",
            [("worker", "\(entry.id)"), ("tasks", "\(entry.leases.count)")],
            isWarning: !stopping.isUnderWay && !entry.isLeaving
        )
    }

    /// An attempt of a worker out of reach goes on past its limit: it ends without it.
    ///
    /// Its slot there stays taken until it says that the handler has returned.
    mutating func passOver(_ lease: Lease, of worker: Roster.Number) {
        let attempt = limits[lease]?.attempt
        limits.remove(lease)
        roster[worker].lingering.insert(lease)
        let isOurs = leases[lease].map { $0.id != nil && $0.release == nil } ?? false
        if isOurs, let attempt {
            endOverdue(lease, OverdueAttempt(worker: roster[worker].id, attempt))
            revoked[worker, default: []].append(lease)
        }
        notice(
            "attempt passed over",
            isOurs
                ? "an attempt goes on although its time is over, in a process that can't be reached"
                : "a handler goes on although its task is over, in a process that can't be reached",
            [
                ("worker", "\(roster[worker].id)"), ("lease", "\(lease)"),
                ("task", leases[lease]?.id.map { "\($0)" } ?? "-"),
            ],
            isWarning: true
        )
    }

    /// The system stops, and a worker out of reach can't be killed: what it holds is given back over its head.
    mutating func takeBack(_ worker: Roster.Number) {
        for lease in roster[worker].leases where leases[lease]?.release == nil {
            release(lease, cause: .drain)
            revoked[worker, default: []].append(lease)
        }
    }
}
