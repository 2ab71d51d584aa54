// Part of QTasks. License: see LICENSE.

import AppendLog

@testable import QTasksStorage

/// A log that remembers what was appended since somebody asked.
final class RecordingLog: OverheardLog {
    let kept: Log
    private var fresh: [KeptModel.Record] = []

    init(_ log: Log) {
        kept = log
    }

    /// What was appended since the last call.
    func take() -> [KeptModel.Record] {
        defer { fresh = [] }
        return fresh
    }

    func append(
        kind: StoredKind,
        head: [UInt8],
        body: UnsafeRawBufferPointer
    ) throws(AppendLogError) -> StoredPlace {
        let place = try kept.append(kind: kind, head: head, body: body)
        let bytes = head + Array(body)
        fresh.append(.init(sequence: place.sequence, kind: kind.rawValue, bytes: bytes))
        return place
    }

    /// A record that no version knows.
    func appendUnknown(_ bytes: [UInt8]) throws {
        let (sequence, _) = try kept.append(kind: KeptModel.unknownKind, payload: bytes)
        fresh.append(.init(sequence: sequence, kind: KeptModel.unknownKind, bytes: bytes))
    }
}
