// Part of QTasks. License: see LICENSE.
//
// The Starter's connection: how a stop and a rolling restart come in, and what goes out that only the
// Broker knows: who works, who was let go, whether anything is left to do.

import HeapModule
package import QTasksModel
import QTasksWire

/// What the Broker owes the Starter, and whoever asked for something that the Starter does.
struct StarterView {
    /// Restarts that may be asked for at once, by all sessions.
    static let restartsMax = 1000

    /// `run --until-idle`: the system ends as soon as there is nothing to do.
    var endsWhenIdle = false

    /// What keeps it from ending was logged.
    var hasSaidWhatIsLeft = false

    /// Clients that wait for the end of a rolling restart.
    var restarts: [(session: Session, number: UInt64)] = []

    /// Evidence that Storage may be asked to record at once: as much as the Starter keeps.
    static let evidenceMax = 256

    /// Deaths and their causes.
    var register = DeathRegister()

    /// What Storage hasn't recorded yet, by proposal.
    var evidence: [UInt64: DeathEvidence] = [:]
}

extension BrokerState {
    mutating func starterMessage(
        _ header: MessageHeader,
        _ reader: inout WireReader,
        _ session: Session
    ) throws(WireError) {
        switch header.command {
        case .starterHello:
            starter = session
            tellStarter()
        case .exit:
            reaped(try ExitMessage(from: &reader), header.number)
        case .drain: drain(graceMilliseconds: try reader.integer("grace", as: UInt64.self))
        case .stop: stopStorage()
        case .retire: letGo(try WorkerNews.read(from: &reader))
        case .roll: rolled(try reader.text("failure"))
        case .idle: starterView.endsWhenIdle = true
        default: throw .invalid(field: "command")
        }
    }

    /// Tells the Starter that the system serves, and all else that a new session of it may have missed.
    mutating func tellStarter() {
        guard let starter, storage.isUp else { return }
        outbox.toWorkers.append((starter, WireWriter(.ready).bytes))
        for number in roster.all where roster[number].session != nil {
            tellStarter(.joined, of: number)
        }
        if !starterView.restarts.isEmpty { askForRoll() }
    }

    /// Tells the Starter of one worker.
    ///
    /// It knows which ones it has started, whatever language they speak.
    mutating func tellStarter(_ command: Command, of worker: Roster.Number) {
        guard let starter, !roster[worker].isRemote else { return }
        let news = WorkerNews.encoded(command, pid: roster[worker].process.pid)
        outbox.toWorkers.append((starter, news))
    }

    // MARK: Ends of workers

    /// The Starter has buried a worker, and tells how it ended; the requeue has not waited for it.
    private mutating func reaped(_ exit: ExitMessage, _ number: UInt64) {
        if starterView.register.isRecorded(exit) { return answerExit(number) }
        let isExpected = roster.all.contains {
            let process = roster[$0].process
            return process.pid == exit.pid && process.startTime == exit.startTime
        }
        let evidence = starterView.register.take(exit, number: number, isExpected: isExpected)
        if let evidence { record(evidence) }
    }

    /// The Starter keeps it until then, for the next Broker.
    private mutating func answerExit(_ number: UInt64) {
        guard let starter else { return }
        outbox.toWorkers.append((starter, WireWriter(.exit, number: number).bytes))
    }

    /// A worker's process has ended: its cause may be known already, or come later.
    ///
    /// Its leases' ends are proposed before this, which they are the evidence of.
    mutating func remember(_ entry: WorkerEntry, holding holdings: [Holding]) {
        let evidence = starterView.register.died(entry.id, entry.process, holding: holdings)
        if let evidence { record(evidence) }
    }

    /// All that is known of a death is together, once for each.
    private mutating func record(_ evidence: DeathEvidence) {
        report(evidence)
        guard starterView.evidence.count < StarterView.evidenceMax else {
            notice(
                "evidence dropped",
                "Storage records nothing: how a worker ended is not kept",
                [("pid", "\(evidence.exit.pid)")],
                isWarning: true
            )
            return recorded(evidence)
        }
        let number = takeNumber()
        starterView.evidence[number] = evidence
        propose(.evidence(number: number, evidence.exit))
    }

    /// Storage has forgotten what it was asked: it is asked again.
    mutating func proposeEvidenceAgain() {
        for (number, evidence) in starterView.evidence {
            propose(.evidence(number: number, evidence.exit))
        }
    }

    /// It is in the log.
    mutating func evidenceRecorded(_ number: UInt64) {
        guard let evidence = starterView.evidence.removeValue(forKey: number) else { return }
        recorded(evidence)
    }

    private mutating func recorded(_ evidence: DeathEvidence) {
        starterView.register.recorded(evidence.exit)
        answerExit(evidence.number)
    }

    private mutating func report(_ evidence: DeathEvidence) {
        let exit = evidence.exit
        var details = [
            (key: "pid", value: "\(exit.pid)"),
            (key: "maxResidentBytes", value: "\(exit.maxResidentBytes)"),
            (
                key: "cpuMicroseconds",
                value: "\(exit.userMicroseconds &+ exit.systemMicroseconds)"
            ),
            (key: "tasks", value: "\(evidence.holdings.count)"),
        ]
        if let worker = evidence.worker { details.append((key: "worker", value: "\(worker)")) }
        let lastLine = exit.errorTail.split(separator: UInt8(ascii: "\n")).last ?? []
        if !lastLine.isEmpty {
            let text = String(decoding: lastLine.suffix(200), as: UTF8.self)
            details.append((key: "stderr", value: text))
        }
        notice(
            "worker reaped",
            exit.wasSignal ? "killed by signal \(exit.code)" : "exit code \(exit.code)",
            details
        )
    }

    // MARK: Recycling

    /// A worker's attempt has ended: this may have been its last one (`--recycle-tasks`,
    /// `--recycle-rss`).
    mutating func considerRecycling(_ id: WorkerID) {
        let rules = settings.config.workerRules
        guard rules.recycleTasks != nil || rules.recycleRSS != nil,
            let worker = roster.number(of: id), mayRecycle(worker)
        else { return }
        roster[worker].ended += 1
        if let most = rules.recycleTasks, roster[worker].ended >= most {
            recycle(worker, "it has run \(roster[worker].ended) tasks")
        } else if rules.recycleRSS != nil {
            outbox.toWeigh[id] = roster[worker].process.pid
        }
    }

    /// A worker was found to have so much in memory.
    package mutating func weighed(_ id: WorkerID, residentBytes: UInt64) {
        guard let most = settings.config.workerRules.recycleRSS, residentBytes >= UInt64(most),
            let worker = roster.number(of: id), mayRecycle(worker)
        else { return }
        recycle(worker, "it has \(residentBytes) bytes in memory")
    }

    /// Nobody would replace one that wasn't started by the Starter.
    private func mayRecycle(_ worker: Roster.Number) -> Bool {
        roster[worker].parentPid == settings.parentPid && !roster[worker].isRetired
            && !roster[worker].isLeaving && !stopping.isUnderWay
    }

    /// It goes on being leased to until it says goodbye: one that knows no RETIRE then works on.
    private mutating func recycle(_ worker: Roster.Number, _ reason: String) {
        guard let session = roster[worker].session else { return }
        roster[worker].isRetired = true
        outbox.toWorkers.append((session, WireWriter(.retire).bytes))
        notice(
            "worker recycled",
            "a worker makes room for a new one: \(reason)",
            [("worker", "\(roster[worker].id)"), ("pid", "\(roster[worker].process.pid)")]
        )
    }

    /// A worker leaves, and gets nothing more.
    mutating func saidGoodbye(_ worker: Roster.Number) {
        roster[worker].isLeaving = true
        // one that leaves before it has done anything would do so again, and at once
        if roster[worker].sent > 0 { tellStarter(.killed, of: worker) }
    }

    // MARK: Rolling restart

    /// A client asks for new workers in place of all that there are.
    mutating func restart(_ flags: UInt8, number: UInt64, session: Session) {
        let refusal: Refusal? =
            if flags != RestartMessage.rolling {
                Refusal(.badOption, "a restart is a rolling one: flags \(flags)")
            } else if stopping.isUnderWay {
                Refusal(.stopping, "the system is being stopped: no worker is replaced any more")
            } else if starterView.restarts.count >= StarterView.restartsMax {
                Refusal(.overloaded, "\(StarterView.restartsMax) wait for a restart already")
            } else {
                nil
            }
        if let refusal {
            clients.send(ErrorMessage.encoded(refusal, number: number), to: session)
            return
        }
        starterView.restarts.append((session, number))
        askForRoll()
    }

    /// One that is under way takes further requests in.
    private mutating func askForRoll() {
        guard let starter else { return }
        outbox.toWorkers.append((starter, WireWriter(.roll).bytes))
    }

    /// Those who wait hear how it went.
    mutating func rolled(_ failure: String) {
        for asked in starterView.restarts {
            let answer = RestartMessage.answer(.restart, number: asked.number, failure: failure)
            clients.send(answer, to: asked.session)
        }
        starterView.restarts = []
    }

    /// The Starter has a new worker in place of this one, and is about to send it SIGTERM.
    private mutating func letGo(_ pid: Int32) {
        guard let worker = roster.all.first(where: { roster[$0].process.pid == pid }) else {
            return
        }
        roster[worker].isLeaving = true
        guard let session = roster[worker].session else { return }
        outbox.toWorkers.append((session, WireWriter(.retire).bytes))
    }

    // MARK: Ending when idle

    /// Begins the drain where nothing is queued, scheduled or running and nobody is owed an answer.
    ///
    /// In one step with that look, so that nothing can be added in between.
    mutating func endIfIdle() {
        guard starterView.endsWhenIdle, stopping == .no, storage.isUp, leases.isEmpty,
            scheduled.isEmpty, scheduledByWall.isEmpty, lanes.unanswered == 0, clients.isOwedNothing
        else { return }
        guard lanes.waiting == 0 else { return sayWhatIsLeft() }
        if let starter { outbox.toWorkers.append((starter, WireWriter(.idle).bytes)) }
        notice("idle", "nothing is queued, scheduled or running: the system ends")
        drain(graceMilliseconds: 0)
    }

    private mutating func sayWhatIsLeft() {
        guard !starterView.hasSaidWhatIsLeft, roster.count > 0 else { return }
        let stuck = lanes.open.filter { $0.lane.waiting > 0 }
        guard stuck.allSatisfy({ lanes.workers(of: $0.number) == 0 || lanes.isPaused($0.number) })
        else { return }
        starterView.hasSaidWhatIsLeft = true
        let names = Set(stuck.map(\.lane.key.name)).sorted().prefix(10).joined(separator: ", ")
        notice(
            "not idle",
            "what is left can't start, for want of a worker or since its queue is paused: the system doesn't end",
            [("tasks", "\(lanes.waiting)"), ("names", names)],
            isWarning: true
        )
    }
}
