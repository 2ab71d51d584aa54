// Part of QTasks. License: see LICENSE.

import ArgumentParser
import Glibc
import QTasks

/// `load`: adds tasks until its standard input ends, and says on standard output what was acknowledged
/// and what it was told of each end.
///
/// ```
///   acked ID NAME NUMBER        the add was acknowledged
///   told ID STATUS RESULT       whoever waited heard of this end; RESULT is - where there is none
///   failed NAME WHY             an add or a wait came to nothing; the task may have been added
/// ```
struct LoadCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "load",
        abstract: "Add plain and odd tasks until standard input ends."
    )

    @Option(help: "The system's home directory.")
    var home: String

    @Option(help: "Where the random choices begin.")
    var seed: UInt64 = 1

    @Option(help: "Rounds a second; each adds ten plain tasks and waits for one of them.")
    var rate = 20

    @Option(help: "Every so many rounds one odd task.")
    var odd = 12

    @Option(help: "MiB that a task writes to standard error.")
    var shout = 1

    func run() async throws {
        let app = QueueTasks("load", home: home, waitForSystem: true)
        var random = SplitMix(state: seed)
        await withTaskGroup(of: Void.self) { group in
            var round = 0
            while !inputHasEnded(within: 1000 / rate) {
                let plain = (0..<10).map { _ in Choice.plain(&random) }
                group.addTask { await add(plain, to: app) }
                if round % odd == 0 {
                    let choice = Choice.odd(&random, number: round / odd, megabytes: shout)
                    group.addTask { await add([choice], to: app) }
                }
                round += 1
            }
            await group.waitForAll()
        }
    }

    /// Adds tasks with one message, and waits for the first one's end.
    private func add(_ choices: [Choice], to app: QueueTasks) async {
        let submissions = choices.map(\.submission)
        do {
            try await app.addTasks(submissions, timeout: .seconds(120))
            for (choice, task) in zip(choices, submissions) {
                say("acked \(task.id) \(choice.name) \(choice.number)")
            }
            let end = try await app.end(of: submissions[0].id, timeout: .seconds(300))
            say("told \(submissions[0].id) \(Self.words(end))")
        } catch {
            say("failed \(choices[0].name) \(error)")
        }
    }

    private static func words(_ end: TaskEnd) -> String {
        guard case .success(let result, _) = end.outcome else { return "\(end.status.rawValue) -" }
        return "success \(String(decoding: result, as: UTF8.self))"
    }

    private func say(_ line: String) {
        let bytes = Array((line + "\n").utf8)
        _ = write(STDOUT_FILENO, bytes, bytes.count)
    }

    private func inputHasEnded(within milliseconds: Int) -> Bool {
        var item = pollfd(fd: STDIN_FILENO, events: Int16(POLLIN), revents: 0)
        return poll(&item, 1, Int32(milliseconds)) > 0
    }
}

/// One task to add.
private struct Choice: Sendable {
    var name: String
    var number: Int

    var submission: TaskSubmission {
        TaskSubmission(name: name, arguments: Array("\(number)".utf8))
    }

    static func plain(_ random: inout SplitMix) -> Choice {
        let name = PlainTasks.names.randomElement(using: &random) ?? "plain"
        return Choice(name: name, number: Int.random(in: 0..<1_000_000, using: &random))
    }

    /// In turn, so that a short run has all of them; most do harm once, some for ever.
    static func odd(_ random: inout SplitMix, number: Int, megabytes: Int) -> Choice {
        let name = OddTasks.names[number % OddTasks.names.count]
        let times = Int.random(in: 0..<8, using: &random) == 0 ? 1000 : 1
        return Choice(name: name, number: name == "shout" ? megabytes : times)
    }
}

/// A generator whose numbers its seed repeats.
struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}
