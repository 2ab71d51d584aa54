// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksProcess

/// One of the processes that share the seeds: a core each.
///
/// What it says goes to standard output in lines: `totals NUMBERS`; `report BYTES` and `find BYTES` with
/// that many bytes behind them; and in the end `end`.
struct SimulatorChild {
    /// Which of how many it is.
    struct Part: Sendable, Equatable {
        var number: UInt64
        var of: UInt64
        var parent: Int32

        /// As the parent hands it over.
        var argument: String { "\(number),\(of),\(parent)" }

        init(number: UInt64, of: UInt64, parent: Int32) {
            self.number = number
            self.of = of
            self.parent = parent
        }

        init?(argument: String) {
            let numbers = argument.split(separator: ",").compactMap { Int32($0) }
            guard numbers.count == 3, numbers[1] > 0, numbers[0] >= 0, numbers[0] < numbers[1]
            else {
                return nil
            }
            self.init(
                number: UInt64(numbers[0]),
                of: UInt64(numbers[1]),
                parent: numbers[2]
            )
        }
    }

    /// Runs this process's part of the seeds.
    static func run(_ part: Part, of plan: SeedPlan, by runner: SeedRunner) {
        // nobody reads on where the parent has ended
        if part.parent > 0 { ParentGuard.arm(expectedParent: part.parent) }
        let listener = SeedRunner.Listener(
            progressed: { say("totals \($0.line)\n") },
            reported: { say("report \($0.utf8.count)\n\($0)") }
        )
        let totals = runner.run(plan.seeds(part: part.number, of: part.of), telling: listener)
        say("totals \(totals.line)\nend\n")
    }

    /// Looks for one planted mistake.
    static func search(_ search: PlantSearch, parent: Int32) {
        if parent > 0 { ParentGuard.arm(expectedParent: parent) }
        let find = search.run()
        say("find \(find.line.utf8.count)\n\(find.line)end\n")
    }

    private static func say(_ text: String) {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let count = bytes.withUnsafeBytes { write(STDOUT_FILENO, $0.baseAddress, $0.count) }
            guard count > 0 else { exit(1) }
            bytes = bytes.dropFirst(count)
        }
    }
}

/// What a child has said, taken apart.
struct ChildWords {
    enum Word: Equatable {
        case totals(RunTotals)
        case report(String)
        case find(PlantFind)
        case end
        /// What no child says.
        case nonsense(String)
    }

    private var unread: [UInt8] = []

    mutating func append(_ bytes: some Sequence<UInt8>) { unread += bytes }

    /// The next thing that it has said to the end.
    mutating func next() -> Word? {
        guard let lineEnd = unread.firstIndex(of: UInt8(ascii: "\n")) else { return nil }
        let line = String(decoding: unread[..<lineEnd], as: UTF8.self)
        let parts = line.split(separator: " ", maxSplits: 1)
        switch parts.first {
        case "report", "find":
            guard let count = parts.last.flatMap({ Int($0) }), count > 0 else { break }
            guard unread.count > lineEnd + count else { return nil }
            let bytes = unread[(lineEnd + 1)...(lineEnd + count)]
            let text = String(decoding: bytes, as: UTF8.self)
            unread.removeFirst(lineEnd + 1 + count)
            guard line.hasPrefix("find") else { return .report(text) }
            return PlantFind(line: text).map { .find($0) } ?? .nonsense(text)
        case "totals":
            guard let totals = parts.last.flatMap({ RunTotals(line: $0) }) else { break }
            unread.removeFirst(lineEnd + 1)
            return .totals(totals)
        case "end":
            unread.removeFirst(lineEnd + 1)
            return .end
        default: break
        }
        unread.removeFirst(lineEnd + 1)
        return .nonsense(line)
    }
}
