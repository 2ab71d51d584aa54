// Part of QTasks. License: see LICENSE.

import CLinux

// Every number on disk is little endian.

extension UnsafeRawPointer {
    func number<T: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, as type: T.Type = T.self)
        -> T
    {
        T(littleEndian: loadUnaligned(fromByteOffset: offset, as: type))
    }

    /// CRC-32C of the first `count` bytes, begun with `seed` instead of 0.
    func crc32c(_ count: Int, seed: UInt32 = 0) -> UInt32 {
        clinux_crc32c(seed, self, count)
    }
}

extension UnsafeMutableRawPointer {
    func store<T: FixedWidthInteger & BitwiseCopyable>(_ number: T, at offset: Int) {
        storeBytes(of: number.littleEndian, toByteOffset: offset, as: T.self)
    }
}

extension [UInt8] {
    /// Lends the bytes; the standard library's withUnsafeBytes forgets which error its body throws.
    package func withBytes<Result, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try withUnsafeBufferPointer { (buffer) throws(Failure) -> Result in
            try body(UnsafeRawBufferPointer(buffer))
        }
    }

    /// The same to write to.
    mutating func withMutableBytes<Result, Failure: Error>(
        _ body: (UnsafeMutableRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try withUnsafeMutableBufferPointer { (buffer) throws(Failure) -> Result in
            try body(UnsafeMutableRawBufferPointer(buffer))
        }
    }
}
