// Part of QTasks. License: see LICENSE.

/// Finds a segment's salt again where both of its headers are gone.
///
/// A CRC is linear in what it begins with: from a header of a group, whose checksum stands in it,
/// follows the seed, and from its place the salt.
enum SegmentSalt {
    /// The salt that at least two headers of groups or records agree on; `nil` where there is none.
    static func find(in bytes: UnsafeRawBufferPointer) -> UInt32? {
        guard let base = bytes.baseAddress else { return nil }
        let group = SeedOfChecksum(GroupHeader.bytes - 4)
        let record = SeedOfChecksum(RecordHeader.bytes - 4)
        var seen: [UInt32: Int] = [:]
        var offset = SegmentHeader.areaBytes
        while offset + RecordHeader.bytes <= bytes.count {
            let magic: UInt16 = base.number(offset)
            if magic == GroupHeader.magic || magic == RecordHeader.magic {
                let checksum = magic == GroupHeader.magic ? group : record
                let salt = checksum.seed(of: base + offset) ^ UInt32(offset)
                seen[salt, default: 0] += 1
                if seen[salt] == 2 { return salt }
            }
            offset += RecordHeader.alignment
        }
        return nil
    }
}

/// Solves for what a CRC-32C over `count` bytes began with.
private struct SeedOfChecksum {
    private let count: Int
    /// Row by row: which bit of the result a set of bits of the seed sets.
    private var rows: [(effect: UInt32, seed: UInt32)] = []

    init(_ count: Int) {
        self.count = count
        let zeros = [UInt8](repeating: 0, count: count)
        zeros.withUnsafeBytes { zeros in
            guard let zeros = zeros.baseAddress else { return }
            let none = zeros.crc32c(count)
            for bit in 0..<32 {
                let seed = UInt32(1) << UInt32(bit)
                add(effect: zeros.crc32c(count, seed: seed) ^ none, seed: seed)
            }
        }
    }

    /// Gauss's elimination: each row's highest bit is in no other row.
    private mutating func add(effect: UInt32, seed: UInt32) {
        var (effect, seed) = (effect, seed)
        for row in rows where effect & Self.top(row.effect) != 0 {
            effect ^= row.effect
            seed ^= row.seed
        }
        guard effect != 0 else { return }
        for index in rows.indices where rows[index].effect & Self.top(effect) != 0 {
            rows[index].effect ^= effect
            rows[index].seed ^= seed
        }
        rows.append((effect, seed))
    }

    private static func top(_ bits: UInt32) -> UInt32 {
        1 << UInt32(31 - bits.leadingZeroBitCount)
    }

    /// The seed of the `count` bytes at `place`, behind which their checksum stands.
    func seed(of place: UnsafeRawPointer) -> UInt32 {
        let wanted = place.number(count, as: UInt32.self) ^ place.crc32c(count)
        return rows.reduce(0) { seed, row in
            wanted & Self.top(row.effect) == 0 ? seed : seed ^ row.seed
        }
    }
}
