// Part of QTasks. License: see LICENSE.

package import AppendLog
package import QTasksModel

/// What a store takes up, and what it would give back.
package struct StoreStatistics {
    package struct Segment: Hashable {
        package var index: UInt32
        package var firstSequence: UInt64
        /// What its file takes up.
        package var fileBytes: Int
        /// How far it is written.
        package var writtenBytes: Int
        /// Of these, what somebody may still ask for.
        package var liveBytes: Int
        /// When it was begun; `nil` where nothing was in the log then.
        package var begun: Timestamp?
    }

    package private(set) var segments: [Segment] = []
    /// Oldest first.
    package private(set) var checkpoints: [CheckpointInfo] = []
    package private(set) var bytesSinceCheckpoint = 0
    package let incarnation: UInt32
    package let isClean: Bool
    package let durable: UInt64
    package let firstSequence: UInt64
    package let lastSequence: UInt64
    package let history: HistoryBegin
    package let tasks: Int
    /// By `TaskStatus.code` - 1.
    package private(set) var byStatus = [UInt64](repeating: 0, count: TaskStatus.allCases.count)
    package let workers: Int
    package let space: LogFileSystemSpace?
    package let isDamaged: Bool

    /// What all of its files take up.
    package var fileBytes: Int {
        segments.reduce(LogReader.metaBytes) { $0 + $1.fileBytes }
            + checkpoints.reduce(0) { $0 + $1.bytes }
    }

    package var liveBytes: Int { segments.reduce(0) { $0 + $1.liveBytes } }

    /// What compaction could give back.
    package var deadBytes: Int {
        segments.reduce(0) { $0 + max(0, $1.writtenBytes - $1.liveBytes) }
    }

    /// - Throws: ``AppendLogError`` where a file can't be read.
    package init(_ reader: StoreReader) throws(AppendLogError) {
        let log = reader.log
        let reading = try reader.readNow()
        checkpoints = try log.checkpoints().reversed()
        incarnation = log.incarnation
        isClean = log.isClean
        durable = log.durableAtLeast
        firstSequence = log.firstSequence
        lastSequence = reading.report.lastSequence
        history = try reader.historyBegin()
        tasks = reading.tasks.index.count
        workers = reading.tasks.workers.count
        space = try? reader.files.space(of: reader.directory)
        isDamaged = reading.report.isDamaged
        for lane in reading.tasks.lanes.lanes {
            for (status, count) in lane.byStatus.enumerated() { byStatus[status] += count }
        }
        let end = max(reading.report.end, checkpoints.last?.start ?? .none)
        for info in log.segmentInfos {
            let size = try log.fileBytes(of: info.index)
            let isLast = info.index >= end.segment
            let written = info.end ?? (isLast ? Int(end.offset) : size)
            segments.append(
                Segment(
                    index: info.index,
                    firstSequence: info.firstSequence,
                    fileBytes: size,
                    writtenBytes: written,
                    liveBytes: reading.tasks.usage[info.index],
                    begun: info.stamp == 0
                        ? nil : Timestamp(nanoseconds: Int64(clamping: info.stamp))
                )
            )
        }
        bytesSinceCheckpoint = bytes(since: checkpoints.last?.start ?? .none)
    }

    private func bytes(since start: RecordPosition) -> Int {
        segments.reduce(0) { sum, segment in
            guard segment.index >= start.segment else { return sum }
            let from = segment.index == start.segment ? Int(start.offset) : 0
            return sum + max(0, segment.writtenBytes - from)
        }
    }
}
