// Part of QTasks. License: see LICENSE.

/// Why bytes are no message, or no record, of ours.
package enum WireError: Error, Equatable {
    /// They end in the middle of `field`.
    case truncated(field: StaticString)

    /// `field` holds something that it can't.
    case invalid(field: StaticString)

    package static func == (left: Self, right: Self) -> Bool {
        left.description == right.description
    }
}

extension WireError: CustomStringConvertible {
    package var description: String {
        switch self {
        case .truncated(let field): "the bytes end within '\(field)'"
        case .invalid(let field): "'\(field)' is not what it may be"
        }
    }
}

/// Reads bytes from left to right; never past their end.
///
/// It points into the message it reads and must not outlive it.
package struct WireReader {
    // Usable from inlined code: without it each number would be read by way of its type's metadata, at
    // run time, in every other module.
    @usableFromInline let bytes: UnsafeRawBufferPointer
    @usableFromInline var place = 0

    @inlinable
    package init(_ bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
    }

    /// How many bytes are left.
    @inlinable package var left: Int { bytes.count - place }

    /// How many were read.
    package var position: Int { place }

    @inlinable package var isAtEnd: Bool { place == bytes.count }

    @inlinable
    @inline(__always)
    package mutating func u8(_ field: StaticString) throws(WireError) -> UInt8 {
        guard left >= 1 else { throw .truncated(field: field) }
        defer { place += 1 }
        return bytes[place]
    }

    @inlinable
    @inline(__always)
    package mutating func integer<Number: FixedWidthInteger>(
        _ field: StaticString,
        as type: Number.Type = Number.self
    ) throws(WireError) -> Number {
        let size = MemoryLayout<Number>.size
        guard left >= size else { throw .truncated(field: field) }
        defer { place += size }
        return Number(littleEndian: bytes.loadUnaligned(fromByteOffset: place, as: Number.self))
    }

    @inlinable
    package mutating func raw(
        _ count: Int,
        _ field: StaticString
    ) throws(WireError) -> UnsafeRawBufferPointer {
        guard count >= 0, left >= count else { throw .truncated(field: field) }
        defer { place += count }
        return UnsafeRawBufferPointer(rebasing: bytes[place..<place + count])
    }

    /// Bytes behind their count (4 bytes).
    @inlinable
    package mutating func counted(
        _ field: StaticString
    ) throws(WireError) -> UnsafeRawBufferPointer {
        let count = try integer(field, as: UInt32.self)
        return try raw(Int(count), field)
    }

    /// Text in UTF-8 behind its count of bytes (2 bytes).
    package mutating func text(_ field: StaticString) throws(WireError) -> String {
        let count = try integer(field, as: UInt16.self)
        return try text(Int(count), field)
    }

    /// Text in UTF-8 of a known count of bytes.
    package mutating func text(
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
    package mutating func rest() -> UnsafeRawBufferPointer {
        defer { place = bytes.count }
        return UnsafeRawBufferPointer(rebasing: bytes[place...])
    }
}
