// Part of QTasks. License: see LICENSE.
//
// What goes out: everything that was queued in one turn of the loop as one message of its kind, as
// far as the session's window and the size of a message allow.

import QTasksModel
import QTasksWire

extension ClientState {
    /// The turn of the loop is over: makes messages of what is queued.
    package mutating func flush(now: UInt64) {
        guard let session else { return }
        let window = Int(session.windowTasks)
        flushAdds(window: window, maxPayload: Int(session.maxPayload), now: now)
        flushWaits(now: now)
        flushGets(window: window, now: now)
    }

    private mutating func flushAdds(window: Int, maxPayload: Int, now: UInt64) {
        var open = OpenMessages()
        while adds.unanswered < window, let id = adds.nextQueued() {
            guard let add = adds[id] else { continue }
            guard add.content.argumentBytes <= maxPayload else {
                failAdd(id, .tooLarge(id, add.content.argumentBytes, limit: maxPayload))
                continue
            }
            let wait = add.claims.contains { $0.waits } ? askedWait(add.claims, now: now) : nil
            let number = open.append(add.content.envelope, wait: wait, numbers: &self)
            adds.markSent(id, request: number, at: now)
            let until = wait.map { askedUntil($0, now: now) }
            adds.update(id) { entry in
                if entry.content.uncertainSince == nil { entry.content.uncertainSince = now }
                entry.content.askedUntil = until
            }
        }
        messages += open.finish()
        if adds.unanswered > 0 { repetition.arm(now: now) }
    }

    private mutating func flushWaits(now: UInt64) {
        var byTime: [UInt32: [TaskID]] = [:]
        var count = waits.unanswered
        while count < Self.waitsMax, let id = waits.nextQueued() {
            guard let wait = waits[id] else { continue }
            byTime[askedWait(wait.claims, now: now), default: []].append(id)
            count += 1
        }
        for (time, ids) in byTime {
            let until = askedUntil(time, now: now)
            for part in parts(of: ids) {
                let number = ask(part, options: .wait, waitMilliseconds: time)
                for id in part {
                    waits.markSent(id, request: number, at: now)
                    waits.update(id) { $0.content.askedUntil = until }
                }
            }
        }
    }

    private mutating func flushGets(window: Int, now: UInt64) {
        var ids: [TaskID] = []
        while gets.unanswered + ids.count < window, let id = gets.nextQueued() { ids.append(id) }
        for part in parts(of: ids) {
            let number = ask(part, options: [], waitMilliseconds: 0)
            for id in part { gets.markSent(id, request: number, at: now) }
        }
    }

    private func parts(of ids: [TaskID]) -> [ArraySlice<TaskID>] {
        stride(from: 0, to: ids.count, by: Self.messageTasksMax).map { start in
            ids[start..<min(start + Self.messageTasksMax, ids.count)]
        }
    }

    /// - Returns: The number of the message.
    private mutating func ask(
        _ ids: ArraySlice<TaskID>,
        options: RecordOptions,
        waitMilliseconds: UInt32
    ) -> UInt64 {
        let number = nextRequest()
        let message = GetMessage(
            options: options,
            waitMilliseconds: waitMilliseconds,
            ids: Array(ids)
        )
        messages.append(message.encoded(number: number))
        return number
    }

    /// How long the Broker is to wait for these, in milliseconds; 0 for as long as it takes.
    ///
    /// Rounded up to a sixtieth of a second or so, so that callers who came in one turn share a
    /// message. What is left over is the calls' own deadlines' to cut.
    func askedWait(_ claims: Claims, now: UInt64) -> UInt32 {
        var longest: UInt64 = 0
        var isEndless = false
        claims.forEach { claim in
            guard let deadline = calls[claim.call]?.deadline else {
                isEndless = true
                return
            }
            longest = max(longest, deadline > now ? deadline - now : 0)
        }
        if isEndless { return 0 }
        let milliseconds = longest / 1_000_000 + 1
        return UInt32(clamping: min((milliseconds + 15) / 16 * 16, UInt64(UInt32.max)))
    }

    func askedUntil(_ milliseconds: UInt32, now: UInt64) -> UInt64 {
        milliseconds == 0 ? .max : now + UInt64(milliseconds) * 1_000_000
    }

    /// An add is over without success, for everybody who wanted it.
    mutating func failAdd(_ id: TaskID, _ error: QTasksError) {
        guard let entry = adds.remove(id) else { return }
        entry.claims.forEach { settleAdd($0, failure: error) }
    }
}

/// The `ADD` messages of one turn: one for each length of wait, and a further one where it is full.
private struct OpenMessages {
    private struct Message {
        let number: UInt64
        var writer: WireWriter
        var taskCount = 0

        init(number: UInt64, wait: UInt32?) {
            self.number = number
            writer = AddMessage.begin(
                number: number,
                options: wait == nil ? [] : .wait,
                waitMilliseconds: wait ?? 0
            )
        }

        func hasRoom(for bytes: Int) -> Bool {
            taskCount < ClientState.messageTasksMax
                && writer.count + bytes <= ClientState.messageBytesMax
        }
    }

    private var open: [UInt32?: Message] = [:]
    private var full: [[UInt8]] = []

    /// - Returns: The number of the message that the envelope is in.
    mutating func append(
        _ envelope: ArraySlice<UInt8>,
        wait: UInt32?,
        numbers state: inout ClientState
    ) -> UInt64 {
        if let message = open[wait], !message.hasRoom(for: envelope.count) {
            full.append(message.writer.bytes)
            open[wait] = nil
        }
        let number = open[wait]?.number ?? state.nextRequest()
        if open[wait] == nil { open[wait] = Message(number: number, wait: wait) }
        envelope.withUnsafeBytes { open[wait]?.writer.raw($0) }
        open[wait]?.taskCount += 1
        return number
    }

    /// All of them, in the order they were begun.
    mutating func finish() -> [[UInt8]] {
        let rest = open.values.sorted { $0.number < $1.number }
        return full + rest.map(\.writer.bytes)
    }
}

extension QTasksError {
    static func tooLarge(_ id: TaskID, _ bytes: Int, limit: Int) -> QTasksError {
        QTasksError(
            .payloadTooLarge,
            "the arguments of task \(id) have \(bytes) bytes: this system takes \(limit) "
                + "(--max-payload)"
        )
    }
}
