// Part of QTasks. License: see LICENSE.
//
// The border between typed Swift and bytes. JSON is the default; bytes pass as they are; the
// plainest types are JSON too, but need no encoder.

import FoundationEssentials
import QTasksModel

/// How values of one type become a task's arguments or result, and back.
struct PayloadCodec<Value: Sendable>: Sendable {
    /// `nil` stands for `application/json`.
    let contentType: String?

    let encode: @Sendable (Value) throws -> [UInt8]
    let decode: @Sendable ([UInt8]) throws -> Value

    /// The same for bytes that are lent; `nil`: they have to be copied first.
    var decodeLent: (@Sendable (UnsafeRawBufferPointer) throws -> Value)?

    /// Decodes bytes where they lie; what it returns holds none of them.
    func decodeInPlace(_ bytes: UnsafeRawBufferPointer) throws -> Value {
        try decodeLent?(bytes) ?? decode(Array(bytes))
    }
}

extension PayloadCodec where Value: Codable {
    /// The codec for any `Codable` type.
    static var codable: PayloadCodec {
        let quick: [Any] = [
            PayloadCodec<[UInt8]>.bytes, PayloadCodec<Int>.integer, PayloadCodec<String>.text,
            PayloadCodec<Bool>.truth,
        ]
        for codec in quick {
            if let codec = codec as? PayloadCodec { return codec }
        }
        return .json
    }

    fileprivate static var json: PayloadCodec {
        let (encoder, decoder) = (JSONEncoder(), JSONDecoder())
        encoder.outputFormatting = .withoutEscapingSlashes  // paths stay readable in records
        return PayloadCodec(
            contentType: nil,
            encode: { Array(try encoder.encode($0)) },
            decode: { try decoder.decode(Value.self, from: Data($0)) },
            decodeLent: { bytes in
                guard let start = bytes.baseAddress else {
                    return try decoder.decode(Value.self, from: Data())
                }
                // read only: what is written to a copy of it is a copy
                let lent = Data(
                    bytesNoCopy: UnsafeMutableRawPointer(mutating: start),
                    count: bytes.count,
                    deallocator: .none
                )
                return try decoder.decode(Value.self, from: lent)
            }
        )
    }
}

extension PayloadCodec<Void> {
    /// Nothing, as JSON's `null`; whatever comes is nothing as well.
    static var nothing: PayloadCodec {
        PayloadCodec(contentType: nil, encode: { _ in Array("null".utf8) }, decode: { _ in })
    }
}

extension PayloadCodec<[UInt8]> {
    /// Bytes as they are.
    fileprivate static var bytes: PayloadCodec {
        PayloadCodec(
            contentType: "application/octet-stream",
            encode: { $0 },
            decode: { $0 }
        )
    }
}

extension PayloadCodec<Int> {
    fileprivate static var integer: PayloadCodec {
        PayloadCodec(
            contentType: nil,
            encode: { Array(String($0).utf8) },
            decode: { bytes in
                // JSON has no leading plus sign or zeros, and Int's reader takes both
                let digits = bytes.first == UInt8(ascii: "-") ? bytes.dropFirst() : bytes[...]
                let isPlain =
                    digits.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
                    && (digits.first != UInt8(ascii: "0") || digits.count == 1)
                if isPlain, let number = Int(String(decoding: bytes, as: UTF8.self)) {
                    return number
                }
                return try PayloadCodec<Int>.json.decode(bytes)
            }
        )
    }
}

extension PayloadCodec<String> {
    fileprivate static var text: PayloadCodec {
        PayloadCodec(
            contentType: nil,
            encode: { value in
                var json = JSONText()
                json.string(value)
                return json.bytes
            },
            decode: { bytes in
                let quote = UInt8(ascii: "\"")
                let inner = bytes.dropFirst().dropLast()
                let isPlain =
                    bytes.count >= 2 && bytes.first == quote && bytes.last == quote
                    && inner.allSatisfy { $0 >= 0x20 && $0 != quote && $0 != UInt8(ascii: "\\") }
                if isPlain, let text = String(validating: inner, as: UTF8.self) { return text }
                return try PayloadCodec<String>.json.decode(bytes)
            }
        )
    }
}

extension PayloadCodec<Bool> {
    fileprivate static var truth: PayloadCodec {
        PayloadCodec(
            contentType: nil,
            encode: { Array(($0 ? "true" : "false").utf8) },
            decode: { try PayloadCodec<Bool>.json.decode($0) }
        )
    }
}

extension QTasksError {
    /// Why a value did not decode, naming the field: one sentence without a full stop.
    static func decodingFailure(_ error: any Error) -> String {
        guard let error = error as? DecodingError else { return "\(error)" }
        switch error {
        case .keyNotFound(let key, let context):
            return "'\(path(context.codingPath + [key]))' is missing"
        case .valueNotFound(let type, let context):
            return "'\(path(context.codingPath))' is null where \(type) is wanted"
        case .typeMismatch(let type, let context):
            return context.codingPath.isEmpty
                ? "they are no \(type)" : "'\(path(context.codingPath))' is no \(type)"
        case .dataCorrupted(let context):
            return context.codingPath.isEmpty
                ? context.debugDescription
                : "'\(path(context.codingPath))': \(context.debugDescription)"
        @unknown default:
            return "\(error)"
        }
    }

    private static func path(_ keys: [any CodingKey]) -> String {
        keys.map { key in key.intValue.map { "[\($0)]" } ?? key.stringValue }.joined(separator: ".")
    }
}
