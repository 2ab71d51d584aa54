// Part of QTasks. License: see LICENSE.

/// What Storage knows of one task at one moment.
public struct TaskRecord: Sendable, Equatable {
    /// What the client said when it added the task.
    public var submission: TaskSubmission

    /// The add's place in the log: tasks of one queue and priority are leased in this order.
    public var sequence: UInt64

    public var status: TaskStatus

    /// How often it was leased in this epoch.
    public var attempt: UInt32

    /// How many attempts ended in an error, for the limit on attempts.
    public var failures: UInt32

    /// How many workers it was proven to have killed.
    public var deaths: UInt32

    /// How often an operator requeued it after an end.
    ///
    /// (id, epoch) is the token that makes effects idempotent.
    public var epoch: UInt16

    /// The lease it runs under, or ended under.
    public var lease: Lease?

    /// The worker of that lease.
    public var worker: WorkerID?

    /// When Storage took the add.
    public var addedAt: Timestamp

    /// Not leased before; only while `scheduled`.
    public var notBefore: Timestamp?

    /// When the last attempt began, as its worker's clock had it.
    public var startedAt: Timestamp?

    /// When the last attempt ended, as its worker's clock had it.
    public var finishedAt: Timestamp?

    /// How the last attempt ended, if one did.
    public var outcome: TaskOutcome?

    /// No worker that is connected now can run it.
    ///
    /// Known to the Broker alone, who fills it in.
    public var isUnroutable = false

    public init(
        submission: TaskSubmission,
        sequence: UInt64,
        status: TaskStatus,
        attempt: UInt32,
        failures: UInt32,
        deaths: UInt32,
        epoch: UInt16,
        lease: Lease? = nil,
        worker: WorkerID? = nil,
        addedAt: Timestamp,
        notBefore: Timestamp? = nil,
        startedAt: Timestamp? = nil,
        finishedAt: Timestamp? = nil,
        outcome: TaskOutcome? = nil
    ) {
        self.submission = submission
        self.sequence = sequence
        self.status = status
        self.attempt = attempt
        self.failures = failures
        self.deaths = deaths
        self.epoch = epoch
        self.lease = lease
        self.worker = worker
        self.addedAt = addedAt
        self.notBefore = notBefore
        self.startedAt = startedAt
        self.finishedAt = finishedAt
        self.outcome = outcome
    }

    public var id: TaskID { submission.id }
    public var name: String { submission.name }

    /// The result's bytes, where there is one.
    public var result: [UInt8]? {
        if case .success(let result, _) = outcome { result } else { nil }
    }

    /// Why the last attempt failed, where it did.
    public var failure: TaskFailure? {
        switch outcome {
        case .error(let failure), .retry(let failure, _, _): failure
        case .success, .cancel, nil: nil
        }
    }
}

extension TaskRecord {
    /// The record as one JSON object on one line: what `get --json` prints and a client in another
    /// language gets.
    ///
    /// Arguments and result stand in it as they are where they are JSON, else as
    /// `{"base64": "..."}`.
    public var json: [UInt8] {
        var json = JSONText()
        json.object { json in
            addIdentity(to: &json)
            addCounts(to: &json)
            addTimes(to: &json)
            json.member("arguments", payload: submission.arguments, type: submission.contentType)
            addOutcome(to: &json)
        }
        return json.bytes
    }

    private func addIdentity(to json: inout JSONText) {
        json.member("id", id.description)
        json.member("name", name)
        json.member("queue", submission.queue)
        json.member("status", status.rawValue)
        json.member("priority", Int(submission.priority))
        if let parent = submission.parent { json.member("parent", parent.description) }
        if isUnroutable { json.member("unroutable", true) }
    }

    private func addCounts(to json: inout JSONText) {
        json.member("attempt", Int(attempt))
        json.member("failures", Int(failures))
        json.member("deaths", Int(deaths))
        json.member("epoch", Int(epoch))
        json.member("sequence", Int(clamping: sequence))
        if let lease { json.member("lease", lease.description) }
        if let worker { json.member("worker", worker.description) }
    }

    private func addTimes(to json: inout JSONText) {
        json.member("addedAt", addedAt.description)
        if let notBefore { json.member("notBefore", notBefore.description) }
        if let expires = submission.expires { json.member("expires", expires.description) }
        if let startedAt { json.member("startedAt", startedAt.description) }
        if let finishedAt { json.member("finishedAt", finishedAt.description) }
    }

    private func addOutcome(to json: inout JSONText) {
        switch outcome {
        case .success(let result, let contentType):
            json.member("result", payload: result, type: contentType)
        case .error(let failure), .retry(let failure, _, _):
            json.key("error")
            json.object { json in
                json.member("type", failure.type)
                json.member("message", failure.message)
                if let trace = failure.trace { json.member("trace", trace) }
            }
        case .cancel(let reason):
            json.member("reason", reason)
        case nil:
            break
        }
    }
}
