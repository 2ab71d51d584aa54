// Part of QTasks. License: see LICENSE.

import Testing

@testable import QTasksSimulator

@Suite
struct `The simulator's command` {
    @Test func `shares the seeds among its processes without a gap`() {
        let plan = SeedPlan(first: 5, count: 7)
        let parts = (0..<3).map { Array(plan.seeds(part: $0, of: 3)) }
        #expect(parts == [[5, 8, 11], [6, 9], [7, 10]])
    }

    @Test func `derives other seeds from another commit, and the same from the same`() {
        #expect(SeedPlan.first(of: "7cc87c8") == SeedPlan.first(of: "7cc87c8"))
        #expect(SeedPlan.first(of: "7cc87c8") != SeedPlan.first(of: "7cc87c9"))
    }

    @Test func `understands its children, however their words are cut`() {
        var totals = RunTotals()
        (totals.seeds, totals.steps, totals.violations) = (3, 4000, 1)
        totals.faults[.clockStep] = 5
        var find = PlantFind(plant: .orderByPosition)
        (find.seed, find.violation, find.seeds) = (17, "P6: one before another", 17)
        let text =
            "report 12\ntwo\nlines, ytotals \(totals.line)\n"
            + "find \(find.line.utf8.count)\n\(find.line)end\n"
        var words = ChildWords()
        var heard: [ChildWords.Word] = []
        for byte in text.utf8 {
            words.append([byte])
            while let word = words.next() { heard.append(word) }
        }
        #expect(heard == [.report("two\nlines, y"), .totals(totals), .find(find), .end])
    }

    @Test func `finds a fault by its name in a person's spelling`() {
        #expect(PlantedFault(name: "stale-lease-accepted") == .staleLeaseAccepted)
        #expect(PlantedFault.allCases.allSatisfy { PlantedFault(name: $0.name) == $0 })
        #expect(FaultKind.killWorker.name == "kill_worker")
    }
}
