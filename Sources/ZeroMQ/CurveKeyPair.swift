// Part of QTasks. License: see LICENSE.

import CZeroMQ
import Glibc

/// A long-term key pair of CurveZMQ (ZeroMQ RFC 26), each key as 40 characters of Z85 (RFC 32).
public struct CurveKeyPair: Sendable, Equatable {
    /// What the other side has to know.
    public let publicKey: String

    /// What nobody else may know.
    ///
    /// Left out of ``description``.
    public let secretKey: String

    /// Makes a new pair from the system's random source.
    ///
    /// - Throws: `ENOTSUP` where libzmq was built without CURVE. See `zmq_curve_keypair(3)`.
    public static func generate() throws(ZeroMQError) -> CurveKeyPair {
        var publicKey = [CChar](repeating: 0, count: keyBytes)
        var secretKey = [CChar](repeating: 0, count: keyBytes)
        try check("zmq_curve_keypair") { zmq_curve_keypair(&publicKey, &secretKey) }
        return CurveKeyPair(publicKey: text(publicKey), secretKey: text(secretKey))
    }

    /// The pair that a stored secret key belongs to.
    ///
    /// - Throws: `EINVAL` where `secretKey` is not 40 characters of Z85. See `zmq_curve_public(3)`.
    public init(secretKey: String) throws(ZeroMQError) {
        // zmq_curve_public of 4.3.4 takes anything for a key.
        var raw = [UInt8](repeating: 0, count: 32)
        guard secretKey.utf8.count == 40, zmq_z85_decode(&raw, secretKey) != nil else {
            throw ZeroMQError(call: "zmq_curve_public", subject: nil, code: EINVAL)
        }
        var publicKey = [CChar](repeating: 0, count: Self.keyBytes)
        try check("zmq_curve_public") { zmq_curve_public(&publicKey, secretKey) }
        self.init(publicKey: Self.text(publicKey), secretKey: secretKey)
    }

    private init(publicKey: String, secretKey: String) {
        self.publicKey = publicKey
        self.secretKey = secretKey
    }

    private static let keyBytes = 41  // 40 characters and the zero that ends them

    private static func text(_ key: [CChar]) -> String {
        String(decoding: key.prefix(keyBytes - 1).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

extension CurveKeyPair: CustomStringConvertible, CustomDebugStringConvertible {
    public var description: String {
        "CURVE key pair \(publicKey)"
    }

    public var debugDescription: String {
        description
    }
}

/// How a socket encrypts its connections; keys as 40 characters of Z85.
///
/// libzmq by itself lets every client key in: who may connect is decided by a ZAP handler
/// (ZeroMQ RFC 27) on `inproc://zeromq.zap.01` in the same context.
public enum CurveOptions: Sendable, Equatable {
    /// The side that holds the key which the others know.
    ///
    /// `zapDomain`: what the ZAP handler is asked about. With a domain, and no handler there,
    /// everybody is refused; without one, and no handler there, everybody is let in.
    case server(secretKey: String, zapDomain: String?)

    /// A side that knows whom it talks to.
    case client(CurveKeyPair, serverKey: String)
}
