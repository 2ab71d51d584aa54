// Part of QTasks. License: see LICENSE.

/// Whom a ROUTER speaks to: one connection, under the name it gave that connection.
///
/// The names a ROUTER gives by itself are 5 bytes. Up to 8 bytes cost no allocation, so that a
/// routing id may be a dictionary's key for every message.
public struct RoutingID: Hashable, Sendable {
    // Up to 8 bytes, the first in the lowest bits, zeros above. Zero where `long` has them.
    private let short: UInt64
    private let shortCount: UInt8
    private let long: [UInt8]?

    /// Copies `bytes`.
    ///
    /// libzmq takes 1 to 255 of them; a send to any other is unreachable.
    public init(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count <= MemoryLayout<UInt64>.size else {
            (short, shortCount, long) = (0, 0, Array(bytes))
            return
        }
        var word: UInt64 = 0
        withUnsafeMutableBytes(of: &word) { $0.copyBytes(from: bytes) }
        (short, shortCount, long) = (UInt64(littleEndian: word), UInt8(bytes.count), nil)
    }

    public init(_ bytes: [UInt8]) {
        self = bytes.withUnsafeBytes { RoutingID($0) }
    }

    /// Lends the bytes for the time of the call.
    public func withBytes<Result, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        if let long {
            return try long.span.withUnsafeBytes(body)
        }
        return try withUnsafeBytes(of: short.littleEndian) { word throws(Failure) -> Result in
            try body(UnsafeRawBufferPointer(rebasing: word[..<Int(shortCount)]))
        }
    }

    public func hash(into hasher: inout Hasher) {
        hasher.combine(short)
        if let long { hasher.combine(long) }
    }
}

extension RoutingID: CustomStringConvertible {
    /// The bytes in hexadecimal.
    public var description: String {
        withBytes { bytes in
            bytes.reduce(into: "") { text, byte in
                text += byte < 16 ? "0" : ""
                text += String(byte, radix: 16)
            }
        }
    }
}
