// Part of QTasks. License: see LICENSE.

import Glibc

/// A call of the kernel that failed on a file.
struct FileError: Error, Hashable, CustomStringConvertible {
    /// `errno` after the call.
    let code: Int32

    /// The error of the call that was made last on this thread.
    static var latest: FileError { FileError(code: errno) }

    /// What `perror(3)` says, such as `Permission denied`.
    var description: String { String(cString: strerror(code)) }
}

extension FileCount {
    /// How much is read at once, in bytes: fits the second-level cache, spares system calls.
    private static let pieceBytes = 256 << 10

    /// Counts the file at `path`; no more of it than one piece is in memory at once.
    ///
    /// - Throws: What `open(2)` or `read(2)` said.
    static func reading(_ path: ByteText) throws(FileError) -> FileCount {
        let file = open(path.cString, O_RDONLY | O_CLOEXEC | O_NOCTTY)
        guard file >= 0 else { throw .latest }
        defer { close(file) }
        posix_fadvise(file, 0, 0, POSIX_FADV_SEQUENTIAL)

        var counter = WordCounter()
        let piece = UnsafeMutableRawBufferPointer.allocate(byteCount: pieceBytes, alignment: 64)
        defer { piece.deallocate() }
        while true {
            let count = read(file, piece.baseAddress, piece.count)
            if count > 0 {
                counter.add(UnsafeRawBufferPointer(rebasing: piece[..<count]))
            } else if count == 0 {
                break
            } else if errno != EINTR {
                throw .latest
            }
        }
        counter.finish()
        return FileCount(
            path: path,
            lines: counter.lines,
            words: counter.words,
            bytes: counter.bytes,
            top: counter.table.top(topWords)
        )
    }
}

extension ByteText {
    /// The bytes with a zero behind them, for the kernel.
    var cString: [CChar] { bytes.map { CChar(bitPattern: $0) } + [0] }
}
