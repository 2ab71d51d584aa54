// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire

/// Who waits for which of Storage's verdicts.
///
/// Belongs to the thread of an ``AppendLogStorage``.
struct WaitingAnswers {
    typealias Answer<Value: Sendable> = StorageMailbox.Answer<Value>

    /// Who waits for the answer to a numbered proposal.
    enum Open {
        case add(Durability, Answer<TaskStatus>)
        case lease(Answer<TaskHandover?>)
        case release(Answer<TaskStatus?>)
        case record(Answer<TaskRecord?>)
    }

    /// Who waits for the verdict on a result, which has no number: it says which attempt it is about.
    struct Save {
        struct Key: Hashable {
            var holding: Holding
            var worker: WorkerID
        }

        var key: Key
        var answer: Answer<SaveVerdict>

        init(_ result: AttemptResult, _ answer: Answer<SaveVerdict>) {
            let holding = Holding(id: result.id, lease: result.lease)
            key = Key(holding: holding, worker: result.worker)
            self.answer = answer
        }
    }

    /// By the proposals' numbers.
    var open: [UInt64: Open] = [:]

    /// The result that is being decided: what is told now is about it, not about an equal one whose
    /// verdict is still to come.
    var newest: Save?

    private var saves: [Save.Key: [Answer<SaveVerdict>]] = [:]

    /// Adds that are written, in the log's order.
    private var adds: [Add] = []

    private struct Add {
        var sequence: UInt64
        var result: Result<TaskStatus, QTasksError>
        var answer: Answer<TaskStatus>
    }

    /// The result that was decided has no verdict yet.
    mutating func keepNewest() {
        guard let save = newest.take() else { return }
        saves[save.key, default: []].append(save.answer)
    }

    /// Answers the adds that are durable by now.
    mutating func durable(upTo mark: UInt64) {
        guard adds.contains(where: { $0.sequence <= mark }) else { return }
        for add in adds where add.sequence <= mark {
            add.answer.resume(returning: add.result)
        }
        adds.removeAll { $0.sequence <= mark }
    }

    /// One message of Storage's core to its Broker.
    ///
    /// - Throws: Where it is none.
    mutating func settle(_ message: UnsafeRawBufferPointer) throws {
        var reader = WireReader(message)
        guard try MessageHeader.read(from: &reader).command == .verdicts else { return }
        _ = try reader.raw(16, "watermarks")
        while !reader.isAtEnd { try settle(try Verdict(from: &reader)) }
    }

    mutating func failAll(_ error: QTasksError) {
        for waiting in open.values {
            switch waiting {
            case .add(_, let answer): answer.resume(returning: .failure(error))
            case .lease(let answer): answer.resume(returning: .failure(error))
            case .release(let answer): answer.resume(returning: .failure(error))
            case .record(let answer): answer.resume(returning: .failure(error))
            }
        }
        keepNewest()
        for answer in saves.values.joined() { answer.resume(returning: .failure(error)) }
        for add in adds { add.answer.resume(returning: .failure(error)) }
        open = [:]
        saves = [:]
        adds = []
    }

    private mutating func settle(_ verdict: Verdict) throws(WireError) {
        switch verdict {
        case .added(let number, let place, _, let due, _, _):
            added(number, place.sequence, .success(due == .none ? .new : .scheduled))
        case .exists(let number, let sequence, let status):
            added(number, sequence, .success(status))
        case .same(let number, let holder, let sequence, let isSynced):
            let error = QTasksError(
                .conflict,
                "task \(holder) holds the unique key",
                cause: HeldKey(holder: holder)
            )
            added(number, sequence, .failure(error), isSynced: isSynced)
        case .refused(let number, let refusal):
            guard case .add(_, let answer) = open.removeValue(forKey: number) else { return }
            answer.resume(returning: .failure(refusal.error))
        case .leased(let number, let leased, let envelope):
            let task = try TaskSubmission(try Envelope(envelope))
            guard case .lease(let answer) = open.removeValue(forKey: number) else { return }
            answer.resume(returning: .success(TaskHandover(task, leased)))
        case .stale(let number, _), .early(let number, _):
            guard case .lease(let answer) = open.removeValue(forKey: number) else { return }
            answer.resume(returning: .success(nil))
        case .released(let number, _, let status, _):
            guard case .release(let answer) = open.removeValue(forKey: number) else { return }
            answer.resume(returning: .success(status))
        case .finished(let holding, let worker, let verdict, _, _, _):
            saved(Save.Key(holding: holding, worker: worker), verdict)
        case .record(let number, let bytes): try read(number, bytes)
        // a task that was not leased in time: whoever asks for it next finds it so
        case .changed: break
        case .final, .counts, .compacted, .notCompacted, .queue, .evidence:
            preconditionFailure("nobody watches, counts, compacts, sets rules or dies here")
        }
    }

    private mutating func added(
        _ number: UInt64,
        _ sequence: UInt64,
        _ result: Result<TaskStatus, QTasksError>,
        isSynced: Bool = false
    ) {
        guard case .add(let durability, let answer) = open.removeValue(forKey: number) else {
            return
        }
        if durability.isToldOnceWritten, !isSynced {
            answer.resume(returning: result)
        } else {
            adds.append(Add(sequence: sequence, result: result, answer: answer))
        }
    }

    private mutating func saved(_ key: Save.Key, _ verdict: ResultVerdict) {
        let verdict: SaveVerdict =
            switch verdict {
            case .committed: .committed
            case .stale: .stale
            case .gone: .gone
            }
        if let save = newest, save.key == key {
            newest = nil
            return save.answer.resume(returning: .success(verdict))
        }
        guard let answer = saves[key]?.first else { return }
        saves[key]?.removeFirst()
        if saves[key]?.isEmpty == true { saves[key] = nil }
        answer.resume(returning: .success(verdict))
    }

    private mutating func read(
        _ number: UInt64,
        _ bytes: UnsafeRawBufferPointer
    ) throws(WireError) {
        guard case .record(let answer) = open.removeValue(forKey: number) else { return }
        guard !bytes.isEmpty else { return answer.resume(returning: .success(nil)) }
        var reader = WireReader(bytes)
        do throws(WireError) {
            answer.resume(returning: .success(try TaskRecord(from: &reader)))
        } catch {
            let reason = QTasksError(.storageUnavailable, "a record can't be read", cause: error)
            answer.resume(returning: .failure(reason))
        }
    }
}

extension TaskHandover {
    init(_ task: TaskSubmission, _ leased: LeasedTask) {
        self.init(
            task: task,
            lease: leased.lease,
            attempt: leased.attempt,
            failures: leased.failures,
            epoch: leased.epoch,
            addedAt: leased.addedAt
        )
    }
}
