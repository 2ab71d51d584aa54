// Part of QTasks. License: see LICENSE.

/// How often a failing task is tried, and how long it waits in between.
///
/// The waiting is done in the Broker and recorded by Storage, never in a worker.
public struct RetryPolicy: Sendable, Hashable {
    /// Attempts that may end in an error, the first included; at least 1.
    public let maxAttempts: UInt32

    /// The wait after the first failure, in milliseconds.
    public let delayMilliseconds: UInt64

    /// What each further wait is multiplied by; 1 keeps it fixed.
    public let factor: Double

    /// The longest wait, in milliseconds.
    public let delayMillisecondsMax: UInt64

    /// How far a wait may be off on purpose, as a part of it (0...1), so that tasks which failed
    /// together don't come back together.
    public let jitter: Double

    private init(
        maxAttempts: Int,
        delay: Duration,
        factor: Double,
        delayMax: Duration,
        jitter: Double
    ) {
        precondition(maxAttempts >= 1, "a task is tried at least once")
        precondition(delay >= .zero && delayMax >= delay, "delays grow from zero on")
        precondition((0...1).contains(jitter), "jitter is a part of the delay")
        self.maxAttempts = UInt32(clamping: maxAttempts)
        self.delayMilliseconds = Self.milliseconds(delay)
        self.factor = factor
        self.delayMillisecondsMax = Self.milliseconds(delayMax)
        self.jitter = jitter
    }

    /// One attempt, no retry.
    ///
    /// The default.
    public static let none = RetryPolicy(
        maxAttempts: 1,
        delay: .zero,
        factor: 1,
        delayMax: .zero,
        jitter: 0
    )

    /// The same wait after each failure.
    public static func fixed(maxAttempts: Int, delay: Duration = .seconds(1)) -> RetryPolicy {
        RetryPolicy(
            maxAttempts: maxAttempts,
            delay: delay,
            factor: 1,
            delayMax: delay,
            jitter: 0
        )
    }

    /// A wait that doubles from `delay` on up to `delayMax`, each off by up to a quarter.
    public static func exponential(
        maxAttempts: Int,
        delay: Duration = .seconds(1),
        delayMax: Duration = .seconds(300)
    ) -> RetryPolicy {
        RetryPolicy(
            maxAttempts: maxAttempts,
            delay: delay,
            factor: 2,
            delayMax: max(delay, delayMax),
            jitter: 0.25
        )
    }

    /// The wait after the `failures`th failure, in milliseconds.
    ///
    /// - Parameters:
    ///   - failures: How often it has failed by now, from 1 on.
    ///   - random: A number in 0..<1 that places the wait within its jitter.
    /// - Returns: Milliseconds.
    public func delayMilliseconds(afterFailures failures: UInt32, random: Double) -> UInt64 {
        var delay = Double(delayMilliseconds)
        let limit = Double(delayMillisecondsMax)
        var further = failures
        while further > 1 && delay < limit && factor > 1 {
            delay *= factor
            further -= 1
        }
        delay = min(delay, limit)
        return UInt64(max(0, delay * (1 + jitter * (2 * random - 1))))
    }

    private static func milliseconds(_ duration: Duration) -> UInt64 {
        let parts = duration.components
        return UInt64(parts.seconds) * 1000 + UInt64(parts.attoseconds / 1_000_000_000_000_000)
    }
}
