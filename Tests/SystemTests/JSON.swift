// Part of QTasks. License: see LICENSE.

import FoundationEssentials

/// Any JSON, to look into.
enum JSON: Decodable, Equatable {
    case null
    case truth(Bool)
    case number(Double)
    case text(String)
    case list([JSON])
    case object([String: JSON])

    /// - Throws: `DecodingError` where `text` is none.
    init(_ text: String) throws {
        self = try JSONDecoder().decode(JSON.self, from: Data(text.utf8))
    }

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .null
        } else if let value = try? container.decode(Bool.self) {
            self = .truth(value)
        } else if let value = try? container.decode(Double.self) {
            self = .number(value)
        } else if let value = try? container.decode(String.self) {
            self = .text(value)
        } else if let value = try? container.decode([JSON].self) {
            self = .list(value)
        } else {
            self = .object(try container.decode([String: JSON].self))
        }
    }

    /// A member; `null` where there is none.
    subscript(_ key: String) -> JSON {
        if case .object(let members) = self { members[key] ?? .null } else { .null }
    }

    var list: [JSON] {
        if case .list(let items) = self { items } else { [] }
    }

    var text: String? {
        if case .text(let value) = self { value } else { nil }
    }

    var integer: Int? {
        if case .number(let value) = self { Int(exactly: value) } else { nil }
    }
}
