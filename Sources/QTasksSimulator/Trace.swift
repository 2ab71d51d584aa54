// Part of QTasks. License: see LICENSE.

import CLinux
import QTasksModel
import QTasksWire

/// Who did something, for the trace.
struct ProcessName: CustomStringConvertible {
    enum Role: UInt8 {
        case world, client, broker, storage, worker, starter, globalConfig, watcher
    }

    var role: Role
    /// Which of its kind.
    var number = 0
    /// Which life of it, from 1 on.
    var life = 0

    var description: String {
        switch role {
        case .world: "world"
        case .client: "client \(number).\(life)"
        case .broker: "broker .\(life)"
        case .storage: "storage .\(life)"
        case .worker: "worker \(number).\(life)"
        case .starter: "starter .\(life)"
        case .globalConfig: "config .\(life)"
        case .watcher: "watcher \(number).\(life)"
        }
    }
}

/// The last events of a run, and a checksum over all of them.
struct Trace {
    enum Event {
        /// A message left; where nobody reads it any more it is lost later.
        case sent(ProcessName, [UInt8])
        /// A message was read.
        case read(ProcessName, [UInt8])
        case began
        case died(String)
        case paused(UInt64)
        case brokenSession(ProcessName)
        case connected(ProcessName)
        case started(Holding, task: Int, attempt: UInt32)
        case returned(Holding, task: Int)
        case recorded(UInt64, kind: UInt8, [UInt8])
        case marks(written: UInt64, durable: UInt64)
        case note(String)
    }

    struct Entry {
        var time: UInt64
        var who: ProcessName
        var event: Event
    }

    private let kept: Int
    private var entries: [Entry] = []
    private var next = 0

    /// Equal for equal runs.
    private(set) var checksum: UInt64 = 0xCBF2_9CE4_8422_2325

    private(set) var count = 0

    /// - Parameter kept: How many events, of which all count for ``checksum``.
    init(keeping kept: Int) {
        self.kept = max(1, kept)
    }

    mutating func add(_ time: UInt64, _ who: ProcessName, _ event: Event) {
        count += 1
        mix(time, who, event)
        let entry = Entry(time: time, who: who, event: event)
        if entries.count < kept {
            entries.append(entry)
        } else {
            entries[next] = entry
            next = (next + 1) % kept
        }
    }

    private mutating func mix(_ time: UInt64, _ who: ProcessName, _ event: Event) {
        mix(time)
        mix(UInt64(who.role.rawValue) << 32 | UInt64(who.number) << 16 | UInt64(who.life))
        switch event {
        case .sent(_, let bytes): mix(1, bytes)
        case .read(_, let bytes): mix(2, bytes)
        case .began: mix(3)
        case .died: mix(4)
        case .paused(let time): mix(5 &+ time)
        case .brokenSession: mix(6)
        case .connected: mix(7)
        case .started(let holding, _, _): mix(8 &+ holding.lease.rawValue)
        case .returned(let holding, _): mix(9 &+ holding.lease.rawValue)
        case .recorded(let sequence, _, let bytes): mix(10 &+ sequence, bytes)
        case .marks(let written, let durable): mix(written << 20 ^ durable)
        case .note: mix(11)
        }
    }

    private mutating func mix(_ code: UInt64, _ bytes: [UInt8]) {
        let crc = bytes.withUnsafeBytes { clinux_crc32c(0, $0.baseAddress, $0.count) }
        mix(code << 32 | UInt64(crc))
    }

    private mutating func mix(_ number: UInt64) {
        checksum = (checksum ^ number) &* 0x0000_0100_0000_01B3
        checksum ^= checksum >> 29
    }

    /// The last events, one a line, oldest first.
    func text(name: @escaping (TaskID) -> String) -> String {
        let ordered = entries[next...] + entries[..<next]
        return ordered.map { Self.line($0, name) }.joined(separator: "\n")
    }

    private static func line(_ entry: Entry, _ name: @escaping (TaskID) -> String) -> String {
        let text = MessageText(name: name)
        let what =
            switch entry.event {
            case .sent(let peer, let bytes): "-> \(peer): \(text.describe(bytes))"
            case .read(let peer, let bytes): "<- \(peer): \(text.describe(bytes))"
            case .began: "began"
            case .died(let why): "ended: \(why)"
            case .paused(let time): "stopped for \(Self.milliseconds(time)) ms"
            case .brokenSession(let peer): "session with \(peer) broken"
            case .connected(let peer): "connected to \(peer)"
            case .started(let holding, let task, let attempt):
                "starts task \(task) under \(holding.lease), attempt \(attempt)"
            case .returned(let holding, let task): "task \(task) returns under \(holding.lease)"
            case .recorded(let sequence, let kind, let bytes):
                "log \(sequence): \(text.describe(kind: kind, bytes))"
            case .marks(let written, let durable): "log written \(written), durable \(durable)"
            case .note(let text): text
            }
        let time = Self.milliseconds(entry.time)
        return
            "\(String(repeating: " ", count: max(0, 12 - time.count)))\(time)  \(entry.who)  \(what)"
    }

    static func milliseconds(_ time: UInt64) -> String {
        let rest = String(time % .millisecond / .microsecond)
        return "\(time / .millisecond).\(String(repeating: "0", count: 3 - rest.count))\(rest)"
    }
}
