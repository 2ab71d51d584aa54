// Part of QTasks. License: see LICENSE.

/// Why bytes are no message, or no record, of ours.
public enum WireError: Error, Equatable {
    /// They end in the middle of `field`.
    case truncated(field: StaticString)

    /// `field` holds something that it can't.
    case invalid(field: StaticString)

    public static func == (left: Self, right: Self) -> Bool {
        left.description == right.description
    }
}

extension WireError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .truncated(let field): "the bytes end within '\(field)'"
        case .invalid(let field): "'\(field)' is not what it may be"
        }
    }
}

/// Reads bytes from left to right; never past their end.
///
/// It points into the message it reads and must not outlive it.
///
/// Public, as is ``WireWriter``, though no product shows this module: of what is `package` the compiler
/// inlines nothing into other modules (Swift 6.3), and each number would be read by way of its type's
/// metadata, at run time.
public struct WireReader {
    @usableFromInline let bytes: UnsafeRawBufferPointer
    @usableFromInline var place = 0

    @inlinable
    public init(_ bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
    }

    /// How many bytes are left.
    @inlinable public var left: Int { bytes.count - place }

    /// How many were read.
    @inlinable public var position: Int { place }

    @inlinable public var isAtEnd: Bool { place == bytes.count }

    @inlinable
    @inline(__always)
    public mutating func u8(_ field: StaticString) throws(WireError) -> UInt8 {
        guard left >= 1 else { throw .truncated(field: field) }
        defer { place += 1 }
        return bytes[place]
    }

    @inlinable
    @inline(__always)
    public mutating func integer<Number: FixedWidthInteger>(
        _ field: StaticString,
        as type: Number.Type = Number.self
    ) throws(WireError) -> Number {
        let size = MemoryLayout<Number>.size
        guard left >= size else { throw .truncated(field: field) }
        defer { place += size }
        return Number(littleEndian: bytes.loadUnaligned(fromByteOffset: place, as: Number.self))
    }

    @inlinable
    @inline(__always)
    public mutating func raw(
        _ count: Int,
        _ field: StaticString
    ) throws(WireError) -> UnsafeRawBufferPointer {
        guard count >= 0, left >= count else { throw .truncated(field: field) }
        defer { place += count }
        return UnsafeRawBufferPointer(rebasing: bytes[place..<place + count])
    }

    /// Bytes behind their count (4 bytes).
    @inlinable
    public mutating func counted(
        _ field: StaticString
    ) throws(WireError) -> UnsafeRawBufferPointer {
        let count = try integer(field, as: UInt32.self)
        return try raw(Int(count), field)
    }

    /// Text in UTF-8 behind its count of bytes (2 bytes).
    public mutating func text(_ field: StaticString) throws(WireError) -> String {
        let count = try integer(field, as: UInt16.self)
        return try text(Int(count), field)
    }

    /// Text in UTF-8 of a known count of bytes.
    public mutating func text(
        _ count: Int,
        _ field: StaticString
    ) throws(WireError) -> String {
        let bytes = try raw(count, field)
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw .invalid(field: field)
        }
        return text
    }

    /// Everything that is left.
    @inlinable
    public mutating func rest() -> UnsafeRawBufferPointer {
        defer { place = bytes.count }
        return UnsafeRawBufferPointer(rebasing: bytes[place...])
    }
}
