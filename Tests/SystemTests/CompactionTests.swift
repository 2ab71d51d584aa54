// Part of QTasks. License: see LICENSE.

import Glibc
import QTasks
import Testing

extension `A running system` {
    /// Promises P1, P2 and P5 where they are hardest to keep: while the log is copied and its files go.
    @MainActor
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct `Compaction` {
        /// The least quota makes segments short: 16 MiB.
        private static func start(_ bed: Bed, workers: Int) throws -> System {
            try bed.system(
                .testTasks,
                workers: workers,
                "--history",
                "0",
                "--max-payload",
                "1048576",
                "--quota",
                "256MiB"
            )
        }

        /// Tasks that end in each round, with their results a segment full, and those that nobody can run.
        private static let counts = (ending: 34, waiting: 10)

        @Test func `that Storage is killed in three times loses no task (P1, P2, P5)`() async throws
        {
            try await Bed.use { bed in
                let system = try Self.start(bed, workers: 1)
                let app = bed.client()
                var ended: [TaskID] = []
                var waiting: [TaskID] = []
                for round in 0..<3 {
                    let added = try await Self.addTasks("echo", Self.counts.ending, round, app)
                    ended += added
                    waiting += try await Self.addTasks("nobody", Self.counts.waiting, round, app)
                    _ = try await app.ends(of: added)
                    try Self.killWhileCompacting(bed, system)
                    let verified = try bed.command("log", "verify")
                    #expect(verified.code == 0, "\(verified.output)\(verified.log)")
                }
                #expect(Self.firstSegment(bed) > 1, "something was compacted")
                try await Self.checkTasks(bed, app, ended, waiting)
                #expect(try system.stop().code == 0)

                let compacted = try bed.command("log", "compact", "--json")
                #expect(compacted.code == 0, "\(compacted.log)")
                #expect(try compacted.json["bytesAfter"].integer ?? 0 > 0)
                try Self.checkStore(bed, ended, waiting)
                _ = try Self.start(bed, workers: 0)
                try await Self.checkTasks(bed, bed.client(), ended, waiting)
            }
        }

        /// Asks for a compaction, and kills Storage at the first byte that it writes for it.
        private static func killWhileCompacting(_ bed: Bed, _ system: System) throws {
            let storage = try system.member("storage").pid
            let folder = try FolderWatch(bed.home + "/store")
            let mark = system.log.lines.count
            let asked = try bed.start(
                Tool.testTasks.path,
                ["log", "compact", "--home", bed.home, "--json"]
            )
            try folder.waitForWrite(toFilesWith: "segment-", within: 10)
            kill(storage, SIGKILL)
            try system.waitForLog(["broker[", "event=\"storage opened\""], from: mark)
            // whoever asked doesn't notice
            try bed.wait("the end of the compaction", within: 20) {
                asked.report != nil && asked.output.isAtEnd
            }
            let finished = Finished(asked)
            #expect(finished.code == 0, "\(finished.log)")
        }

        private static func addTasks(
            _ name: String,
            _ count: Int,
            _ round: Int,
            _ app: QueueTasks
        ) async throws -> [TaskID] {
            let padding = String(repeating: "x", count: 250_000)
            let tasks = (0..<count).map { number in
                TaskSubmission(
                    name: name,
                    arguments: Array("\"\(round) \(number) \(padding)\"".utf8)
                )
            }
            try await app.addTasks(tasks)
            return tasks.map(\.id)
        }

        private static func checkTasks(
            _ bed: Bed,
            _ app: QueueTasks,
            _ ended: [TaskID],
            _ waiting: [TaskID]
        ) async throws {
            let ends = try await app.ends(of: ended)
            for (index, end) in ends.enumerated() {
                let (round, number) = index.quotientAndRemainder(dividingBy: counts.ending)
                #expect(end.hasPrefix("\"\(round) \(number) x") && end.utf8.count > 250_000)
            }
            let rows = try bed.command("stats", "inspect", "tasks", "--json").json["tasks"].list
            func count(_ state: String) -> Int {
                rows.reduce(0) { $0 + ($1[state].integer ?? 0) }
            }
            #expect(count("success") == ended.count && count("new") == waiting.count)
            #expect(count("process") == 0 && count("error") == 0 && count("dead") == 0)
            try checkStore(bed, ended, waiting)
        }

        private static func checkStore(
            _ bed: Bed,
            _ ended: [TaskID],
            _ waiting: [TaskID]
        ) throws {
            let verified = try bed.command("log", "verify", "--json")
            #expect(verified.code == 0, "\(verified.output)")
            #expect(try verified.json["tasks"].integer == ended.count + waiting.count)
            let lines = try bed.command("log", "at", "now", "--json").output.split(separator: "\n")
            var states: [String: String] = [:]
            for task in try lines.dropFirst().map({ try JSON(String($0)) }) {
                states[task["id"].text ?? ""] = task["status"].text
            }
            #expect(states.count == ended.count + waiting.count)
            #expect(ended.allSatisfy { states[$0.description] == "success" })
            #expect(waiting.allSatisfy { states[$0.description] == "new" })
        }

        private static func firstSegment(_ bed: Bed) -> Int {
            let stats = try? bed.command("log", "stats", "--json").json
            return stats?["segments"].list.first?["segment"].integer ?? 0
        }
    }
}

/// Tells that files of a folder are written to: inotify(7).
private final class FolderWatch {
    private let descriptor: Int32

    init(_ path: String) throws {
        descriptor = inotify_init1(Int32(IN_CLOEXEC | IN_NONBLOCK))
        guard descriptor >= 0, inotify_add_watch(descriptor, path, UInt32(IN_MODIFY)) >= 0 else {
            throw Failure("inotify \(path): errno \(errno)")
        }
    }

    deinit { close(descriptor) }

    /// Until a file whose name begins like that is written to.
    func waitForWrite(toFilesWith prefix: String, within seconds: Int) throws {
        let end = ContinuousClock.now + .seconds(seconds)
        while ContinuousClock.now < end {
            if takeNames().contains(where: { $0.hasPrefix(prefix) }) { return }
            var item = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            poll(&item, 1, Int32((end - .now) / .milliseconds(1)) + 1)
        }
        throw Failure("waited \(seconds) s for a write to '\(prefix)'")
    }

    /// The files of the events that are there.
    private func takeNames() -> [String] {
        var names: [String] = []
        var buffer = [UInt8](repeating: 0, count: 16 << 10)
        while true {
            let count = read(descriptor, &buffer, buffer.count)
            guard count > 0 else { return names }
            var offset = 0
            while offset < count {
                // watch, mask, cookie, length, name
                let length = buffer[offset + 12..<offset + 16].reversed()
                    .reduce(0) { $0 << 8 | Int($1) }
                let name = buffer[offset + 16..<offset + 16 + length].prefix { $0 != 0 }
                names.append(String(decoding: name, as: UTF8.self))
                offset += 16 + length
            }
        }
    }
}
