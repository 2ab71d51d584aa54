// Part of QTasks. License: see LICENSE.

import QTasksModel

/// What came of many seeds.
struct RunTotals: Sendable, Equatable {
    var seeds = 0
    var steps = 0
    var violations = 0
    var faults = FaultCounts()

    static func += (left: inout Self, right: Self) {
        left.seeds += right.seeds
        left.steps += right.steps
        left.violations += right.violations
        left.faults += right.faults
    }

    /// One object, as `--json` prints it last.
    func json(seconds: Double) -> String {
        var text = JSONText()
        text.object { json in
            json.member("seeds", seeds)
            json.member("steps", steps)
            json.member("violations", violations)
            json.key("faults")
            json.object { json in
                for kind in FaultKind.allCases { json.member(kind.name, faults[kind]) }
            }
            json.key("seconds")
            json.raw(Self.plain(seconds).utf8)
            json.member("steps_per_second", Int(Double(steps) / max(seconds, 0.001)))
        }
        return String(decoding: text.bytes, as: UTF8.self)
    }

    /// The same for people.
    func text(seconds: Double) -> String {
        let struck = FaultKind.allCases.map { kind in
            let name = kind.name.replacing("_", with: " ")
            return "  \(name)\(String(repeating: " ", count: 24 - name.count))\(faults[kind])"
        }
        let rate = Int(Double(steps) / max(seconds, 0.001))
        return """
            faults that struck:
            \(struck.joined(separator: "\n"))
            \(seeds) seeds, \(steps) steps in \(Self.plain(seconds)) s (\(rate) a second): \
            \(violations == 0 ? "every promise held" : "\(violations) seeds broke a promise")
            """
    }

    private static func plain(_ seconds: Double) -> String {
        "\((seconds * 10).rounded() / 10)"
    }
}

// MARK: - From child to parent

extension RunTotals {
    /// Numbers in a fixed order, between spaces: both ends are the same program.
    var line: String {
        ([seeds, steps, violations] + FaultKind.allCases.map { faults[$0] })
            .map { "\($0)" }.joined(separator: " ")
    }

    init?(line: Substring) {
        let numbers = line.split(separator: " ").compactMap { Int($0) }
        guard numbers.count == 3 + FaultKind.allCases.count else { return nil }
        (seeds, steps, violations) = (numbers[0], numbers[1], numbers[2])
        for kind in FaultKind.allCases { faults[kind] = numbers[3 + kind.rawValue] }
    }
}
