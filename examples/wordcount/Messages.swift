// Part of QTasks. License: see LICENSE.
//
// What the two tasks take and give, as JSON: a client in another language sees just these objects.

/// What `wordcount` takes: `{"path": "/etc/motd"}`, or `{"pathBytes": "<Base64>"}` for a name that
/// is no UTF-8.
struct CountInput: Hashable, Sendable {
    /// Absolute: a worker's working directory isn't the client's.
    var path: ByteText
}

/// What `wordcount` gives.
struct FileCount: Hashable, Sendable {
    var path: ByteText
    var lines: Int
    var words: Int
    var bytes: Int
    /// The most frequent words, most frequent first.
    var top: [WordTally]

    /// How many words a file's ``top`` has at most.
    static let topWords = 20
}

/// What `merge` takes: the top words of several files.
struct MergeInput: Codable, Hashable, Sendable {
    var tops: [[WordTally]]
    /// How many words are wanted at most.
    var limit: Int
}

/// What `merge` gives.
struct MergedTop: Codable, Hashable, Sendable {
    /// The most frequent words of all, most frequent first.
    var top: [WordTally]
}

extension CountInput: Codable {
    private enum CodingKeys: String, CodingKey {
        case path, pathBytes
    }

    init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        path = try ByteText(from: container, text: .path, bytes: .pathBytes)
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try path.encode(to: &container, text: .path, bytes: .pathBytes)
    }
}

extension FileCount: Codable {
    private enum CodingKeys: String, CodingKey {
        case path, pathBytes, lines, words, bytes, top
    }

    init(from decoder: any Decoder) throws {
        let container = try decoder.container(keyedBy: CodingKeys.self)
        path = try ByteText(from: container, text: .path, bytes: .pathBytes)
        lines = try container.decode(Int.self, forKey: .lines)
        words = try container.decode(Int.self, forKey: .words)
        bytes = try container.decode(Int.self, forKey: .bytes)
        top = try container.decode([WordTally].self, forKey: .top)
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try path.encode(to: &container, text: .path, bytes: .pathBytes)
        try container.encode(lines, forKey: .lines)
        try container.encode(words, forKey: .words)
        try container.encode(bytes, forKey: .bytes)
        try container.encode(top, forKey: .top)
    }
}
