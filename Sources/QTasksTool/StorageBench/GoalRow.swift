// Part of QTasks. License: see LICENSE.

import QTasks

/// One figure of a benchmark, held against what it has to reach.
struct GoalRow {
    var name: String
    var value: Double
    var unit: String
    /// What this machine can do at all, measured in the same run; in the same unit.
    var limit: Double
    /// In words, such as `>= 1500000`.
    var goal: String
    var isReached: Bool

    var ratio: Double { limit == 0 ? 0 : value / limit }

    var text: String {
        let verdict = isReached ? "ok" : "NOT REACHED"
        return "\(name)  \(Self.plain(value)) \(unit)  limit \(Self.plain(limit))  "
            + "ratio \(Self.plain(ratio))  goal \(goal)  \(verdict)"
    }

    var json: String {
        var text = JSONText()
        text.object { json in
            json.member("name", name)
            json.key("value")
            json.raw(Self.plain(value).utf8)
            json.member("unit", unit)
            json.key("limit")
            json.raw(Self.plain(limit).utf8)
            json.key("ratio")
            json.raw(Self.plain(ratio).utf8)
            json.member("goal", goal)
            json.member("ok", isReached)
        }
        return String(decoding: text.bytes, as: UTF8.self)
    }

    /// Without more digits than anybody reads.
    static func plain(_ value: Double) -> String {
        value == value.rounded() && abs(value) < 1e15
            ? String(Int(value)) : String((value * 1000).rounded() / 1000)
    }
}
