// Part of QTasks. License: see LICENSE.

package import ZeroMQ

/// An envelope that outlives the message it came in.
///
/// A small one is copied: a message of 100 bytes, kept, keeps 8 KiB with it. A large one stays in
/// the message, and goes on to Storage from there.
package enum KeptEnvelope: Sendable {
    case copy([UInt8])
    case part(ReceivedBytes, Range<Int>)

    /// What a large one is, in bytes.
    package static let lentBytesMin = 64 << 10

    /// Keeps the envelope, which lies in `message`.
    ///
    /// - Parameters:
    ///   - envelope: Its bytes.
    ///   - message: The bytes it is a part of.
    ///   - keep: Keeps the whole message; `nil` where that can't be.
    init(
        _ envelope: UnsafeRawBufferPointer,
        in message: UnsafeRawBufferPointer,
        _ keep: () -> ReceivedBytes?
    ) {
        // a message that has much else in it would be kept for the sake of a part
        guard envelope.count >= Self.lentBytesMin, envelope.count >= message.count / 2,
            let start = envelope.baseAddress, let base = message.baseAddress, let kept = keep()
        else {
            self = .copy(Array(envelope))
            return
        }
        let offset = start - base
        self = .part(kept, offset..<offset + envelope.count)
    }

    package var count: Int {
        switch self {
        case .copy(let bytes): bytes.count
        case .part(_, let range): range.count
        }
    }

    /// The same for libzmq.
    var frame: LentFrame {
        switch self {
        case .copy(let bytes): LentFrame(bytes)
        case .part(let message, let range): LentFrame(message, range)
        }
    }

    package func withUnsafeBytes<Result>(
        _ body: (UnsafeRawBufferPointer) throws -> Result
    ) rethrows -> Result {
        switch self {
        case .copy(let bytes): try bytes.withUnsafeBytes(body)
        case .part(let message, let range):
            try withExtendedLifetime(message) {
                try body(UnsafeRawBufferPointer(rebasing: message.bytes[range]))
            }
        }
    }
}

/// A message for Storage.
package struct StorageMessage: Sendable {
    package var bytes: [UInt8]
    /// The envelope of the add that ends it, as a frame of its own.
    package var attachment: KeptEnvelope?

    /// What it would be without a second frame.
    package var joined: [UInt8] { attachment?.withUnsafeBytes { bytes + $0 } ?? bytes }
}
