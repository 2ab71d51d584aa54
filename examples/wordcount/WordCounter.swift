// Part of QTasks. License: see LICENSE.

/// Counts lines, words and bytes of a text that comes in pieces, just as `LC_ALL=C wc` of GNU
/// coreutils 9.1 does.
///
/// A line is a newline byte. White space is 9 to 13 and 32. A word is what stands between white
/// space and holds at least one of the bytes 0x21 to 0x7E: all others neither begin a word nor end
/// one, so that a run of bytes above 0x7F alone is no word.
struct WordCounter {
    private(set) var lines = 0
    private(set) var words = 0
    private(set) var bytes = 0

    /// How often which word was there.
    private(set) var table = WordTable()

    /// The start of a run that went on past the last piece, cut off where it is too long for the
    /// table.
    private var carried: [UInt8] = []
    private var run = Run()

    /// A run of bytes without white space, as far as it is known.
    private struct Run {
        var byteCount = 0
        var hash = WordTable.hashStart
        /// ``ByteClass/printable`` once such a byte was in it.
        var classes: UInt8 = 0
    }

    /// What a byte is to `wc`, as bits.
    private enum ByteClass {
        static let space: UInt8 = 1
        static let printable: UInt8 = 2

        static let table: [UInt8] = (0...255).map { byte in
            switch byte {
            case 9...13, 32: space
            case 0x21...0x7E: printable
            default: 0
            }
        }
    }

    /// Counts the next piece.
    mutating func add(_ piece: UnsafeRawBufferPointer) {
        bytes += piece.count
        ByteClass.table.withUnsafeBufferPointer { classes in
            var place = 0
            while place < piece.count {
                let start = place
                place = extendRun(over: piece, from: start, classes)
                let part = UnsafeRawBufferPointer(rebasing: piece[start..<place])
                guard place < piece.count else { return carry(part) }
                endRun(with: part)
                place = skipSpace(in: piece, from: place, classes)
            }
        }
    }

    /// Says that the text is at its end: a word may have ended there too.
    mutating func finish() {
        endRun(with: UnsafeRawBufferPointer(start: nil, count: 0))
    }

    private mutating func extendRun(
        over piece: UnsafeRawBufferPointer,
        from start: Int,
        _ classes: UnsafeBufferPointer<UInt8>
    ) -> Int {
        var place = start
        var seen = run.classes
        var hash = run.hash
        while place < piece.count {
            let byte = piece[place]
            let byteClass = classes[Int(byte)]
            if byteClass == ByteClass.space { break }
            seen |= byteClass
            hash = WordTable.hash(hash, byte)
            place += 1
        }
        run.classes = seen
        run.hash = hash
        run.byteCount += place - start
        return place
    }

    private mutating func skipSpace(
        in piece: UnsafeRawBufferPointer,
        from start: Int,
        _ classes: UnsafeBufferPointer<UInt8>
    ) -> Int {
        var place = start
        var newlines = 0
        while place < piece.count, classes[Int(piece[place])] == ByteClass.space {
            if piece[place] == UInt8(ascii: "\n") { newlines += 1 }
            place += 1
        }
        lines += newlines
        return place
    }

    private mutating func carry(_ part: UnsafeRawBufferPointer) {
        let room = WordTable.wordBytesMax - carried.count
        carried.append(contentsOf: part.prefix(max(0, room)))
    }

    /// - Parameter part: The run's last bytes; the rest of them was carried over.
    private mutating func endRun(with part: UnsafeRawBufferPointer) {
        if run.classes & ByteClass.printable != 0 {
            words += 1
            addToTable(part)
        }
        run = Run()
        carried.removeAll(keepingCapacity: true)
    }

    private mutating func addToTable(_ part: UnsafeRawBufferPointer) {
        guard run.byteCount <= WordTable.wordBytesMax else { return }
        guard !carried.isEmpty else { return table.add(part, hash: run.hash) }
        carried.append(contentsOf: part)
        carried.withUnsafeBytes { table.add($0, hash: run.hash) }
    }
}
