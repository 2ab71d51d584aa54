// Part of QTasks. License: see LICENSE.

import QTasksModel

/// What runs under a limit, and when the next may start: of a queue, or of a key in it.
///
/// The rate is kept by GCRA (ITU-T I.371): one number, the theoretical arrival time, tells how far starts are
/// ahead of their even spacing.
struct StartLimit {
    /// How many run.
    private(set) var running = 0
    /// When the next start were due if they were spaced evenly; nanoseconds of `CLOCK_BOOTTIME`.
    private var arrival: UInt64

    /// - Parameter since: From when on it is known what has started; as if a burst had started just then.
    init(since: UInt64) {
        arrival = since
        isExhausted = since > 0
    }

    /// ``arrival`` is to be put off by a burst, once the rate is known.
    private var isExhausted: Bool

    /// Whether there is nothing to remember.
    func isForgettable(_ rate: StartRate?, now: UInt64) -> Bool {
        running == 0 && (rate == nil || theoreticalArrival(rate) <= now)
    }

    /// When the next may start: 0 at once, `nil` not before another has ended.
    func opens(_ most: UInt32?, _ rate: StartRate?, now: UInt64) -> UInt64? {
        if let most, running >= Int(most) { return nil }
        guard let rate else { return 0 }
        let ahead = rate.span(of: rate.burst - 1)
        let arrival = theoreticalArrival(rate)
        return arrival <= now || arrival - now <= ahead ? 0 : arrival - ahead
    }

    /// One more runs; `isStart`: it starts now.
    mutating func begin(_ rate: StartRate?, now: UInt64, isStart: Bool) {
        running += 1
        guard isStart, let rate else { return }
        arrival = max(theoreticalArrival(rate), now) + rate.interval
        isExhausted = false
    }

    mutating func end() {
        running -= 1
    }

    private func theoreticalArrival(_ rate: StartRate?) -> UInt64 {
        guard isExhausted, let rate else { return arrival }
        return arrival + rate.span(of: rate.burst)
    }
}
