// Part of QTasks. License: see LICENSE.

import DequeModule
import HeapModule
import QTasksModel
import QTasksWire

/// An add that Storage has not answered, or that isn't durable yet.
struct PendingAdd {
    var request: ClientTable.RequestNumber
    var id: TaskID
    var lane: Lanes.Number
    var priority: Int16
    /// `.none` where no slot was free, and after a restart of Storage.
    var lease: Lease
    var worker: WorkerID
    var durability: Durability
    var isWatched: Bool
    var envelope: KeptEnvelope
}

/// A read that Storage has not answered.
struct PendingRead {
    enum Purpose {
        /// A plain GET.
        case get(ClientTable.RequestNumber)
        /// A wait that is over: the record as it is now goes along.
        case overdue(Wait)
        /// All bytes of a record whose place doesn't help.
        case whole(PlacedReply)
    }

    /// All bytes are wanted.
    var isWhole: Bool {
        if case .whole = purpose { true } else { false }
    }

    var purpose: Purpose
    var id: TaskID
}

/// A client that waits for a task's end.
struct Wait {
    var session: Session
    /// The client's number of the request.
    var number: UInt64
    var id: TaskID
    var options: RecordOptions
    var serial: UInt64
    var deadline: UInt64?
    /// It came with an add that Storage hasn't decided: that there is no such task is no answer to it.
    var isOfUndecidedAdd = false
}

/// A client's request that gets one answer: complete once each of its tasks has been dealt with.
struct ClientRequest {
    var session: Session
    var number: UInt64
    var command: Command
    var options: RecordOptions
    var missing: Int
    var answer: WireWriter
    /// It is about one task.
    var isAlone: Bool
    /// Its adds that aren't taken and wait for the end, and the tasks that hold their keys.
    var repeats: [(id: TaskID, holder: TaskID)] = []
}

/// What clients are owed.
struct ClientTable {
    typealias RequestNumber = Int

    private var requests: [ClientRequest?] = []
    private var free: [RequestNumber] = []
    private var records: [RecordKey: WireWriter] = [:]
    private var direct: [(session: Session, message: [UInt8])] = []

    /// Adds without a verdict, by proposal.
    private var adds: [UInt64: PendingAdd] = [:]

    /// The envelopes of adds that are kept until they are acknowledged.
    private(set) var pendingBytes = 0

    /// Beyond that many bytes adds are refused: Storage is behind, or away.
    static let pendingBytesMax = 256 << 20

    var reads: [UInt64: PendingRead] = [:]
    var large = LargeReplies()
    var arrears = Arrears()
    var counts: [UInt64: (session: Session, number: UInt64, topic: String)] = [:]
    /// Who waits for the end of a compaction.
    var compactions: [UInt64: (session: Session, number: UInt64)] = [:]

    /// Cancels, requeues and forgets, by proposal.
    var changes: [UInt64: PendingChange] = [:]

    /// Changes of queues' rules, by proposal.
    var queueChanges: [UInt64: PendingQueueChange] = [:]

    /// Compactions that may be asked for at once, by all sessions.
    static let compactionsMax = 1000

    /// Tasks that a session has added without an answer, so that one client can't fill memory.
    private(set) var unanswered: [Session: Int] = [:]

    /// Records that a session has asked for without an answer, for the same reason.
    private(set) var unansweredReads: [Session: Int] = [:]

    /// Sessions whose connection is to be cut, until it is.
    private var cutting: Set<Session> = []

    /// Waits by task.
    private var waits: [TaskID: [Wait]] = [:]
    private var waitsBySession: [Session: Int] = [:]
    private var overdue = Heap<Overdue>()
    private var nextSerial: UInt64 = 0
    private var newlyAwaited: [TaskID] = []

    /// Adds that are in the log and not yet durable, by sequence; the first sort comes in order.
    private var inOrder = Deque<AwaitedAdd>()
    private var outOfOrder = Heap<AwaitedAdd>()

    /// Waits that one session may have at once.
    static let waitsPerSessionMax = 200_000

    private struct RecordKey: Hashable {
        var session: Session
        var number: UInt64
    }

    private struct Overdue: Comparable {
        var deadline: UInt64
        var serial: UInt64
        var id: TaskID

        static func < (left: Self, right: Self) -> Bool {
            (left.deadline, left.serial) < (right.deadline, right.serial)
        }
    }

    private struct AwaitedAdd: Comparable {
        var sequence: UInt64
        var add: PendingAdd
        var verdict: AddReceipt.Verdict

        static func < (left: Self, right: Self) -> Bool { left.sequence < right.sequence }
        static func == (left: Self, right: Self) -> Bool { left.sequence == right.sequence }
    }

    var nextDeadline: UInt64? { overdue.min?.deadline }

    // MARK: Requests with one answer

    /// Begins a request of `count` tasks.
    mutating func begin(
        _ command: Command,
        session: Session,
        number: UInt64,
        options: RecordOptions,
        count: Int
    ) -> RequestNumber {
        var answer = WireWriter(command, number: number, reserving: 16 + 24 * count)
        if command == .records { answer.u8(options.rawValue) }
        let request = ClientRequest(
            session: session,
            number: number,
            command: command,
            options: options,
            missing: count,
            answer: answer,
            isAlone: count == 1
        )
        if command == .added { unanswered[session, default: 0] += count }
        if command == .records { unansweredReads[session, default: 0] += count }
        if let reused = free.popLast() {
            requests[reused] = request
            return reused
        }
        requests.append(request)
        return requests.count - 1
    }

    func request(_ number: RequestNumber) -> ClientRequest {
        guard let request = requests[number] else {
            preconditionFailure("a request is answered once")
        }
        return request
    }

    /// One of the request's adds is decided.
    mutating func answer(_ number: RequestNumber, _ receipt: AddReceipt) {
        guard var request = requests[number] else { return }
        requests[number] = nil
        receipt.write(to: &request.answer)
        if let left = unanswered[request.session] {
            unanswered[request.session] = left > 1 ? left - 1 : nil
        }
        finishPart(of: request, number)
    }

    /// One of the request's changes is decided.
    mutating func answer(_ number: RequestNumber, _ receipt: ChangeReceipt) {
        guard var request = requests[number] else { return }
        requests[number] = nil
        receipt.write(to: &request.answer)
        finishPart(of: request, number)
    }

    /// One of the request's records is there.
    mutating func answer(
        _ number: RequestNumber,
        id: TaskID,
        state: RecordReply.State,
        record: UnsafeRawBufferPointer
    ) {
        guard var request = requests[number] else { return }
        requests[number] = nil
        RecordReply.write(id: id, state: state, record: record, to: &request.answer)
        countRead(request.session)
        finishPart(of: request, number)
    }

    private mutating func countRead(_ session: Session) {
        if let left = unansweredReads[session] {
            unansweredReads[session] = left > 1 ? left - 1 : nil
        }
    }

    private mutating func finishPart(of request: ClientRequest, _ number: RequestNumber) {
        var request = request
        request.missing -= 1
        if request.missing == 0 {
            direct.append((request.session, request.answer.bytes))
            free.append(number)
            for (id, holder) in request.repeats { moveWait(for: id, of: request, to: holder) }
        } else {
            requests[number] = request
        }
    }

    /// A message that needs no collecting.
    mutating func send(_ message: [UInt8], to session: Session) {
        direct.append((session, message))
    }

    // MARK: Adds until they are acknowledged

    mutating func keep(_ add: PendingAdd, as number: UInt64) {
        adds[number] = add
        pendingBytes += add.envelope.count
    }

    /// Storage has answered this proposal.
    mutating func takeAdd(_ number: UInt64) -> PendingAdd? {
        guard let add = adds.removeValue(forKey: number) else { return nil }
        pendingBytes -= add.envelope.count
        return add
    }

    /// The add with this sequence is in the log.
    mutating func awaitDurable(
        _ sequence: UInt64,
        _ add: PendingAdd,
        _ verdict: AddReceipt.Verdict
    ) {
        let awaited = AwaitedAdd(sequence: sequence, add: add, verdict: verdict)
        pendingBytes += add.envelope.count
        if let last = inOrder.last, last.sequence > sequence {
            outOfOrder.insert(awaited)
        } else {
            inOrder.append(awaited)
        }
    }

    /// Everything up to `sequence` is durable: acknowledge it.
    mutating func durable(upTo sequence: UInt64) {
        while let first = inOrder.first, first.sequence <= sequence {
            inOrder.removeFirst()
            pendingBytes -= first.add.envelope.count
            acknowledge(first.add, first.verdict)
        }
        while let first = outOfOrder.min, first.sequence <= sequence {
            _ = outOfOrder.popMin()
            pendingBytes -= first.add.envelope.count
            acknowledge(first.add, first.verdict)
        }
    }

    /// Storage came back: all adds that nobody has acknowledged, in the order in which they came.
    mutating func takeUnacknowledgedAdds() -> [PendingAdd] {
        let awaited = (Array(inOrder) + outOfOrder.unordered).sorted().map(\.add)
        let unanswered = adds.sorted { $0.key < $1.key }.map(\.value)
        inOrder.removeAll()
        outOfOrder = Heap()
        adds = [:]
        pendingBytes = 0
        return awaited + unanswered
    }

    mutating func acknowledge(_ add: PendingAdd, _ verdict: AddReceipt.Verdict) {
        if case .same(let holder) = verdict, add.isWatched {
            requests[add.request]?.repeats.append((add.id, holder))
        }
        answer(add.request, AddReceipt(id: add.id, verdict: verdict))
    }

    /// Tasks that somebody waits for since they hold the key of an add that wasn't taken; the second
    /// call has none.
    mutating func takeNewlyAwaited() -> [TaskID] {
        defer { newlyAwaited = [] }
        return newlyAwaited
    }

    /// Whoever waits with an add that isn't taken waits for the task that holds its key; from when he is
    /// told so, since he knows nothing of that task before.
    private mutating func moveWait(for id: TaskID, of request: ClientRequest, to holder: TaskID) {
        let wait = waits[id]?.first {
            $0.session == request.session && $0.number == request.number
        }
        // its time may be over
        guard let wait else { return }
        dropWait(for: id, session: wait.session, number: wait.number)
        self.wait(
            for: holder,
            session: wait.session,
            number: wait.number,
            options: wait.options,
            deadline: wait.deadline
        )
        if newlyAwaited.last != holder { newlyAwaited.append(holder) }
    }

    // MARK: Waits

    /// The tasks that somebody waits for.
    var awaitedTasks: [TaskID] { Array(waits.keys) }

    func isAwaited(_ id: TaskID) -> Bool { waits[id] != nil }

    /// Whether the session may wait for that many more.
    func mayWait(_ session: Session, _ count: Int) -> Bool {
        waitsBySession[session, default: 0] + large.waitingCount(session) + count
            <= Self.waitsPerSessionMax
    }

    /// Registers a wait; the same request's wait for the same task is there once.
    mutating func wait(
        for id: TaskID,
        session: Session,
        number: UInt64,
        options: RecordOptions,
        deadline: UInt64?,
        withAdd: Bool = false
    ) {
        var list = waits[id] ?? []
        guard !list.contains(where: { $0.session == session && $0.number == number }) else {
            return
        }
        nextSerial += 1
        list.append(
            Wait(
                session: session,
                number: number,
                id: id,
                options: options,
                serial: nextSerial,
                deadline: deadline,
                isOfUndecidedAdd: withAdd
            )
        )
        waits[id] = list
        waitsBySession[session, default: 0] += 1
        if let deadline {
            overdue.insert(Overdue(deadline: deadline, serial: nextSerial, id: id))
        }
    }

    /// The add is decided, and its task is there: whoever waits with it waits as others do.
    mutating func settle(_ add: PendingAdd) {
        guard add.isWatched else { return }
        let owner = request(add.request)
        let index = waits[add.id]?.firstIndex {
            $0.session == owner.session && $0.number == owner.number
        }
        if let index { waits[add.id]?[index].isOfUndecidedAdd = false }
    }

    /// Everybody who waits for this task; they wait no longer.
    ///
    /// Where there is no such task, those stay who wait with an add that is to be decided.
    mutating func takeWaits(for id: TaskID, isThere: Bool) -> [Wait] {
        guard var list = waits.removeValue(forKey: id) else { return [] }
        if !isThere {
            let staying = list.filter(\.isOfUndecidedAdd)
            if !staying.isEmpty { waits[id] = staying }
            list.removeAll(where: \.isOfUndecidedAdd)
        }
        for wait in list { forgetOne(of: wait.session) }
        return list
    }

    /// One that was taken goes on, with the deadline that it had.
    mutating func waitAgain(_ wait: Wait) {
        waits[wait.id, default: []].append(wait)
        waitsBySession[wait.session, default: 0] += 1
    }

    /// Takes back the wait of one request for one task.
    mutating func dropWait(for id: TaskID, session: Session, number: UInt64) {
        guard var list = waits[id],
            let index = list.firstIndex(where: { $0.session == session && $0.number == number })
        else { return }
        list.remove(at: index)
        waits[id] = list.isEmpty ? nil : list
        forgetOne(of: session)
    }

    /// Everybody who waits for anything; they wait no longer.
    mutating func takeAllWaits() -> [Wait] {
        let all = waits.values.flatMap { $0 }
        waits = [:]
        waitsBySession = [:]
        overdue = Heap()
        return all
    }

    mutating func takeOverdueWaits(now: UInt64) -> [Wait] {
        var taken: [Wait] = []
        while let first = overdue.min, first.deadline <= now {
            _ = overdue.popMin()
            guard var list = waits[first.id],
                let index = list.firstIndex(where: { $0.serial == first.serial })
            else { continue }
            taken.append(list.remove(at: index))
            forgetOne(of: taken[taken.count - 1].session)
            waits[first.id] = list.isEmpty ? nil : list
        }
        return taken
    }

    /// The connection is about to go.
    ///
    /// - Returns: Whether that is news.
    mutating func cut(_ session: Session) -> Bool {
        guard cutting.insert(session).inserted else { return false }
        forgetWaits(of: session)
        return true
    }

    /// A mark of the session came back.
    mutating func clientReadOn(_ session: Session) {
        arrears.returned(session)
        if !arrears.isOverdrawn(session) { cutting.remove(session) }
    }

    /// The connection is gone: what it waited for, nobody hears.
    mutating func forgetSession(_ session: Session) {
        arrears.forget(session)
        cutting.remove(session)
        forgetWaits(of: session)
    }

    private mutating func forgetWaits(of session: Session) {
        for reply in large.forget(session) {
            // the request comes to its end, unheard
            guard case .get = reply.target else { continue }
            answer(reply.target, UnsafeRawBufferPointer(start: nil, count: 0))
        }
        guard waitsBySession[session] != nil else { return }
        for (id, list) in waits {
            let kept = list.filter { $0.session != session }
            if kept.count < list.count { waits[id] = kept.isEmpty ? nil : kept }
        }
        waitsBySession[session] = nil
    }

    private mutating func forgetOne(of session: Session) {
        if let left = waitsBySession[session] {
            waitsBySession[session] = left > 1 ? left - 1 : nil
        }
    }

    /// Adds a record to what this wait's client gets at the end of the turn.
    mutating func answer(
        _ wait: Wait,
        state: RecordReply.State,
        record: UnsafeRawBufferPointer
    ) {
        let key = RecordKey(session: wait.session, number: wait.number)
        var writer: WireWriter
        if let begun = records.removeValue(forKey: key) {
            writer = begun
        } else {
            writer = WireWriter(.records, number: wait.number)
            writer.u8(wait.options.rawValue)
        }
        RecordReply.write(id: wait.id, state: state, record: record, to: &writer)
        if writer.count > 1 << 20 {
            direct.append((wait.session, writer.bytes))
        } else {
            records[key] = writer
        }
    }

    mutating func flush(into outbox: inout BrokerOutbox) {
        let first = outbox.toClients.count
        outbox.toClients += direct
        direct.removeAll(keepingCapacity: true)
        for (key, writer) in records { outbox.toClients.append((key.session, writer.bytes)) }
        records.removeAll(keepingCapacity: true)
        for (session, message) in outbox.toClients[first...]
        where message.count >= LargeReplies.messageBytesMin {
            large.sent(message.count, to: session)
        }
    }
}

// MARK: - Either kind of request

extension ClientTable {
    func options(of target: RecordTarget) -> RecordOptions {
        switch target {
        case .get(let request, _): self.request(request).options
        case .wait(let wait, _): wait.options
        }
    }

    func session(of target: RecordTarget) -> Session {
        switch target {
        case .get(let request, _): self.request(request).session
        case .wait(let wait, _): wait.session
        }
    }

    /// A record is there; an empty one means that there is no such task.
    mutating func answer(_ target: RecordTarget, _ record: UnsafeRawBufferPointer) {
        switch target {
        case .get(let request, let id):
            answer(request, id: id, state: record.isEmpty ? .notFound : .found, record: record)
        case .wait(let wait, let state):
            answer(wait, state: record.isEmpty ? .notFound : state, record: record)
        }
    }

    /// What stands before a record of so many bytes in a message of its own; `nil` where its request
    /// wants one answer for several tasks.
    func head(for target: RecordTarget, recordBytes: Int) -> [UInt8]? {
        var writer: WireWriter
        let state: RecordReply.State
        switch target {
        case .get(let number, _):
            let request = request(number)
            guard request.isAlone else { return nil }
            writer = request.answer
            state = .found
        case .wait(let wait, let end):
            writer = WireWriter(.records, number: wait.number)
            writer.u8(wait.options.rawValue)
            state = end
        }
        RecordReply.writeHead(
            id: target.id,
            state: state,
            recordBytes: recordBytes,
            to: &writer
        )
        return writer.bytes
    }

    /// The request was answered by a message that is put together elsewhere.
    mutating func answered(_ target: RecordTarget) {
        guard case .get(let number, _) = target, let request = requests[number] else { return }
        precondition(request.isAlone, "else its answer is put together here")
        requests[number] = nil
        countRead(request.session)
        free.append(number)
    }
}

extension ClientTable {
    /// No client waits for an answer or for the end of a task.
    var isOwedNothing: Bool {
        adds.isEmpty && changes.isEmpty && queueChanges.isEmpty && waits.isEmpty && reads.isEmpty
            && inOrder.isEmpty
            && outOfOrder.isEmpty
    }
}
