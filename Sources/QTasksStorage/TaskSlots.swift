// Part of QTasks. License: see LICENSE.

/// Finds a task's number by 32 bits of its ID's hash, its tag: extendible hashing.
///
/// ```
///  directory (by the tag's upper bits)   shards (slot by the tag's lower bits)
///  00 ----------------------------------> [.|t,n|.|.|t,n|...]    all tags that begin with 00
///  01 ----------------------------------> [t,n|.|.|t,n|.|...]    ... with 01
///  10 ---.
///  11 ---+------------------------------> [.|.|t,n|t,n|.|...]    ... with 1
/// ```
///
/// A shard that is full is split in two, and where it has no second place in the directory the
/// directory is doubled: 4 bytes for every 4096 slots. So no insert does more than go through one
/// shard, however many tasks there are. A slot has the whole tag: a split looks at no task, and a
/// search for a task that isn't there seldom does.
struct TaskSlots {
    private static let slotBits: UInt32 = 12
    private static let slotsPerShard = 1 << Int(slotBits)
    private static let slotMask = slotsPerShard - 1

    /// A longer walk from slot to slot costs more than the memory is worth.
    private static let usedMax = slotsPerShard * 4 / 5

    /// The bits that are left beside those that choose the slot: with a hash that nobody can foresee,
    /// 3 billion tasks come first.
    private static let depthMax: UInt32 = 32 - slotBits

    private struct Shard {
        /// The tag in the upper half, the number plus one in the lower; 0 is empty.
        var slots = ContiguousArray<UInt64>(repeating: 0, count: TaskSlots.slotsPerShard)
        var used = 0
        /// How many upper bits its tags have in common.
        var depth: UInt32
    }

    private var shards: ContiguousArray<Shard> = [Shard(depth: 0)]
    private var directory: ContiguousArray<UInt32> = [0]
    private var depth: UInt32 = 0

    /// Bytes that shards and directory take.
    var bytes: Int {
        shards.count * Self.slotsPerShard * MemoryLayout<UInt64>.stride
            + shards.capacity * MemoryLayout<Shard>.stride + directory.capacity * 4
    }

    /// The number with this tag that `isMatch` says yes to.
    @inline(__always)
    func number(tag: UInt32, isMatch: (UInt32) -> Bool) -> UInt32? {
        let shard = shardIndex(tag)
        return shards[shard].slots.withUnsafeBufferPointer { slots in
            var place = Int(tag) & Self.slotMask
            while slots[place] != 0 {
                let slot = slots[place]
                if UInt32(truncatingIfNeeded: slot >> 32) == tag {
                    let number = UInt32(truncatingIfNeeded: slot) - 1
                    if isMatch(number) { return number }
                }
                place = (place + 1) & Self.slotMask
            }
            return nil
        }
    }

    /// Notes a number that isn't there yet.
    mutating func insert(_ number: UInt32, tag: UInt32) {
        while shards[shardIndex(tag)].used >= Self.usedMax { split(tag) }
        let slot = UInt64(tag) << 32 | UInt64(number + 1)
        Self.place(slot, in: &shards[shardIndex(tag)])
    }

    /// Forgets a number that is there.
    mutating func remove(_ number: UInt32, tag: UInt32) {
        let slot = UInt64(tag) << 32 | UInt64(number + 1)
        let index = shardIndex(tag)
        var hole = Int(tag) & Self.slotMask
        while shards[index].slots[hole] != slot {
            precondition(shards[index].slots[hole] != 0, "what is removed was inserted")
            hole = (hole + 1) & Self.slotMask
        }
        Self.close(hole, in: &shards[index])
    }

    @inline(__always)
    private func shardIndex(_ tag: UInt32) -> Int {
        // at depth 0 the shift is by all bits, which leaves 0
        Int(directory[Int(tag >> (32 - depth))])
    }

    private static func place(_ slot: UInt64, in shard: inout Shard) {
        var place = home(slot)
        while shard.slots[place] != 0 { place = (place + 1) & slotMask }
        shard.slots[place] = slot
        shard.used += 1
    }

    /// Moves up what a search would no longer find behind the hole.
    private static func close(_ hole: Int, in shard: inout Shard) {
        var hole = hole
        var place = (hole + 1) & slotMask
        while shard.slots[place] != 0 {
            let walked = (place - home(shard.slots[place])) & slotMask
            if walked >= (place - hole) & slotMask {
                shard.slots[hole] = shard.slots[place]
                hole = place
            }
            place = (place + 1) & slotMask
        }
        shard.slots[hole] = 0
        shard.used -= 1
    }

    @inline(__always)
    private static func home(_ slot: UInt64) -> Int { Int(slot >> 32) & slotMask }

    /// Halves the shard of this tag, by the first bit in which its tags differ.
    private mutating func split(_ tag: UInt32) {
        let index = shardIndex(tag)
        let old = shards[index]
        precondition(old.depth < Self.depthMax, "the hash doesn't tell tasks apart")
        if old.depth == depth { doubleDirectory() }
        var halves = (Shard(depth: old.depth + 1), Shard(depth: old.depth + 1))
        let bit = UInt64(1) << UInt64(63 - old.depth)
        for slot in old.slots where slot != 0 {
            if slot & bit == 0 {
                Self.place(slot, in: &halves.0)
            } else {
                Self.place(slot, in: &halves.1)
            }
        }
        shards[index] = halves.0
        shards.append(halves.1)
        // the shard's stretch of the directory: its second half is the new one's
        let stretch = 1 << Int(depth - old.depth)
        let start = Int(tag >> (32 - old.depth)) * stretch
        for place in start + stretch / 2..<start + stretch {
            directory[place] = UInt32(shards.count - 1)
        }
    }

    private mutating func doubleDirectory() {
        var doubled = ContiguousArray<UInt32>()
        doubled.reserveCapacity(directory.count * 2)
        for shard in directory {
            doubled.append(shard)
            doubled.append(shard)
        }
        directory = doubled
        depth += 1
    }
}
