// Part of QTasks. License: see LICENSE.

import AppendLog

@testable import QTasksStorage

/// A log that remembers what was appended since somebody asked.
final class RecordingLog: KeptLog {
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

    var incarnation: UInt32 { kept.incarnation }
    var isShortOfSpace: Bool { kept.isShortOfSpace }

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

    func withRecord<Result>(
        at position: RecordPosition,
        _ body: (UnsafeRawBufferPointer) -> Result
    ) throws(AppendLogError) -> Result {
        try kept.withPayload(at: position, body)
    }

    func withStart<Result>(
        of position: RecordPosition,
        _ body: (RecordStart) -> Result
    ) throws(AppendLogError) -> Result? {
        try kept.withStart(of: position, body)
    }

    func hold(_ segment: UInt32) {
        kept.hold(segment)
    }

    func unhold(_ segment: UInt32) {
        kept.unhold(segment)
    }

    func carry(
        _ view: borrowing RecordView,
        kind: UInt8,
        flags: UInt8,
        payloadBytes: Int,
        fill: (UnsafeMutableRawBufferPointer) -> Void
    ) throws(AppendLogError) -> RecordPosition {
        try kept.carry(view, kind: kind, flags: flags, payloadBytes: payloadBytes, fill: fill)
    }
}
