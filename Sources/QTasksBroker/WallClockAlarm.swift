// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc
import QTasksModel
import QTasksProcess

/// A descriptor that is readable once the wall clock comes to a moment, by running or by being set.
///
/// The kernel keeps an absolute timer of `CLOCK_REALTIME` at its moment when that clock is set: a step
/// forward past it fires it at once, a step back has it wait again (timerfd_create(2)). So nobody here
/// has to hear of a step. Armed only while something waits for it (P8).
struct WallClockAlarm: ~Copyable {
    /// In the poll set.
    static let token = UInt64.max / 2 - 1  // far above those of watched workers

    let descriptor: Int32
    private var moment: Timestamp?

    /// - Throws: `EMFILE` where the process has no descriptor left.
    init() throws(ProcessError) {
        let timer = timerfd_create(CLOCK_REALTIME, Int32(TFD_CLOEXEC) | Int32(TFD_NONBLOCK))
        guard timer >= 0 else { throw Self.failed("timerfd_create") }
        descriptor = timer
    }

    private static func failed(_ call: String) -> ProcessError {
        .system(call: call, subject: "CLOCK_REALTIME", code: errno)
    }

    deinit { close(descriptor) }

    /// Sets the one moment; the same again costs no system call, and `nil` sets none.
    ///
    /// - Throws: Nothing that is to be expected. See timerfd_settime(2).
    mutating func set(at moment: Timestamp?) throws(ProcessError) {
        guard moment != self.moment else { return }
        var time = itimerspec()
        if let moment {
            let nanoseconds = max(moment.nanoseconds, 1)  // zero would mean none
            time.it_value.tv_sec = Int(nanoseconds / 1_000_000_000)
            time.it_value.tv_nsec = Int(nanoseconds % 1_000_000_000)
        }
        guard timerfd_settime(descriptor, Int32(TFD_TIMER_ABSTIME), &time, nil) == 0 else {
            throw Self.failed("timerfd_settime")
        }
        self.moment = moment
    }

    /// It went off, and is no longer set.
    mutating func take() {
        var expirations: UInt64 = 0
        guard read(descriptor, &expirations, MemoryLayout<UInt64>.size) > 0 else { return }
        moment = nil
    }
}
