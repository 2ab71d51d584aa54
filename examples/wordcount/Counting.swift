// Part of QTasks. License: see LICENSE.

import QTasks

/// The client's side: a task for each file, then one or a few that merge what was found.
struct Counting {
    private static let batch = 500

    private let progress = Progress()
    private let kill: WorkerKill?

    /// - Parameter kill: What kills a worker in between, if something does.
    init(kill: WorkerKill?) {
        self.kill = kill
    }

    private enum Outcome: Sendable {
        case counted(FileCount)
        case failed(String)
    }

    /// Counts what the walk found.
    ///
    /// - Throws: ``QTasksError`` where the system fails; a file that can't be read is a row.
    func report(on walk: FileWalk) async throws -> Report {
        let began = ContinuousClock.now
        progress.begin(goal: walk.files.count)
        defer { progress.end() }
        let outcomes = try await count(walk.files)
        let top = try await merge(
            outcomes.compactMap { if case .counted(let count) = $0 { count.top } else { nil } }
        )
        var rows = zip(walk.files, outcomes).map { Report.Row(path: $0, outcome: Self.row($1)) }
        rows += walk.failures.map { Report.Row(path: $0.path, outcome: .failed($0.reason)) }
        let report = Report(rows: rows, top: top)
        progress.say(
            "counted \(walk.files.count) files, \(Progress.size(report.total.bytes)), "
                + "in \(Self.seconds(ContinuousClock.now - began)) s"
        )
        return report
    }

    /// One outcome for each file, in their order.
    private func count(_ files: [ByteText]) async throws -> [Outcome] {
        let folder = try ByteText.workingDirectory()
        let inputs = files.map { CountInput(path: $0.absolute(in: folder)) }
        var outcomes = [Outcome?](repeating: nil, count: inputs.count)
        try await withThrowingTaskGroup(of: (Int, Outcome).self) { group in
            var ids: [TaskID] = []
            var start = 0
            func addBatch() async throws {
                // asked for more than there is, it adds the first file again: that counts the same
                let batch =
                    start < inputs.count ? start..<min(start + Self.batch, inputs.count) : 0..<1
                let results = try await Wordcount.shared.count.addTasks(inputs[batch])
                for (index, result) in zip(batch, results) {
                    ids.append(result.id)
                    group.addTask { (index, try await outcome(of: result)) }
                }
                start = max(start, batch.upperBound)
            }
            if let kill {
                try await kill.kill(adding: addBatch)
            }
            while start < inputs.count { try await addBatch() }
            for try await (index, outcome) in group { outcomes[index] = outcome }
            if let kill {
                progress.say(try await kill.verdict(on: ids))
            }
        }
        return outcomes.compactMap(\.self)
    }

    /// Waits for one file's task.
    private func outcome(of result: AsyncResult<FileCount>) async throws -> Outcome {
        do {
            let count = try await result.result()
            progress.advance(bytes: count.bytes)
            return .counted(count)
        } catch let error as QTasksError where error.code == .taskFailed {
            progress.advance(bytes: 0)
            return .failed((error.cause as? FailedTask)?.failure?.message ?? error.message)
        }
    }

    /// The most frequent words of all files, as far as their lists tell.
    private func merge(_ tops: [[WordTally]]) async throws -> [WordTally] {
        var lists = tops.filter { !$0.isEmpty }
        while true {
            let groups = MergePlan.groups(of: lists)
            guard !groups.isEmpty else { return [] }
            let isLast = groups.count == 1
            let limit = isLast ? FileCount.topWords : MergePlan.wordsKept
            let results = try await Wordcount.shared.merge.addTasks(
                groups.map { MergeInput(tops: $0, limit: limit) }
            )
            lists = []
            for result in results { lists.append(try await result.result().top) }
            if isLast { return lists.first ?? [] }
        }
    }

    private static func row(_ outcome: Outcome) -> Report.Outcome {
        switch outcome {
        case .counted(let count):
            .counted(lines: count.lines, words: count.words, bytes: count.bytes)
        case .failed(let reason):
            .failed(reason)
        }
    }

    private static func seconds(_ duration: Duration) -> String {
        let hundredths = duration / .milliseconds(10)
        return String((hundredths.rounded()) / 100)
    }
}
