// Part of QTasks. License: see LICENSE.

import QTasksModel

/// Who holds which unique key: 32 bytes and a slot of 8 for each key, none of them the key's own.
///
/// Nothing is taken out when a task starts or ends: whether it still holds its key follows from what
/// it is, and is asked when somebody wants to know. Rows of keys that nobody holds go when the same
/// key is claimed, or when a claim of another or the keeper comes by, so that there are never more than
/// about twice as many rows as keys that were held at once.
///
/// While the log is replayed tasks come in an order of their own. Of two that would hold one key it is
/// the later's: each holder is told by a record, and one key never had two holders at once.
struct UniqueKeyTable {
    /// A key as a task holds it.
    struct Claim: Equatable {
        var hash: KeyHash
        var number: TaskIndex.Number
        /// Of the task's add: tells it from another that got its number.
        var sequence: UInt64
        var scope: UInt8
        /// In seconds since 1970, rounded up; 0 without a window.
        var end: UInt32

        init(
            _ hash: KeyHash,
            _ scope: UniqueKey.Scope,
            addedAt: Timestamp,
            number: TaskIndex.Number,
            sequence: UInt64
        ) {
            self.hash = hash
            self.number = number
            self.sequence = sequence
            self.scope = scope.code
            let seconds = (max(0, addedAt.nanoseconds) + 999_999_999) / 1_000_000_000
            end = scope.seconds == 0 ? 0 : UInt32(clamping: seconds + Int64(scope.seconds))
        }

        init(
            hash: KeyHash,
            number: TaskIndex.Number,
            sequence: UInt64,
            scope: UInt8,
            end: UInt32
        ) {
            self.hash = hash
            self.number = number
            self.sequence = sequence
            self.scope = scope
            self.end = end
        }

        /// When a window is over; `nil` where the task's own state decides.
        var windowEnd: Timestamp? {
            end == 0 ? nil : Timestamp(nanoseconds: Int64(end) * 1_000_000_000)
        }
    }

    private struct Row: SlabRow {
        var hash: KeyHash
        /// The sequence in the upper 48 bits, the scope in the lower 16; 0: free.
        var place: UInt64
        var number: TaskIndex.Number
        var end: UInt32

        init(_ claim: Claim) {
            hash = claim.hash
            place = claim.sequence << 16 | UInt64(claim.scope)
            number = claim.number
            end = claim.end
        }

        var claim: Claim {
            Claim(
                hash: hash,
                number: number,
                sequence: place >> 16,
                scope: UInt8(truncatingIfNeeded: place),
                end: end
            )
        }

        var link: UInt32 {
            get { number }
            set { number = newValue }
        }

        var isFree: Bool { place == 0 }

        mutating func free() { place = 0 }
    }

    /// What its hashes begin from; a checkpoint's rows bring theirs along.
    private(set) var seed: KeyHash.Seed

    private var rows = Slab<Row>()
    private var slots: TaskSlots?
    /// The row that is looked at next.
    private var hand: UInt32 = 0

    init(seed: KeyHash.Seed) {
        self.seed = seed
    }

    /// How many rows there are, also of keys that nobody holds any more.
    var count: Int { rows.count }

    /// Beyond the highest number that a row ever had.
    var endNumber: UInt32 { rows.end }

    /// Bytes that it takes, up to the pages that are used in part.
    var bytes: Int { rows.bytes + (slots?.bytes ?? 0) }

    /// The claim of a row, where there is one.
    func claim(_ row: UInt32) -> Claim? { rows.isUsed(row) ? rows[row].claim : nil }

    /// Begins with the seed that what follows was hashed with.
    mutating func begin(_ seed: KeyHash.Seed) {
        self = UniqueKeyTable(seed: seed)
    }

    /// The newest claim of a key, whether it still holds or not.
    func claim(of hash: KeyHash) -> Claim? { row(of: hash).map { rows[$0].claim } }

    /// Notes a task that holds a key.
    ///
    /// - Parameters:
    ///   - claim: By whom.
    ///   - isOlder: Whether a holder of the same key, if it is one still, came before.
    ///   - holds: Whether another row's task still holds its key.
    mutating func insert(_ claim: Claim, isOlder: (Claim) -> Bool, holds: (Claim) -> Bool) {
        if let row = row(of: claim.hash) {
            let known = rows[row].claim
            let isSame = known.number == claim.number && known.sequence == claim.sequence
            if isSame || !holds(known) || isOlder(known) { rows[row] = Row(claim) }
            return
        }
        sweep(2, holds)
        let row = rows.add(Row(claim))
        if slots == nil { slots = TaskSlots() }
        slots?.insert(row, tag: Self.tag(claim.hash))
    }

    /// Looks at so many rows, the next ones each time, and drops keys that nobody holds.
    mutating func sweep(_ count: Int, _ holds: (Claim) -> Bool) {
        for _ in 0..<min(count, Int(rows.end)) {
            if hand >= rows.end { hand = 0 }
            if rows.isUsed(hand), !holds(rows[hand].claim) {
                slots?.remove(hand, tag: Self.tag(rows[hand].hash))
                rows.remove(hand)
            }
            hand += 1
        }
    }

    private func row(of hash: KeyHash) -> UInt32? {
        slots?.number(tag: Self.tag(hash)) { rows[$0].hash == hash }
    }

    private static func tag(_ hash: KeyHash) -> UInt32 {
        UInt32(truncatingIfNeeded: hash.high >> 32)
    }
}
