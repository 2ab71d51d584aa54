// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksGlobalConfig
import QTasksModel
import QTasksWire
import ZeroMQ

/// A second of virtual time.
let second: UInt64 = 1_000_000_000

extension RoutingID {
    static let someone = RoutingID([0, 1, 2, 3, 4])
    static let another = RoutingID([0, 9, 9, 9, 9])
}

/// GlobalConfig's core with the disk that a test plays.
struct CoreHarness {
    var state = ConfigState()
    var records: [ConfigRecord] = []
    var replies: [(peer: RoutingID, message: [UInt8])] = []
    var publications: [[UInt8]] = []
    var isStopping = false

    mutating func send(_ message: [UInt8], from peer: RoutingID = .someone, isParent: Bool = false)
    {
        message.withUnsafeBytes { state.request($0, from: peer) { isParent } }
        collect()
    }

    mutating func set(_ key: String, _ value: String?, number: UInt64 = 1) {
        let entry = ConfigEntry(key: key, value: value.map { Array($0.utf8) })
        send(ConfigSetMessage.encoded(entry, number: number))
    }

    mutating func subscribe() {
        [UInt8]([1]).withUnsafeBytes { state.subscription($0) }
        collect()
    }

    mutating func sync(now: UInt64 = 0) {
        state.durable(upTo: records.last?.sequence ?? 0, now: now)
        collect()
    }

    mutating func timer(now: UInt64) {
        state.timer(now: now)
        collect()
    }

    mutating func collect() {
        let outbox = state.flush()
        records += outbox.records
        replies += outbox.replies
        publications += outbox.publications
        if outbox.isStopping { isStopping = true }
    }

    var refusals: [Refusal] {
        replies.compactMap { Message($0.message)?.refusal }
    }
}

/// A message taken apart.
struct Message {
    var command: Command
    var number: UInt64
    var body: [UInt8]

    init?(_ bytes: [UInt8]) {
        let header = bytes.withUnsafeBytes { bytes in
            var reader = WireReader(bytes)
            return try? MessageHeader.read(from: &reader)
        }
        guard let header else { return nil }
        command = header.command
        number = header.number
        body = Array(bytes.dropFirst(MessageHeader.byteCount))
    }

    func read<Value>(_ body: (inout WireReader) throws -> Value) rethrows -> Value {
        try self.body.withUnsafeBytes { bytes in
            var reader = WireReader(bytes)
            return try body(&reader)
        }
    }

    var refusal: Refusal? {
        command == .error ? try? read { try ErrorMessage.read(from: &$0) } : nil
    }

    var values: ConfigValuesMessage? {
        command == .configValues ? try? read { try ConfigValuesMessage(from: &$0) } : nil
    }

    var entry: ConfigEntry? {
        command == .configUpdate ? try? read { try ConfigEntry(from: &$0) } : nil
    }
}

/// SplitMix64: the same numbers for the same seed.
struct SeededNumbers: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) {
        state = seed
    }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}
