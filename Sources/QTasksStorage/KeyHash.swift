// Part of QTasks. License: see LICENSE.

/// 128 bits of a unique key and the task's name, with a seed that nobody outside knows: two keys that
/// come to the same are not found by chance, nor by anybody who looks for them.
///
/// SipHash-2-4 with an output of 128 bits (Aumasson, Bernstein).
struct KeyHash: Hashable {
    var high: UInt64
    var low: UInt64

    /// What the hash begins from.
    struct Seed: Hashable {
        var one: UInt64
        var other: UInt64
    }

    init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// Of a name, whose length stands before it, so that no name and key run into each other.
    init(name: UnsafeRawBufferPointer, key: UnsafeRawBufferPointer, seed: Seed) {
        var sip = Sip(seed)
        sip.byte(UInt8(truncatingIfNeeded: name.count))
        for byte in name { sip.byte(byte) }
        for byte in key { sip.byte(byte) }
        (low, high) = sip.finish()
    }
}

private struct Sip {
    private var v0, v1, v2, v3: UInt64
    private var word: UInt64 = 0
    private var count = 0

    init(_ seed: KeyHash.Seed) {
        v0 = seed.one ^ 0x736f_6d65_7073_6575
        v1 = seed.other ^ 0x646f_7261_6e64_6f6d ^ 0xee
        v2 = seed.one ^ 0x6c79_6765_6e65_7261
        v3 = seed.other ^ 0x7465_6462_7974_6573
    }

    mutating func byte(_ byte: UInt8) {
        word |= UInt64(byte) << UInt64(8 * (count & 7))
        count += 1
        guard count & 7 == 0 else { return }
        take(word)
        word = 0
    }

    private mutating func take(_ word: UInt64) {
        v3 ^= word
        for _ in 0..<2 { round() }
        v0 ^= word
    }

    mutating func finish() -> (UInt64, UInt64) {
        take(word | UInt64(count & 0xFF) << 56)
        v2 ^= 0xee
        for _ in 0..<4 { round() }
        let first = v0 ^ v1 ^ v2 ^ v3
        v1 ^= 0xdd
        for _ in 0..<4 { round() }
        return (first, v0 ^ v1 ^ v2 ^ v3)
    }

    private mutating func round() {
        v0 &+= v1
        v1 = v1 << 13 | v1 >> 51
        v1 ^= v0
        v0 = v0 << 32 | v0 >> 32
        v2 &+= v3
        v3 = v3 << 16 | v3 >> 48
        v3 ^= v2
        v0 &+= v3
        v3 = v3 << 21 | v3 >> 43
        v3 ^= v0
        v2 &+= v1
        v1 = v1 << 17 | v1 >> 47
        v1 ^= v2
        v2 = v2 << 32 | v2 >> 32
    }
}
