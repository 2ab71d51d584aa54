// Part of QTasks. License: see LICENSE.

import Glibc
import Synchronization

/// Carries out the log's housekeeping, on two threads that nothing waits for.
extension JobBoard {
    func runOneKeep() -> Bool {
        guard let job = withJobs({ $0.nextKeep() }) else { return false }
        do throws(AppendLogError) {
            switch job {
            case .write(let number, let handle, let buffer, let offset):
                try writeCheckpoint(number, handle, buffer, offset)
            case .publish(let checkpoint, let handle): try publish(checkpoint, handle)
            case .abandon(let number, let handle):
                if let handle { files.close(handle) }
                try? files.remove(unfinishedPath(number))
                withJobs { $0.keep { $0.abandoned() } }
                tellKept()
            case .remove(let segments, let checkpoints): remove(segments, checkpoints)
            case .measure: try measure()
            }
        } catch {
            withJobs { $0.fail(error) }
            tellKept()
        }
        return true
    }

    func runOneRead() -> Bool {
        guard let read = withJobs({ $0.nextRead() }) else { return false }
        let batch = CompactionBatch(read, path: path(read.segment), files)
        withJobs { $0.keep { $0.wasRead(batch) } }
        tellKept()
        return true
    }

    /// The owner finds a count that it hasn't seen when it is called, or it would take this for nothing new.
    private func tellKept() {
        keptCount.wrappingAdd(1, ordering: .releasing)
        onProgress?()
    }

    private func writeCheckpoint(
        _ number: UInt32,
        _ handle: LogFileHandle?,
        _ buffer: GroupBuffer,
        _ offset: Int
    ) throws(AppendLogError) {
        var opened = handle
        do throws(AppendLogError) {
            guard look({ $0.quotaAdmits(buffer.count) }) else {
                throw .system(call: "quota", path: directory, errno: EDQUOT)
            }
            let file = if let handle { handle } else { try makeUnfinished(number) }
            opened = file
            // on its way to the disk bit by bit: one sync of all of it would hold up those of the log
            try files.writeInSteps(file, buffer.bytes, at: offset)
            withJobs { $0.keep { $0.wrote(buffer, at: offset, with: file) } }
            tellKept()
        } catch {
            // a checkpoint is a cache: without room there is none, and nothing is lost by it
            guard error.isNoSpace else {
                if handle == nil, let opened { files.close(opened) }
                throw error
            }
            withJobs { $0.keep { $0.checkpointFailed(error, handle: opened) } }
        }
    }

    /// What an earlier attempt has left of it may be longer than this one.
    private func makeUnfinished(_ number: UInt32) throws(AppendLogError) -> LogFileHandle {
        try? files.remove(unfinishedPath(number))
        return try files.open(unfinishedPath(number), .createNew)
    }

    private func publish(
        _ checkpoint: Checkpoint,
        _ handle: LogFileHandle
    ) throws(AppendLogError) {
        let name = "\(directory)/\(LogFormat.checkpointName(checkpoint.number))"
        do throws(AppendLogError) {
            try files.syncData(handle)
            try files.rename(unfinishedPath(checkpoint.number), to: name)
            try files.syncDirectory(directory)
        } catch {
            guard error.isNoSpace else { throw error }
            return withJobs { $0.keep { $0.checkpointFailed(error, handle: handle) } }
        }
        files.close(handle)
        withJobs { $0.published(checkpoint) }
        tellKept()
    }

    private func remove(_ segments: [UInt32], _ checkpoints: [UInt32]) {
        // one that stays is met again at the next opening
        let isHurried = { self.isHurried.load(ordering: .relaxed) }
        for segment in segments { try? files.removeInSteps(path(segment), isHurried: isHurried) }
        for number in checkpoints {
            let name = "\(directory)/\(LogFormat.checkpointName(number))"
            try? files.removeInSteps(name, isHurried: isHurried)
        }
        withJobs { $0.removed(segments: segments, checkpoints: checkpoints) }
        tellKept()
    }

    private func measure() throws(AppendLogError) {
        let space = try files.space(of: directory)
        withJobs {
            $0.keep { $0.measured() }
            $0.measured(space)
        }
        tellKept()
    }

    private func unfinishedPath(_ number: UInt32) -> String {
        "\(directory)/\(LogFormat.checkpointName(number))\(LogFormat.unfinished)"
    }
}
