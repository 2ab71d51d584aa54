// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksProcess
import QTasksWire
import Testing
import ZeroMQ

extension `A running system` {
    /// A client that asks and never reads costs the others nothing, and the Broker no more than a bound (H3).
    @MainActor
    @Suite(.serialized, .timeLimit(.minutes(3)))
    struct `A client that reads no answer` {
        private nonisolated static let mebibyte: UInt64 = 1 << 20

        /// It may leave 64 MiB unread; beside that it has some replies that are being made.
        private nonisolated static let growthMax = 160 * mebibyte

        @Test func `is cut off, and others are served meanwhile`() async throws {
            try await Bed.use { bed in
                let system = try bed.system()
                let broker = try system.member("broker").pid
                let id = try bed.add("echo", "\"\(String(repeating: "x", count: 2500))\"")
                _ = try bed.finalRecord(id)
                let before = try #require(ResidentMemory.bytes(of: broker))
                var peak = before
                let deaf = try Peer(.dealer, at: bed.home, .clients)
                let request = try Self.request(for: id, times: 100)
                for number in 0..<2000 {
                    try deaf.send(request, within: 30)
                    guard number % 50 == 0 else { continue }
                    peak = max(peak, ResidentMemory.bytes(of: broker) ?? 0)
                    if number % 500 == 0 {
                        let other = try bed.add("echo", "\"\(number)\"")
                        #expect(try bed.finalRecord(other)["status"].text == "success")
                    }
                }
                try bed.wait("the cut") {
                    peak = max(peak, ResidentMemory.bytes(of: broker) ?? 0)
                    return !system.log.lines(with: ["event=\"client cut\""]).isEmpty
                }
                #expect(
                    peak < before + Self.growthMax,
                    "\((peak - before) / Self.mebibyte) MiB for answers that nobody reads"
                )
                print("a deaf client costs the Broker \((peak - before) / Self.mebibyte) MiB")
            }
        }

        /// One request for the same record, many times: 5 MiB of answers for 2 KiB of questions.
        private static func request(for id: String, times: Int) throws -> [UInt8] {
            guard let id = TaskID(id) else { throw Failure("'\(id)' is no ID") }
            var writer = WireWriter(.get, number: 1)
            writer.u8(0)
            writer.integer(UInt32(0))
            for _ in 0..<times { writer.id(id) }
            return writer.bytes
        }
    }
}
