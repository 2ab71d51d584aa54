// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc
import QTasksProcess
import Testing

@testable import AppendLog

/// Figures, for a release build.
///
/// ```
/// QTASKS_LOG=1 QTASKS_SPEED=3000000 swift test -c release -Xswiftc -enable-testing --filter figure
/// ```
@Suite
struct `A log's speed` {
    private static let count = getenv("QTASKS_SPEED").flatMap { Int(String(cString: $0)) } ?? 0

    @Test(.enabled(if: count > 0, "measures, with QTASKS_SPEED=RECORDS"), arguments: [false, true])
    func `is a figure`(hasQuota: Bool) throws {
        let home = try TemporaryFolder()
        var options = LogOptions()
        if hasQuota { options.quotaBytes = 1 << 40 }
        let log = try Log.open(at: home.path, options: options) { _ in }
        let bytes = payload(1, bytes: 100)
        let (start, cpu) = (ContinuousClock.now, Self.threadTime)
        for number in 0..<Self.count {
            _ = try log.append(kind: 1, payloadBytes: 100) { target in
                bytes.withUnsafeBytes { target.copyMemory(from: $0) }
            }
            if number % 500 == 499 {
                log.submit(sync: false)
                // what a loop would do by refusing more
                while log.pendingBytes > 32 << 20 { sched_yield() }
            }
        }
        let appended = Self.threadTime - cpu
        log.submit(sync: false)
        while log.watermarks().written < log.lastSequence { sched_yield() }
        let written = ContinuousClock.now - start
        try log.flush()
        print(
            """
            \(Self.count) records of 100 bytes, quota \(hasQuota): \
            \(Int(Double(Self.count) / appended)) a second of its own thread, \
            written after \(written), durable after \(ContinuousClock.now - start)
            """
        )
        try log.close()
    }

    /// Seconds of this thread.
    private static var threadTime: Double {
        var now = timespec()
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now)
        return Double(now.tv_sec) + Double(now.tv_nsec) / 1e9
    }
}
