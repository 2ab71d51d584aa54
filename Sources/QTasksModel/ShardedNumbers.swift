// Part of QTasks. License: see LICENSE.

/// Numbers by key, in 64 dictionaries.
///
/// Growing a dictionary moves all that is in it, and whoever inserts waits for that: of one in 64 nobody
/// notices.
package struct ShardedNumbers<Key: Hashable, Number> {
    // Inlinable all of it: not specialised for its keys, a lookup takes several times as long.
    @usableFromInline static var shardBits: Int { 6 }

    @usableFromInline var shards: [[Key: Number]]

    @usableFromInline var total: Int

    @inlinable package var count: Int { total }

    @inlinable
    package init() {
        total = 0
        shards = [[Key: Number]](repeating: [:], count: 1 << Self.shardBits)
    }

    @inlinable package subscript(key: Key) -> Number? {
        get { shards[shard(of: key)][key] }
        set {
            let shard = shard(of: key)
            let old =
                if let newValue {
                    shards[shard].updateValue(newValue, forKey: key)
                } else {
                    shards[shard].removeValue(forKey: key)
                }
            total += (newValue == nil ? 0 : 1) - (old == nil ? 0 : 1)
        }
    }

    @inlinable func shard(of key: Key) -> Int {
        var hasher = Hasher()
        // other bits than the dictionary in it goes by
        hasher.combine(0x5A)
        hasher.combine(key)
        return hasher.finalize() & (1 << Self.shardBits - 1)
    }
}
