// Part of QTasks. License: see LICENSE.

/// Memory that a group is put together in.
///
/// Unchecked, because: the owner alone fills it before it hands it on, from when it is only read;
/// the owner takes it back after `written`, published under the board's lock, says the writer is
/// done.
final class GroupBuffer: @unchecked Sendable {
    private(set) var base: UnsafeMutableRawPointer
    private(set) var count = 0
    private var capacity: Int

    init(capacity: Int = 4096) {
        self.capacity = capacity
        base = .allocate(byteCount: capacity, alignment: 8)
    }

    deinit {
        base.deallocate()
    }

    var bytes: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: base, count: count)
    }

    /// Makes the buffer `count` bytes longer and gives the place where they begin.
    func extend(by more: Int) -> UnsafeMutableRawPointer {
        if count + more > capacity {
            capacity = max(2 * capacity, count + more)
            let larger = UnsafeMutableRawPointer.allocate(byteCount: capacity, alignment: 8)
            larger.copyMemory(from: base, byteCount: count)
            base.deallocate()
            base = larger
        }
        defer { count += more }
        return base + count
    }

    func shorten(by less: Int) {
        count -= less
    }

    /// Empties it for another use; `false` where it has grown too large to be kept.
    func recycle() -> Bool {
        count = 0
        return capacity <= 1 << 20
    }
}

/// Bytes that belong together at one place of one segment.
struct GroupPiece: Sendable {
    let segment: UInt32
    let offset: Int
    let buffer: GroupBuffer
    let salt: UInt32
    /// Where in the buffer the group's header stands; `nil` before the first record.
    var groupStart: Int?
    /// The log's last sequence when it was closed.
    var lastSequence: UInt64 = 0

    var end: Int {
        offset + buffer.count
    }

    var endPosition: RecordPosition {
        RecordPosition(segment: segment, offset: UInt32(end))
    }
}

/// Gives each record its place and puts the bytes of the open group together.
///
/// Pure: no files. A record never straddles segments; where one doesn't fit, the next segment is
/// begun.
struct GroupAssembler {
    private let segmentBytes: Int
    private let incarnation: UInt32
    private let newSalt: @Sendable () -> UInt32
    private var salt: UInt32
    private var pieces: [GroupPiece] = []
    private var spare: [GroupBuffer] = []

    /// The end of the log, the open group included.
    private(set) var end: RecordPosition
    private(set) var nextSequence: UInt64
    /// What the next segment's header says of the owner.
    var stamp: UInt64
    /// Segments begun since ``forgetBegun()``.
    private(set) var begun: [SegmentInfo] = []

    /// Begins a new segment.
    init(
        segment: UInt32,
        after predecessor: RecordPosition,
        firstSequence: UInt64,
        incarnation: UInt32,
        segmentBytes: Int,
        stamp: UInt64 = 0,
        newSalt: @escaping @Sendable () -> UInt32
    ) {
        self.init(
            continuing: predecessor,
            salt: 0,
            nextSequence: firstSequence,
            incarnation: incarnation,
            segmentBytes: segmentBytes,
            stamp: stamp,
            newSalt: newSalt
        )
        begin(segment)
    }

    /// Goes on in a segment whose end is `end`.
    init(
        continuing end: RecordPosition,
        salt: UInt32,
        nextSequence: UInt64,
        incarnation: UInt32,
        segmentBytes: Int,
        stamp: UInt64 = 0,
        newSalt: @escaping @Sendable () -> UInt32
    ) {
        self.end = end
        self.salt = salt
        self.nextSequence = nextSequence
        self.incarnation = incarnation
        self.segmentBytes = segmentBytes
        self.stamp = stamp
        self.newSalt = newSalt
    }

    var isEmpty: Bool {
        pieces.isEmpty
    }

    /// What the open group is made of so far.
    var openPieces: [GroupPiece] {
        pieces
    }

    /// Bytes put together and not yet taken.
    var openBytes: Int {
        pieces.reduce(0) { $0 + $1.buffer.count }
    }

    /// Where a record of this size would begin and end, without placing it.
    func place(
        payloadBytes: Int,
        isCarried: Bool = false
    ) -> (segment: UInt32, start: Int, end: Int) {
        let size = RecordHeader.bytesOnDisk(payloadBytes: payloadBytes, isCarried: isCarried)
        let header = pieces.last?.groupStart == nil ? GroupHeader.bytes : 0
        let start = Int(end.offset) + header
        if start + size <= segmentBytes { return (end.segment, start, start + size) }
        let first = SegmentHeader.areaBytes + GroupHeader.bytes
        return (end.segment + 1, first, first + size)
    }

    /// Puts one record at the end; `fill` writes the payload straight to its place.
    ///
    /// - Parameters:
    ///   - kind: The owner's.
    ///   - flags: The owner's.
    ///   - payloadBytes: How many bytes `fill` writes.
    ///   - carried: The sequence and the place of the record that this one stands for from now on; `nil`
    ///     for a new record, which gets the next sequence.
    ///   - fill: Writes the payload.
    /// - Returns: Where the record begins.
    mutating func append(
        kind: UInt8,
        flags: UInt8,
        payloadBytes: Int,
        carried: (sequence: UInt64, source: RecordPosition)? = nil,
        fill: (UnsafeMutableRawBufferPointer) -> Void
    ) -> RecordPosition {
        let place = place(payloadBytes: payloadBytes, isCarried: carried != nil)
        if place.segment != end.segment { begin(place.segment) }
        if pieces.isEmpty { open() }
        let last = pieces.count - 1
        let buffer = pieces[last].buffer
        if pieces[last].groupStart == nil {
            pieces[last].groupStart = buffer.count
            _ = buffer.extend(by: GroupHeader.bytes)
        }
        var header = RecordHeader(
            kind: kind,
            flags: flags,
            payloadBytes: payloadBytes,
            sequence: carried?.sequence ?? nextSequence,
            payloadChecksum: 0,
            source: carried?.source
        )
        let size = place.end - place.start
        let target = buffer.extend(by: size)
        target.store(UInt64(0), at: size - RecordHeader.alignment)  // the padding
        let payload = target + header.headerBytes
        fill(UnsafeMutableRawBufferPointer(start: payload, count: payloadBytes))
        let seed = salt ^ UInt32(place.start)
        header.payloadChecksum = UnsafeRawPointer(payload).crc32c(payloadBytes, seed: seed)
        header.encode(to: target, seed: seed)
        if carried == nil { nextSequence += 1 }
        pieces[last].lastSequence = nextSequence - 1
        end.offset = UInt32(place.end)
        return RecordPosition(segment: place.segment, offset: UInt32(place.start))
    }

    /// Closes the group: seals its headers and gives its bytes away.
    mutating func close(durableUpTo: UInt64) -> [GroupPiece] {
        for piece in pieces {
            guard let start = piece.groupStart else { continue }
            let header = GroupHeader(
                recordBytes: piece.buffer.count - start - GroupHeader.bytes,
                durableUpTo: durableUpTo
            )
            header.encode(
                to: piece.buffer.base + start,
                seed: piece.salt ^ UInt32(piece.offset + start)
            )
        }
        defer { pieces = [] }
        return pieces
    }

    /// The open group's piece with the record at `position`.
    func piece(with position: RecordPosition) -> GroupPiece? {
        pieces.first { $0.holds(position) }
    }

    mutating func forgetBegun() {
        begun = []
    }

    /// Takes back the memory of a piece that is written.
    mutating func recycle(_ buffer: GroupBuffer) {
        if spare.count < 4, buffer.recycle() { spare.append(buffer) }
    }

    private mutating func begin(_ segment: UInt32) {
        let header = SegmentHeader(
            index: segment,
            salt: newSalt(),
            incarnation: incarnation,
            firstSequence: nextSequence,
            predecessor: end,
            stamp: stamp
        )
        end = RecordPosition(segment: segment, offset: 0)
        begun.append(SegmentInfo(header))
        salt = header.salt
        open()
        header.encode(to: pieces[pieces.count - 1].buffer.extend(by: SegmentHeader.areaBytes))
        end.offset = UInt32(SegmentHeader.areaBytes)
    }

    private mutating func open() {
        pieces.append(
            GroupPiece(
                segment: end.segment,
                offset: Int(end.offset),
                buffer: spare.popLast() ?? GroupBuffer(),
                salt: salt
            )
        )
    }
}

extension GroupPiece {
    func holds(_ position: RecordPosition) -> Bool {
        segment == position.segment && (offset..<end).contains(Int(position.offset))
    }
}
