// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc
import QTasksModel
import QTasksProcess
import QTasksWire
import Testing
import ZeroMQ

extension `A running system` {
    /// Promise P7: whoever can be answered is, nobody crashes, and the others go on being served.
    @MainActor
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct `Bad input` {
        @Test
        func `from a client is answered by what is wrong with it (behaviour 11)`() async throws {
            try await Self.withUnharmedSystem { bed, _ in
                let client = try Peer(.dealer, at: bed.home, .clients)
                try client.send(Array("hello".utf8))
                #expect(try client.refusal() == .malformed)
                try client.send(Array("XT".utf8) + [1, 1] + [UInt8](repeating: 0, count: 8))
                #expect(try client.refusal() == .malformed)
                try client.send([0x51, 0x54, 9, 1, 7, 0, 0, 0, 0, 0, 0, 0])
                let (command, body) = try client.answer()
                #expect(command == .error)
                #expect(body.first == RefusalCode.unsupportedVersion.rawValue)
                try client.send([0x51, 0x54, 1, 0xEE, 7, 0, 0, 0, 0, 0, 0, 0])
                #expect(try client.refusal() == .unknownCommand)
                try client.send(WireWriter(.propose).bytes)
                #expect(try client.refusal() == .unknownCommand)
                try client.send([0x51], [0x54], [1])
                #expect(try client.refusal() == .malformed)
                try client.send([0x51, 0x54, 1, 2] + [UInt8](repeating: 0, count: 8) + [0, 0])
                #expect(try client.refusal() == .malformed)
                // odd for some, and a name like any other
                #expect(try bed.command("add", "a:b", "1").code == 0)
                let (_, inspected) = try client.ask(.inspect) { $0.raw("nonsense".utf8) }
                #expect(inspected.first != nil)
            }
        }

        @Test
        func `in an add is refused, and the tasks beside it are taken`() async throws {
            try await Self.withUnharmedSystem { bed, _ in
                let client = try Peer(.dealer, at: bed.home, .clients)
                let good = TaskSubmission(name: "echo", arguments: Array("\"good\"".utf8))
                let bad: [(TaskSubmission, RefusalCode)] = [
                    (TaskSubmission(name: "a?b", arguments: []), .badName),
                    (
                        TaskSubmission(
                            name: "echo",
                            arguments: [UInt8](repeating: 0x20, count: 5000)
                        ), .payloadTooLarge
                    ),
                ]
                let (command, receipts) = try client.ask(.add) { writer in
                    writer.u8(0)
                    writer.integer(UInt32(0))
                    for (submission, _) in bad {
                        var envelope = WireWriter()
                        try submission.write(to: &envelope)
                        // our own modules don't send such a name
                        let (head, rest) = (envelope.bytes.prefix(32), envelope.bytes.dropFirst(32))
                        writer.raw(head + rest.map { $0 == UInt8(ascii: "?") ? 10 : $0 })
                    }
                    try good.write(to: &writer)
                }
                #expect(command == .added)
                let read = try receipts.withUnsafeBytes { bytes in
                    var reader = WireReader(bytes)
                    var read: [TaskID: AddReceipt.Verdict] = [:]
                    while !reader.isAtEnd {
                        let receipt = try AddReceipt(from: &reader)
                        read[receipt.id] = receipt.verdict
                    }
                    return read
                }
                for (submission, code) in bad {
                    guard case .refused(let refusal)? = read[submission.id] else {
                        Issue.record("\(submission.name) was taken")
                        continue
                    }
                    #expect(refusal.code == code)
                    #expect(!refusal.message.isEmpty)
                }
                #expect(read[good.id] == .added)
                #expect(try client.record(of: "\(good.id)", within: 5)["result"].text == "good")
            }
        }

        @Test
        func `on the command line is an error of its own`() async throws {
            try await Self.withUnharmedSystem { bed, _ in
                #expect(try bed.command("add", "a\nb", "1").code == 64)
                #expect(try bed.command("add", "echo", "{no JSON").code == 64)
                let large = "\"" + String(repeating: "x", count: 5000) + "\""
                let refused = try bed.command("add", "echo", large)
                #expect(refused.code == 64)
                #expect(refused.log.contains("4096"), "names the limit: \(refused.log)")
                let waited = try bed.command("add", "nobody", "1", "--wait", "--timeout", "0.2")
                #expect(waited.code == 124)
                #expect(waited.log.contains("no connected worker"), "\(waited.log)")
                #expect(try bed.command("config", "set", "log.level", "loud").code == 64)
            }
        }

        @Test
        func `over the largest message costs its sender the connection, and nobody else's`()
            async throws
        {
            try await Self.withUnharmedSystem { bed, _ in
                let other = try Peer(.dealer, at: bed.home, .clients)
                _ = try other.ask(.ping) { _ in }
                for endpoint in [SystemEndpoint.clients, .workers, .config] {
                    let peer = try Peer(.dealer, at: bed.home, endpoint)
                    try peer.send([UInt8](repeating: 0x51, count: 32 << 20))
                    #expect(throws: Failure.self) { try peer.receive(within: 1) }
                }
                try Peer(.push, at: bed.home, .results).send(
                    [UInt8](repeating: 0x51, count: 32 << 20)
                )
                #expect(try other.ask(.ping) { _ in }.command == .pong)
            }
        }

        @Test
        func `from a false worker or Starter changes nothing`() async throws {
            try await Self.withUnharmedSystem { bed, system in
                let peer = try Peer(.dealer, at: bed.home, .workers)
                try peer.send(Array("hello".utf8))
                #expect(try peer.refusal() == .malformed)
                try peer.send([0x51, 0x54, 9, 0x21] + [UInt8](repeating: 0, count: 8))
                #expect(try peer.refusal() == .unsupportedVersion)
                try peer.send(WireWriter(.hello).bytes + [UInt8](repeating: 0xFF, count: 500))
                #expect(try peer.refusal() == .malformed)
                try peer.send(CreditMessage.encoded(window: .max))
                var drain = WireWriter(.drain)
                drain.integer(UInt64(0))
                try peer.send(drain.bytes)
                try peer.send(WireWriter(.stop).bytes)
                try system.waitForLog(["only the Starter may send"], count: 2)
            }
        }

        @Test
        func `in pushed results is counted, logged and dropped`() async throws {
            try await Self.withUnharmedSystem { bed, system in
                let id = try bed.add("hold", "\"mine\"")
                try bed.waitForEvents("hold")
                let push = try Peer(.push, at: bed.home, .results)
                try push.send(Array("hello".utf8))
                try push.send([1], [2], [3])
                try push.send([0x51, 0x54, 9, 0x41] + [UInt8](repeating: 0, count: 8))
                try push.send(WireWriter(.results).bytes + [UInt8](repeating: 0xFF, count: 500))
                try system.waitForLog(["storage[", "event=\"malformed message\"", "(4 so far)"])
                bed.openGate()
                #expect(try bed.finalRecord(id)["result"].text == "mine")
            }
        }

        @Test
        func `for GlobalConfig is refused, and its settings stay`() async throws {
            try await Self.withUnharmedSystem { bed, system in
                #expect(try bed.command("config", "set", "mine", "kept").code == 0)
                let peer = try Peer(.dealer, at: bed.home, .config)
                try peer.send(Array("hello".utf8))
                #expect(try peer.refusal() == .malformed)
                try peer.send([0x51, 0x54, 9, 0x81] + [UInt8](repeating: 0, count: 8))
                #expect(try peer.refusal() == .unsupportedVersion)
                try peer.send([0x51, 0x54, 1, 0xEE] + [UInt8](repeating: 0, count: 8))
                #expect(try peer.refusal() == .unknownCommand)
                let (stop, _) = try peer.ask(.configStop) { _ in }
                #expect(stop == .error, "only Storage may stop it")
                let (set, _) = try peer.ask(.configSet) { writer in
                    writer.text("a\nb")
                    writer.u8(1)
                    writer.counted([])
                }
                #expect(set == .error)
                #expect(try bed.command("config", "get", "*").output == "mine=kept\n")
            }
        }

        @Test
        func `at Storage's own socket gets no hearing`() async throws {
            try await Self.withUnharmedSystem { bed, system in
                let peer = try Peer(.dealer, at: bed.home, .storage)
                try peer.send([])
                try peer.send(WireWriter(.stopStorage).bytes)
                try system.waitForLog(["storage[", "event=refused"])
            }
        }

        @Test(arguments: ["store", "config"])
        func `of a newer version's making on disk ends the start with the reason`(part: String)
            async throws
        {
            try await Bed.use { bed in
                let id: String
                do {
                    let system = try bed.system()
                    id = try bed.add("echo", "\"kept\"")
                    #expect(try bed.finalRecord(id)["status"].text == "success")
                    #expect(try system.stop().code == 0)
                }
                let meta = "\(bed.home)/\(part)/meta"
                let before = try ProcFile.bytes(at: meta)
                try ProcFile.write(Self.ofNextVersion(before), to: meta)
                let refused = try bed.command("run", "--workers", "1")
                #expect(refused.code == 78)
                #expect(refused.log.contains("newer"), "\(refused.log)")
                #expect(refused.log.contains(meta), "names the file")

                try ProcFile.write(before, to: meta)
                _ = try bed.system()
                #expect(try bed.record(id)["result"].text == "kept")
            }
        }

        /// Both pages of a store's `meta` with a version one higher, and right checksums.
        private static func ofNextVersion(_ meta: [UInt8]) -> [UInt8] {
            var meta = meta
            for page in stride(from: 0, to: meta.count, by: 4096) {
                meta[page + 8] += 1
                let body = Array(meta[page..<page + 4092])
                let sum = clinux_crc32c(0, body, body.count)
                for byte in 0..<4 {
                    meta[page + 4092 + byte] = UInt8(truncatingIfNeeded: sum >> (8 * UInt32(byte)))
                }
            }
            return meta
        }

        /// A system that has to serve with the same processes after `body` as before.
        private static func withUnharmedSystem(
            _ body: @MainActor (Bed, System) throws -> Void
        ) async throws {
            try await Bed.use { bed in
                let system = try bed.system(.testTasks, workers: 2, "--max-payload", "4096")
                let before = try system.members()
                try body(bed, system)
                let echoed = try bed.command("add", "echo", "\"well\"", "--wait")
                #expect(echoed.output == "\"well\"\n")
                #expect(try system.members() == before)
            }
        }
    }
}
