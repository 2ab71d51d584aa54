// Part of QTasks. License: see LICENSE.

import AppendLog
import QTasksModel
import QTasksStorage
import QTasksWire
import Testing

/// Storage's core and keeper on a log on a simulated disk, driven by hand, with small segments.
struct StoryStore {
    static let directory = "/q/store"
    static let options = LogOptions(
        segmentBytes: 12 << 10,
        recordBytesMax: 10 << 10,
        zeroFillAheadBytes: 0
    )

    let disk: SimulatedDisk
    let config: QueueConfig
    let keeping: StorageKeeper.Settings
    var store: OpenedStore
    var now = Now(wall: Timestamp(nanoseconds: 1_700_000_000_000_000_000), monotonic: 1 << 40)
    private(set) var told: [Told] = []
    private var generator = TaskIDGenerator(seed: (21, 22))
    private var counter: UInt32 = 0

    var state: StorageState { store.state }
    var log: Log { store.log }

    init(
        _ disk: SimulatedDisk = SimulatedDisk(),
        history: HistoryWindow = .standard,
        checkpointBytes: Int = 8 << 10,
        retentionSeconds: UInt64? = nil
    ) throws {
        var config = QueueConfig()
        if let retentionSeconds {
            let text = "\(retentionSeconds)s/\(retentionSeconds)s"
            try config.set(.retention, to: text, saying: "test")
        }
        var keeping = StorageKeeper.Settings(history: history)
        keeping.checkpointBytes = checkpointBytes
        (self.disk, self.config, self.keeping) = (disk, config, keeping)
        store = try Self.open(disk, config, keeping, now)
        store.state.brokerSession(incarnation: store.log.incarnation, globalConfigPid: 0)
        _ = store.state.flush()
    }

    static func open(
        _ disk: SimulatedDisk,
        _ config: QueueConfig,
        _ keeping: StorageKeeper.Settings,
        _ now: Now,
        in directory: String = Self.directory
    ) throws -> OpenedStore {
        var settings = Bench.settings(config)
        settings.directory = directory
        return try OpenedStore(
            settings,
            options: options,
            keeping: keeping,
            now: now,
            files: disk,
            driver: .manual
        )
    }

    // MARK: Time and disk

    mutating func pass(milliseconds: UInt64) {
        now.monotonic += milliseconds * 1_000_000
        now.wall = Timestamp(nanoseconds: now.wall.nanoseconds + Int64(milliseconds) * 1_000_000)
    }

    /// Everything written, synced, told, and all that is to be kept in order done.
    mutating func settle() throws {
        var isBusy = true
        while isBusy {
            log.submit(sync: true)
            isBusy = false
            while log.runOneWrite() || log.runOneSync() || log.runOneKeep() { isBusy = true }
            store.state.watermarks(log.watermarks(), log: log)
            for message in store.state.flush().toBroker { try hear(message) }
            let last = log.lastSequence
            let pace = store.keeper.step(&store.state, log, now: now, isOver: { false })
            isBusy = isBusy || pace != .idle || log.lastSequence > last
        }
    }

    private mutating func hear(_ message: [UInt8]) throws {
        told += try message.withUnsafeBytes { bytes -> [Told] in
            var reader = WireReader(bytes)
            guard try MessageHeader.read(from: &reader).command == .verdicts else { return [] }
            _ = try reader.raw(16, "watermarks")
            var told: [Told] = []
            while !reader.isAtEnd { told.append(try Told(try Verdict(from: &reader))) }
            return told
        }
    }

    mutating func close() throws {
        try settle()
        store.keeper.writeLastCheckpoint(store.state, log)
        try log.close()
    }

    // MARK: Tasks

    mutating func propose(_ proposals: Proposal...) {
        var writer = WireWriter(.propose, number: state.sessionNumber ?? 0)
        for proposal in proposals { proposal.write(to: &writer) }
        writer.bytes.withUnsafeBytes { store.state.brokerMessage($0, now: now, log: log) }
        store.state.decideReleases(now: now, log: log)
    }

    mutating func add(_ name: String = "a.task", bytes: Int = 10) throws -> TaskID {
        let id = generator.next(milliseconds: 1_000)
        let text = "\"" + String(repeating: "x", count: bytes) + "\""
        let task = TaskSubmission(id: id, name: name, arguments: Array(text.utf8))
        var writer = WireWriter()
        try task.write(to: &writer)
        writer.bytes.withUnsafeBytes {
            propose(
                .add(
                    number: 1,
                    isWatched: false,
                    lease: .none,
                    worker: Bench.worker,
                    envelope: $0
                )
            )
        }
        return id
    }

    func entry(_ id: TaskID) -> TaskEntry? {
        state.tasks.index.number(of: id).map { state.tasks.index[$0] }
    }

    mutating func lease(_ id: TaskID, to worker: WorkerID = Bench.worker) -> Lease {
        guard let handle = state.tasks.index.number(of: id) else { return .none }
        counter += 1
        let lease = Lease(incarnation: log.incarnation, counter: counter)
        let place = QueuedPlace(sequence: state.tasks.index[handle].sequence, handle: handle)
        propose(.lease(number: 2, place: place, lease: lease, worker: worker, synced: false))
        return lease
    }

    mutating func push(
        _ id: TaskID,
        _ lease: Lease,
        _ outcome: TaskOutcome = .success(result: [0x31], contentType: nil),
        from worker: WorkerID = Bench.worker
    ) {
        let result = ResultEntry(
            id: id,
            lease: lease,
            startedAt: Timestamp(nanoseconds: now.wall.nanoseconds - 1_000_000),
            finishedAt: now.wall,
            outcome: outcome
        )
        store.state.push(result, from: worker, now: now, log: log)
    }

    mutating func release(_ id: TaskID, _ lease: Lease, _ cause: ReleaseCause, counts: Bool) {
        propose(
            .release(
                number: 3,
                holding: Holding(id: id, lease: lease),
                cause: cause,
                isShared: false,
                counts: counts
            )
        )
    }

    /// Something happens to some task.
    mutating func live(_ chance: inout SimulatedDisk.Chance) throws {
        pass(milliseconds: 1 + chance.next() % 50)
        let numbers = state.tasks.index.numbers.filter {
            !state.tasks.index[$0].status.isFinal
        }
        guard chance.next() % 3 > 0, let number = numbers.randomElement(using: &chance) else {
            _ = try add(
                ["one", "two", "three"].randomElement(using: &chance) ?? "one",
                bytes: Int(chance.next() % 300)
            )
            return
        }
        let entry = state.tasks.index[number]
        guard entry.status == .process else {
            _ = lease(entry.id)
            return
        }
        switch chance.next() % 6 {
        case 0: release(entry.id, entry.lease, .death, counts: chance.next() % 2 == 0)
        case 1:
            let failure = TaskFailure(type: "NoLuck", message: "none")
            push(entry.id, entry.lease, .retry(failure, afterMilliseconds: 5, maxAttempts: 9))
        case 2: push(entry.id, entry.lease, .error(TaskFailure(type: "No", message: "no")))
        default: push(entry.id, entry.lease)
        }
    }

    // MARK: The files

    static func read(_ disk: SimulatedDisk, _ directory: String = directory) throws -> StoreReader {
        try StoreReader(directory, files: disk)
    }

    static func verify(
        _ disk: SimulatedDisk,
        _ directory: String = directory
    ) throws -> StoreVerification {
        try StoreVerification(directory, files: disk)
    }

    /// The tasks of a store, each as its record; the place in line is the store's own.
    static func records(
        _ disk: SimulatedDisk,
        _ directory: String = directory
    ) throws -> [TaskRecord] {
        let reader = try read(disk, directory)
        let tasks = try reader.readNow().tasks
        return try tasks.numbersInAddOrder.map { number in
            var record = try reader.record(of: tasks.index[number], in: tasks)
            record.sequence = 0
            return record
        }
    }
}

extension SimulatedDisk {
    /// Changes bytes of a file.
    func change(_ path: String, _ body: (inout [UInt8]) -> Void) throws {
        var bytes = try #require(contents(of: path))
        body(&bytes)
        setContents(of: path, to: bytes)
    }

    func flip(_ path: String, byte: Int, bit: Int = 3) throws {
        try change(path) { $0[byte] ^= 1 << UInt8(bit) }
    }

    static func segment(_ index: UInt32) -> String {
        let digits = String(index)
        return StoryStore.directory + "/segment-" + String(repeating: "0", count: 10 - digits.count)
            + digits
    }
}
