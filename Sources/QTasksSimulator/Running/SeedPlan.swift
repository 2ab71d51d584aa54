// Part of QTasks. License: see LICENSE.

/// Which seeds are run, in which order, and which of them by whom.
struct SeedPlan: Sendable, Equatable {
    /// The first seed of all.
    var first: UInt64

    /// How many there are; `nil`: as many as there is time for.
    var count: UInt64?

    /// A commit's own seeds: the same for the same commit, others for the next.
    ///
    /// FNV-1a, and 48 bits of it, so that a seed stays a number that people can read out.
    static func first(of commit: String) -> UInt64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in commit.utf8 { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01B3 }
        return hash & 0xFFFF_FFFF_FFFF
    }

    /// Every `of`th seed, from the `part`th on: what one process runs of them.
    func seeds(part: UInt64, of parts: UInt64) -> some Sequence<UInt64> {
        let count = count ?? .max - first
        return stride(from: part, to: count, by: Int(parts)).lazy.map { [first] in first &+ $0 }
    }
}
