// Part of QTasks. License: see LICENSE.

import Glibc
import QTasks
import QTasksModel
import QTasksProcess
import QTasksWire
import Testing
import ZeroMQ

extension `A running system` {
    /// Payloads that travel once.
    @MainActor
    @Suite(.serialized, .timeLimit(.minutes(3)))
    struct `A payload of 10 MiB` {
        private nonisolated static let bytes = 10 << 20

        private nonisolated static func text(_ letter: Character) -> String {
            String(repeating: letter, count: bytes)
        }

        private static func task(_ name: String, _ bed: Bed) -> AsyncTask<String, String> {
            bed.client().task(name) { (text: String, _: TaskContext) async throws -> String in text
            }
        }

        @Test func `goes to a handler and comes back, from Swift`() async throws {
            try await Bed.use { bed in
                _ = try bed.system()
                // bytes: a debug build takes seconds of computing for as much text
                let copy = bed.client().task("copy") {
                    (bytes: [UInt8], _: TaskContext) async throws -> [UInt8] in bytes
                }
                for byte in [1, 2] as [UInt8] {
                    let bytes = [UInt8](repeating: byte, count: Self.bytes)
                    let back = try await copy.run(bytes, timeout: .seconds(30))
                    #expect(back == bytes)
                }
                // less of it, for the same reason: middlewares handle arrays
                let short = String(repeating: "c", count: 200 << 10)
                let framed = try await Self.task("framed", bed).addTask(short)
                let back = try await framed.result(timeout: .seconds(30))
                #expect(back == "inner<outer<\(short)>inner>outer", "middlewares get the bytes")
            }
        }

        @Test func `comes to a client in any language as bytes, and as JSON`() async throws {
            try await Bed.use { bed in
                _ = try bed.system()
                let text = Self.text("p")
                let added = try await Self.task("echo", bed).addTask(text)
                let peer = try Peer(.dealer, at: bed.home, .clients)
                let (command, body) = try peer.ask(.get, within: 30) { writer in
                    writer.u8(RecordOptions.wait.rawValue)
                    writer.integer(UInt32(30_000))
                    writer.id(added.id)
                }
                #expect(command == .records)
                let record = try body.withUnsafeBytes { bytes in
                    var reader = WireReader(bytes)
                    _ = try reader.u8("flags")
                    let reply = try RecordReply(from: &reader)
                    var record = WireReader(reply.record)
                    return try TaskRecord(from: &record)
                }
                let expected = Array("\"\(text)\"".utf8)
                #expect(record.submission.arguments == expected)
                #expect(record.outcome == .success(result: expected, contentType: nil))
                let json = try peer.record(of: "\(added.id)", within: 30)
                #expect(json["status"].text == "success" && json["result"].text == text)
            }
        }

        @Test func `isn't held by Broker or worker, and stays though Storage is killed`()
            async throws
        {
            try await Bed.use { bed in
                let system = try bed.system(workers: 1, "--slots", "1")
                let gate = try bed.add("hold", "\"first\"")
                try bed.waitForEvents("hold")
                let echo = Self.task("echo", bed)
                let added = try await echo.addTask(Self.text("q"))
                try system.killAndAwaitReplacement(of: "storage")
                bed.openGate()
                #expect(try bed.finalRecord(gate)["status"].text == "success")
                #expect(try await added.result(timeout: .seconds(30)) == Self.text("q"))
            }
        }
    }
}
