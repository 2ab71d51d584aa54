// Part of QTasks. License: see LICENSE.

/// Bytes of a message or record, written from left to right.
///
/// Numbers are little endian. Public for the reason that ``WireReader`` is.
public struct WireWriter: Sendable {
    /// What was written so far.
    @inlinable public var bytes: [UInt8] { storage }

    @usableFromInline var storage: [UInt8]

    public init(reserving capacity: Int = 256) {
        storage = []
        storage.reserveCapacity(capacity)
    }

    @inlinable public var count: Int { storage.count }

    @inlinable
    @inline(__always)
    public mutating func u8(_ value: UInt8) {
        storage.append(value)
    }

    @inlinable
    @inline(__always)
    public mutating func integer(_ value: some FixedWidthInteger) {
        withUnsafeBytes(of: value.littleEndian) { storage.append(contentsOf: $0) }
    }

    /// A number that is known only later: returns the place for ``patch(_:at:)``.
    public mutating func reserveU32() -> Int {
        integer(UInt32(0))
        return storage.count - 4
    }

    public mutating func patch(_ value: UInt32, at place: Int) {
        for index in 0..<4 {
            storage[place + index] = UInt8(truncatingIfNeeded: value >> (8 * UInt32(index)))
        }
    }

    @inlinable
    public mutating func raw(_ value: UnsafeRawBufferPointer) {
        storage.append(contentsOf: value)
    }

    @inlinable
    public mutating func raw(_ value: [UInt8]) {
        storage.append(contentsOf: value)
    }

    @inlinable
    public mutating func raw(_ value: String.UTF8View) {
        storage.append(contentsOf: value)
    }

    /// Bytes behind their count (4 bytes).
    @inlinable
    public mutating func counted(_ value: [UInt8]) {
        integer(UInt32(value.count))
        storage.append(contentsOf: value)
    }

    /// Bytes behind their count (4 bytes).
    @inlinable
    public mutating func counted(_ value: UnsafeRawBufferPointer) {
        integer(UInt32(value.count))
        storage.append(contentsOf: value)
    }

    /// Text in UTF-8 behind its count of bytes (2 bytes); what is over 65,535 bytes is cut off at a
    /// character.
    public mutating func text(_ value: String) {
        var value = value
        while value.utf8.count > Int(UInt16.max) { value = String(value.prefix(value.count / 2)) }
        integer(UInt16(value.utf8.count))
        storage.append(contentsOf: value.utf8)
    }

    @inlinable
    public mutating func removeAll() {
        storage.removeAll(keepingCapacity: true)
    }

    /// Hands the bytes over and begins anew.
    public mutating func take() -> [UInt8] {
        let taken = storage
        storage = []
        return taken
    }
}
