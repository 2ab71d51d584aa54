// Part of QTasks. License: see LICENSE.

import CLinux

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
    private static let usedMax = slotsPerShard * 3 / 4

    /// The bits that are left beside those that choose the slot: with a hash that nobody can foresee,
    /// 3 billion tasks come first.
    private static let depthMax: UInt32 = 32 - slotBits

    private struct Shard {
        var used: UInt32 = 0
        /// How many upper bits its tags have in common.
        var depth: UInt32
    }

    /// So many shards' slots lie in one piece of memory.
    private static let shardsPerBlock =
        HugePages.bytes / (slotsPerShard * MemoryLayout<UInt64>.size)

    private var shards: ContiguousArray<Shard> = []
    /// The slots of the shards: the tag in the upper half, the number plus one in the lower; 0 is empty.
    private var blocks: ContiguousArray<ContiguousArray<UInt64>> = []
    private var directory: ContiguousArray<UInt32> = [0]
    private var depth: UInt32 = 0

    init() {
        addShard(depth: 0)
    }

    /// Bytes that shards and directory take.
    var bytes: Int {
        shards.count * Self.slotsPerShard * MemoryLayout<UInt64>.stride
            + shards.capacity * MemoryLayout<Shard>.stride + directory.capacity * 4
    }

    /// The number with this tag that `isMatch` says yes to.
    @inline(__always)
    func number(tag: UInt32, isMatch: (UInt32) -> Bool) -> UInt32? {
        withSlots(of: shardIndex(tag)) { slots in
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

    /// Has the CPU fetch where a search for this tag begins.
    @inline(__always)
    func prefetch(tag: UInt32) {
        withSlots(of: shardIndex(tag)) { clinux_prefetch($0 + (Int(tag) & Self.slotMask)) }
    }

    /// Notes a number that isn't there yet.
    mutating func insert(_ number: UInt32, tag: UInt32) {
        while shards[shardIndex(tag)].used >= Self.usedMax { split(tag) }
        let shard = shardIndex(tag)
        let slot = UInt64(tag) << 32 | UInt64(number + 1)
        withMutableSlots(of: shard) { Self.place(slot, in: $0) }
        shards[shard].used += 1
    }

    /// Forgets a number that is there.
    mutating func remove(_ number: UInt32, tag: UInt32) {
        let slot = UInt64(tag) << 32 | UInt64(number + 1)
        let shard = shardIndex(tag)
        withMutableSlots(of: shard) { slots in
            var hole = Int(tag) & Self.slotMask
            while slots[hole] != slot {
                precondition(slots[hole] != 0, "what is removed was inserted")
                hole = (hole + 1) & Self.slotMask
            }
            Self.close(hole, in: slots)
        }
        shards[shard].used -= 1
    }

    // MARK: Slots

    @inline(__always)
    private func withSlots<Result>(
        of shard: Int,
        _ body: (UnsafePointer<UInt64>) -> Result
    ) -> Result {
        blocks[shard / Self.shardsPerBlock].withUnsafeBufferPointer { block in
            guard let base = block.baseAddress else { preconditionFailure("a block has slots") }
            return body(base + shard % Self.shardsPerBlock * Self.slotsPerShard)
        }
    }

    @inline(__always)
    private mutating func withMutableSlots(
        of shard: Int,
        _ body: (UnsafeMutablePointer<UInt64>) -> Void
    ) {
        blocks[shard / Self.shardsPerBlock].withUnsafeMutableBufferPointer { block in
            guard let base = block.baseAddress else { preconditionFailure("a block has slots") }
            body(base + shard % Self.shardsPerBlock * Self.slotsPerShard)
        }
    }

    private mutating func addShard(depth: UInt32) {
        if shards.count % Self.shardsPerBlock == 0 {
            blocks.append([])
            blocks[blocks.count - 1].reserveCapacity(Self.shardsPerBlock * Self.slotsPerShard)
            // the first one may never be filled
            if blocks.count > 1 { HugePages.ask(for: &blocks[blocks.count - 1]) }
        }
        shards.append(Shard(depth: depth))
        blocks[blocks.count - 1].append(contentsOf: repeatElement(0, count: Self.slotsPerShard))
    }

    @inline(__always)
    private func shardIndex(_ tag: UInt32) -> Int {
        // at depth 0 the shift is by all bits, which leaves 0
        Int(directory[Int(tag >> (32 - depth))])
    }

    @inline(__always)
    private static func place(_ slot: UInt64, in slots: UnsafeMutablePointer<UInt64>) {
        var place = home(slot)
        while slots[place] != 0 { place = (place + 1) & slotMask }
        slots[place] = slot
    }

    /// Moves up what a search would no longer find behind the hole.
    private static func close(_ hole: Int, in slots: UnsafeMutablePointer<UInt64>) {
        var hole = hole
        var place = (hole + 1) & slotMask
        while slots[place] != 0 {
            let walked = (place - home(slots[place])) & slotMask
            if walked >= (place - hole) & slotMask {
                slots[hole] = slots[place]
                hole = place
            }
            place = (place + 1) & slotMask
        }
        slots[hole] = 0
    }

    @inline(__always)
    private static func home(_ slot: UInt64) -> Int { Int(slot >> 32) & slotMask }

    /// Halves the shard of this tag, by the first bit in which its tags differ.
    private mutating func split(_ tag: UInt32) {
        let index = shardIndex(tag)
        let oldDepth = shards[index].depth
        precondition(oldDepth < Self.depthMax, "the hash doesn't tell tasks apart")
        if oldDepth == depth { doubleDirectory() }
        let all = withSlots(of: index) {
            Array(UnsafeBufferPointer(start: $0, count: Self.slotsPerShard))
        }
        shards[index] = Shard(depth: oldDepth + 1)
        addShard(depth: oldDepth + 1)
        let bit = UInt64(1) << UInt64(63 - oldDepth)
        withMutableSlots(of: index) { $0.update(repeating: 0, count: Self.slotsPerShard) }
        for (shard, half) in [(index, 0), (shards.count - 1, bit)] {
            let slots = all.lazy.filter { $0 != 0 && $0 & bit == half }
            withMutableSlots(of: shard) { target in
                for slot in slots { Self.place(slot, in: target) }
            }
            shards[shard].used = UInt32(slots.count)
        }
        // the shard's stretch of the directory: its second half is the new one's
        let stretch = 1 << Int(depth - oldDepth)
        let start = Int(tag >> (32 - oldDepth)) * stretch
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
