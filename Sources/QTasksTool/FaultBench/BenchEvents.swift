// Part of QTasks. License: see LICENSE.

import Glibc
import QTasks
import QTasksProcess

/// The beginning of one execution, as the worker told it.
struct BenchEvent {
    let task: TaskID
    let attempt: Int
    let worker: Int32
    /// In nanoseconds of ``Stopwatch``.
    let at: UInt64

    private static let variable = "QTASKS_BENCH_FOLDER"

    /// Where events go and gates are, in the processes of a benchmark's system.
    static var folder: String? { QueueConfig.environmentVariable(variable) }

    /// Has the processes that this one starts report to this folder.
    static func enable(in folder: String) {
        setenv(variable, folder, 1)
    }

    /// Writes one line, at once; none where the benchmark doesn't read just now and the pipe is full.
    static func report(_ context: TaskContext) {
        let now = Stopwatch.now()
        guard let folder else { return }
        let descriptor = open("\(folder)/events", O_WRONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        let line = Array("\(context.id) \(context.attempt) \(getpid()) \(now)\n".utf8)
        _ = write(descriptor, line, line.count)
    }

    init?(_ line: some StringProtocol) {
        let words = line.split(separator: " ")
        guard words.count == 4, let task = TaskID(String(words[0])), let attempt = Int(words[1]),
            let worker = Int32(words[2]), let at = UInt64(words[3])
        else { return nil }
        (self.task, self.attempt, self.worker, self.at) = (task, attempt, worker, at)
    }
}

/// The benchmark's end of what its tasks report, and of the gates at which they hold.
final class BenchEvents {
    private let folder: TemporaryFolder
    private let descriptor: Int32
    private var gates: [Int32] = []
    private var rest: [UInt8] = []
    private var events: [BenchEvent] = []

    /// - Parameter gates: How many there are, by number from 0 on.
    /// - Throws: Where they can't be made.
    init(gates: Int = 0) throws {
        folder = try TemporaryFolder("qtasks-bench")
        descriptor = try Self.fifo(at: folder.path + "/events")
        for number in 0..<gates {
            self.gates.append(try Self.fifo(at: FaultTasks.gate(number, in: folder.path)))
        }
        BenchEvent.enable(in: folder.path)
    }

    deinit {
        for gate in gates { close(gate) }
        close(descriptor)
    }

    /// Both directions, so that neither end waits for the other to be opened.
    private static func fifo(at path: String) throws -> Int32 {
        guard mkfifo(path, 0o600) == 0 else {
            throw QTasksError(.badHome, "\(path) can't be made: errno \(errno)")
        }
        let descriptor = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            throw QTasksError(.badHome, "\(path) can't be opened: errno \(errno)")
        }
        return descriptor
    }

    func openGate(_ number: Int) {
        var permit: UInt8 = 1
        _ = write(gates[number], &permit, 1)
    }

    /// The next event of which `isWanted` is true; those before it are dropped.
    ///
    /// - Throws: Where none comes within `seconds`.
    func next(
        _ what: String,
        within seconds: Double = 30,
        where isWanted: (BenchEvent) -> Bool
    ) throws -> BenchEvent {
        let end = Stopwatch.now() + UInt64(seconds * 1e9)
        while true {
            if let index = events.firstIndex(where: isWanted) {
                defer { events.removeFirst(index + 1) }
                return events[index]
            }
            let now = Stopwatch.now()
            guard now < end else {
                throw QTasksError(.timeout, "waited \(seconds) s for \(what)")
            }
            wait(nanoseconds: end - now)
            drain()
        }
    }

    /// Everything that was reported and not taken.
    func takeAll() -> [BenchEvent] {
        drain()
        defer { events = [] }
        return events
    }

    /// Until something is reported.
    func wait(nanoseconds: UInt64) {
        var item = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        poll(&item, 1, Int32(nanoseconds / 1_000_000) + 1)
    }

    private func drain() {
        var chunk = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = read(descriptor, &chunk, chunk.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return }
            rest += chunk[..<count]
            while let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
                let line = String(decoding: rest[..<end], as: UTF8.self)
                rest.removeFirst(end + 1)
                if let event = BenchEvent(line) { events.append(event) }
            }
        }
    }
}

/// When processes end, as the kernel tells through their pidfds.
enum EndWatch {
    static func handle(of pid: Int32) throws -> PidDescriptor {
        guard let identity = ProcessIdentity.of(pid: pid),
            let handle = try PidDescriptor.open(identity)
        else { throw QTasksError(.internalError, "process \(pid) has ended by itself") }
        return handle
    }

    /// Waits for all of them.
    ///
    /// - Returns: The moment of each end, in nanoseconds of ``Stopwatch``.
    static func ends(of handles: [PidDescriptor], within seconds: Double = 30) throws -> [UInt64] {
        var ends = [UInt64](repeating: 0, count: handles.count)
        var open = Array(handles.indices)
        let end = Stopwatch.now() + UInt64(seconds * 1e9)
        while !open.isEmpty {
            var items = open.map {
                pollfd(fd: handles[$0].descriptor, events: Int16(POLLIN), revents: 0)
            }
            poll(&items, nfds_t(items.count), 1000)
            let now = Stopwatch.now()
            for (item, index) in zip(items, open) where item.revents != 0 { ends[index] = now }
            open.removeAll { ends[$0] != 0 }
            guard now < end else {
                throw QTasksError(.timeout, "\(open.count) processes go on after \(seconds) s")
            }
        }
        return ends
    }
}
