// Part of QTasks. License: see LICENSE.

import QTasksWire

/// A subscriber's picture of all settings: the snapshot first, then each change in its turn (the
/// Clone pattern of the ZeroMQ Guide, chapter 5).
///
/// A gap between two numbers, or a `CONFIG_HEAD` that says another number than the picture's, makes
/// it ask for the snapshot again. What is heard before the question is in the answer, so only what
/// comes later is kept until then. No sockets, clocks.
package struct ConfigWatchState {
    /// The first pause before an unanswered question is asked again, in nanoseconds; it doubles.
    package static let patience: UInt64 = 1_000_000_000
    private static let patienceMax: UInt64 = 16_000_000_000

    /// Updates kept while a snapshot is on its way.
    ///
    /// Past that they are dropped, and asked for again.
    private static let keptMax = 256

    /// The settings as they are, once there was a snapshot.
    package private(set) var values: [String: [UInt8]] = [:]

    /// The newest change in ``values``; `nil`: no snapshot came yet.
    package private(set) var sequence: UInt64?

    /// Messages that could not be read.
    package private(set) var malformed: UInt64 = 0

    private var lastNumber: UInt64 = 0
    private var question: Question?
    private var questions: [[UInt8]] = []
    private var changes: [ConfigEntry] = []

    private struct Question {
        var number: UInt64
        var due: UInt64
        var patience: UInt64
        var kept: [ConfigRecord] = []
        /// The highest number heard of since it was asked.
        var newest: UInt64 = 0
    }

    package init() {}

    /// When ``timer(now:)`` is to be called: only while a snapshot is awaited.
    package var nextDeadline: UInt64? { question?.due }

    /// Asks for the first snapshot.
    package mutating func start(now: UInt64) {
        ask(now: now)
    }

    /// One message of the SUB.
    package mutating func published(_ bytes: UnsafeRawBufferPointer, now: UInt64) {
        var reader = WireReader(bytes)
        do {
            let header = try MessageHeader.read(from: &reader)
            switch header.command {
            case .configHead:
                heard(head: header.number, now: now)
            case .configUpdate:
                let entry = try ConfigEntry(from: &reader)
                heard(ConfigRecord(sequence: header.number, entry: entry), now: now)
            default:
                malformed += 1
            }
        } catch {
            // If it was a change, the next number or the next HEAD shows that it is missing.
            malformed += 1
        }
    }

    /// A connection to the ROUTER began: what was asked on an older one is lost.
    package mutating func connected(head: UInt64, now: UInt64) {
        if question != nil || sequence != head { ask(now: now) }
    }

    /// One message of the DEALER.
    package mutating func replied(_ bytes: UnsafeRawBufferPointer, now: UInt64) {
        var reader = WireReader(bytes)
        do {
            let header = try MessageHeader.read(from: &reader)
            switch header.command {
            case .configHead:
                connected(head: header.number, now: now)
            case .configValues where header.number == question?.number:
                take(try ConfigValuesMessage(from: &reader), now: now)
            default:
                break  // the answer to an older question, or a refusal: the timer asks again
            }
        } catch {
            malformed += 1
        }
    }

    /// To be called at ``nextDeadline``.
    package mutating func timer(now: UInt64) {
        guard let question, question.due <= now else { return }
        ask(now: now, patience: min(question.patience * 2, Self.patienceMax))
    }

    /// Messages for the ROUTER; those that can't be sent are simply dropped.
    package mutating func takeQuestions() -> [[UInt8]] {
        defer { questions = [] }
        return questions
    }

    /// What changed since the last call, in order; the first snapshot's keys count as changes.
    package mutating func takeChanges() -> [ConfigEntry] {
        defer { changes = [] }
        return changes
    }
}

extension ConfigWatchState {
    private mutating func ask(now: UInt64, patience: UInt64 = patience) {
        lastNumber += 1
        question = Question(number: lastNumber, due: now + patience, patience: patience)
        questions.append(ConfigGetMessage.snapshot(number: lastNumber))
    }

    private mutating func heard(head: UInt64, now: UInt64) {
        if let newest = question?.newest {
            question?.newest = max(newest, head)
        } else if head != sequence {
            // Ahead: changes were missed. Behind: a new store, or an old message. Ask either way.
            ask(now: now)
        }
    }

    private mutating func heard(_ record: ConfigRecord, now: UInt64) {
        guard question == nil, let sequence else {
            keep(record, now: now)
            return
        }
        guard record.sequence > sequence else { return }
        if record.sequence == sequence + 1 {
            apply(record)
        } else {
            ask(now: now)
        }
    }

    private mutating func keep(_ record: ConfigRecord, now: UInt64) {
        guard var question else {
            ask(now: now)
            return
        }
        self.question = nil  // so that the list isn't copied
        question.newest = max(question.newest, record.sequence)
        if question.kept.count < Self.keptMax { question.kept.append(record) }
        self.question = question
    }

    private mutating func take(_ snapshot: ConfigValuesMessage, now: UInt64) {
        guard let question else { return }
        self.question = nil
        adopt(snapshot)
        for record in question.kept where record.sequence == (sequence ?? 0) + 1 {
            apply(record)
        }
        if (sequence ?? 0) < question.newest { ask(now: now) }
    }

    private mutating func adopt(_ snapshot: ConfigValuesMessage) {
        let gone = values.keys.filter { snapshot.values[$0] == nil }.sorted()
        changes += gone.map { ConfigEntry(key: $0, value: nil) }
        let other = snapshot.values.filter { values[$0.key] != $0.value }
        changes += other.sorted { $0.key < $1.key }.map {
            ConfigEntry(key: $0.key, value: $0.value)
        }
        values = snapshot.values
        sequence = snapshot.sequence
    }

    private mutating func apply(_ record: ConfigRecord) {
        values[record.entry.key] = record.entry.value
        sequence = record.sequence
        changes.append(record.entry)
    }
}
