// Part of QTasks. License: see LICENSE.

import QTasks

/// What became of all files, as it is printed in the end.
struct Report {
    /// One file, or a folder that could not be looked into.
    struct Row {
        var path: ByteText
        var outcome: Outcome
    }

    enum Outcome {
        case counted(lines: Int, words: Int, bytes: Int)
        /// Not counted, with the reason.
        case failed(String)
    }

    var rows: [Row]
    /// The most frequent words of all files.
    var top: [WordTally]

    /// Lines, words and bytes of all files that could be counted.
    var total: (lines: Int, words: Int, bytes: Int) {
        var total = (lines: 0, words: 0, bytes: 0)
        for case .counted(let lines, let words, let bytes) in rows.map(\.outcome) {
            total.lines += lines
            total.words += words
            total.bytes += bytes
        }
        return total
    }

    /// How many rows are not counted.
    var failures: Int {
        rows.count { if case .failed = $0.outcome { true } else { false } }
    }

    /// The table as `wc` prints it: for each file lines, words, bytes and path, then the total.
    ///
    /// The total is the widest in each column, so it is not padded. For a terminal, `escaping` gives
    /// names without control characters.
    func table(escaping: Bool) -> [UInt8] {
        let total = total
        let widths = [total.lines, total.words, total.bytes].map { String($0).count }
        var text: [UInt8] = []
        for row in rows {
            let path = escaping ? Array(row.path.escaped.utf8) : row.path.bytes
            switch row.outcome {
            case .counted(let lines, let words, let bytes):
                text += Self.columns([lines, words, bytes].map { String($0) }, widths) + path
            case .failed(let reason):
                text += Self.columns(["-", "-", "-"], widths) + path + ": \(reason)".utf8
            }
            text.append(UInt8(ascii: "\n"))
        }
        let numbers = [total.lines, total.words, total.bytes].map { String($0) }
        return text + Self.columns(numbers, widths) + "total\n".utf8
    }

    /// The most frequent words, one a line, for a person.
    var topLines: [String] {
        let width = String(top.first?.count ?? 0).count
        return top.map { tally in
            "  " + Self.padded(String(tally.count), width) + " " + tally.word.escaped
        }
    }

    private static func columns(_ texts: [String], _ widths: [Int]) -> [UInt8] {
        zip(texts, widths).flatMap { Array((padded($0, $1) + " ").utf8) }
    }

    private static func padded(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.utf8.count)) + text
    }
}

extension Report {
    /// The whole report as one JSON object.
    var json: [UInt8] {
        var json = JSONText()
        json.object { json in
            json.key("files")
            json.array { json in
                for row in rows { Self.add(row, to: &json) }
            }
            json.key("total")
            json.object { json in
                json.member("files", rows.count - failures)
                Self.add(total, to: &json)
            }
            json.member("failed", failures)
            json.key("top")
            json.array { json in
                for tally in top {
                    json.object { json in
                        Self.add(tally.word, "word", to: &json)
                        json.member("count", tally.count)
                    }
                }
            }
        }
        return json.bytes
    }

    private static func add(_ row: Row, to json: inout JSONText) {
        json.object { json in
            add(row.path, "path", to: &json)
            switch row.outcome {
            case .counted(let lines, let words, let bytes): add((lines, words, bytes), to: &json)
            case .failed(let reason): json.member("error", reason)
            }
        }
    }

    private static func add(_ counts: (lines: Int, words: Int, bytes: Int), to json: inout JSONText)
    {
        json.member("lines", counts.lines)
        json.member("words", counts.words)
        json.member("bytes", counts.bytes)
    }

    /// As in the tasks' own JSON: what is no UTF-8 stands as Base64 under another name.
    private static func add(_ text: ByteText, _ name: String, to json: inout JSONText) {
        if let text = text.text {
            json.member(name, text)
        } else {
            json.member(name + "Bytes", Base64Text.encode(text.bytes))
        }
    }
}
