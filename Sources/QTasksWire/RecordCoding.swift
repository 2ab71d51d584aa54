// Part of QTasks. License: see LICENSE.

package import QTasksModel

extension TaskRecord {
    /// Stands for "no such moment".
    private static let noMoment = Int64.min

    /// Appends the record as bytes, for a client that asked for the binary form.
    ///
    /// ```
    ///  status (1), flags (1: bit 0 unroutable, bit 1 has an outcome), epoch (2),
    ///  attempt (4), failures (4), deaths (4), sequence (8), lease (8), worker (16),
    ///  added, not before, began, ended (8 each; nanoseconds since 1970, the least number for none),
    ///  outcome if there is one, then the envelope
    /// ```
    package func write(to writer: inout WireWriter) {
        writer.u8(status.code)
        writer.u8((isUnroutable ? 1 : 0) | (outcome != nil ? 2 : 0))
        writer.integer(epoch)
        writer.integer(attempt)
        writer.integer(failures)
        writer.integer(deaths)
        writer.integer(sequence)
        writer.integer((lease ?? .none).rawValue)
        writer.worker(worker ?? WorkerID(high: 0, low: 0))
        writer.integer(addedAt.nanoseconds)
        writer.integer(notBefore?.nanoseconds ?? Self.noMoment)
        writer.integer(startedAt?.nanoseconds ?? Self.noMoment)
        writer.integer(finishedAt?.nanoseconds ?? Self.noMoment)
        if let outcome { writer.outcome(outcome) }
        do {
            try submission.write(to: &writer)
        } catch {
            preconditionFailure("a stored task was well formed when it was added: \(error)")
        }
    }

    package init(from reader: inout WireReader) throws(WireError) {
        guard let status = TaskStatus(code: try reader.u8("status")) else {
            throw .invalid(field: "status")
        }
        let flags = try reader.u8("flags")
        let epoch = try reader.integer("epoch", as: UInt16.self)
        let attempt = try reader.integer("attempt", as: UInt32.self)
        let failures = try reader.integer("failures", as: UInt32.self)
        let deaths = try reader.integer("deaths", as: UInt32.self)
        let sequence = try reader.integer("sequence", as: UInt64.self)
        let lease = try reader.lease("lease")
        let worker = try reader.worker("worker")
        let addedAt = Timestamp(nanoseconds: try reader.integer("added"))
        let notBefore = try reader.optionalMoment("not before")
        let startedAt = try reader.optionalMoment("began")
        let finishedAt = try reader.optionalMoment("ended")
        let outcome = flags & 2 != 0 ? try reader.outcome() : nil
        let envelope = try Envelope(from: &reader)
        self.init(
            submission: try TaskSubmission(envelope),
            sequence: sequence,
            status: status,
            attempt: attempt,
            failures: failures,
            deaths: deaths,
            epoch: epoch,
            lease: lease == .none ? nil : lease,
            worker: worker == WorkerID(high: 0, low: 0) ? nil : worker,
            addedAt: addedAt,
            notBefore: notBefore,
            startedAt: startedAt,
            finishedAt: finishedAt,
            outcome: outcome
        )
        isUnroutable = flags & 1 != 0
    }
}

extension WireReader {
    fileprivate mutating func optionalMoment(
        _ field: StaticString
    ) throws(WireError) -> Timestamp? {
        let nanoseconds = try integer(field, as: Int64.self)
        return nanoseconds == Int64.min ? nil : Timestamp(nanoseconds: nanoseconds)
    }
}
