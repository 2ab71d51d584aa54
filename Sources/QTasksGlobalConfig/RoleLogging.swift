// Part of QTasks. License: see LICENSE.

import Glibc
package import Logging
import QTasksModel
import Synchronization

/// Logging of a role's process: one level for the whole of it, changed while it runs (`log.level`).
///
/// `LoggingSystem` isn't touched: it belongs to whoever owns `main`.
package enum RoleLogging {
    // The place of the level in `Logger.Level.allCases`.
    private static let place = Atomic<Int>(Logger.Level.info.place)

    /// What is logged at least, by every handler that wasn't given a level of its own.
    ///
    /// Any thread.
    package static var level: Logger.Level {
        get { Logger.Level.allCases[place.load(ordering: .relaxed)] }
        set { place.store(newValue.place, ordering: .relaxed) }
    }

    /// Sets the process's level and makes a role's logger, labelled `qtasks.<component>`.
    ///
    /// The level is as `QueueConfig.logLevel` has it; what is no level is taken for `info`.
    package static func bootstrap(component: String, level: String) -> Logger {
        self.level = Logger.Level(rawValue: level) ?? .info
        return logger(component: component)
    }

    /// A further logger at the process's level.
    package static func logger(component: String) -> Logger {
        Logger(label: "qtasks.\(component)") { _ in RoleLogHandler(component: component) }
    }

    /// Follows a change of `log.level`; taken away, the level is `initial` again.
    ///
    /// Other keys are ignored, so every change may be handed in.
    package static func follow(_ change: ConfigEntry, initial: String) {
        guard change.key == ConfigKey.logLevel else { return }
        level = Logger.Level(rawValue: change.text ?? initial) ?? level
    }
}

/// Writes each entry to standard error as one line in one `write(2)`, where that takes it.
///
/// A role doesn't stop for its log: a terminal that is held, or a reader that hangs, is waited for once, for
/// a moment; what comes while it takes nothing is lost, and counted when it goes on.
///
/// ```
/// 2026-11-23T18:26:01.123Z info broker[4711] Storage is open event=opened incarnation=3
/// ```
package struct RoleLogHandler: LogHandler {
    /// Lines end here: up to `PIPE_BUF` the lines of several processes that share a pipe don't mix.
    ///
    /// See `pipe(7)`.
    package static let lineBytesMax = 4096

    /// How long the first line waits that finds no room.
    static let patienceMilliseconds: Int32 = 200

    /// Lines that were lost since one got through, counted by this handler and its copies.
    private final class Lost: Sendable {
        let count = Atomic<Int>(0)
    }

    package var metadata: Logger.Metadata = [:]
    package var metadataProvider: Logger.MetadataProvider?

    private let lost = Lost()
    private let component: String
    private let descriptor: Int32
    private var ownLevel: Logger.Level?

    /// Lines go to `descriptor`: standard error unless told otherwise.
    package init(component: String, descriptor: Int32 = STDERR_FILENO) {
        self.component = component
        self.descriptor = descriptor
    }

    /// The process's level, until this handler is given its own.
    package var logLevel: Logger.Level {
        get { ownLevel ?? RoleLogging.level }
        set { ownLevel = newValue }
    }

    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    package func log(event: LogEvent) {
        var line = LogLine(limit: Self.lineBytesMax)
        line.add("\(Timestamp.now) \(event.level.rawValue) \(component)[\(getpid())] ")
        line.add(escaping: event.message.description)
        var all = metadata
        if let provided = metadataProvider?.get() { all.merge(provided) { $1 } }
        if let given = event.metadata { all.merge(given) { $1 } }
        if let error = event.error { all["error"] = "\(error)" }
        for (key, value) in all.sorted(by: { $0.key < $1.key }) {
            line.add(" ")
            line.add(escaping: key)
            line.add("=")
            line.add(value: value.description)
        }
        write(line.ended())
    }

    private func write(_ line: [UInt8]) {
        guard hasRoom else {
            lost.count.add(1, ordering: .relaxed)
            return
        }
        let missing = lost.count.exchange(0, ordering: .relaxed)
        if missing > 0 {
            writeAll(Array("(\(missing) lines of process \(getpid()) are lost here)\n".utf8))
        }
        writeAll(line)
    }

    /// A pipe that says so takes a line at once, as long as that is no longer than ``lineBytesMax``.
    private var hasRoom: Bool {
        var item = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        let isStuck = lost.count.load(ordering: .relaxed) > 0
        var count = poll(&item, 1, isStuck ? 0 : Self.patienceMilliseconds)
        while count < 0, errno == EINTR {
            count = poll(&item, 1, isStuck ? 0 : Self.patienceMilliseconds)
        }
        return count > 0
    }

    private func writeAll(_ line: [UInt8]) {
        var rest = line[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0 && errno == EINTR { continue }
            // Nobody reads, or can't now: a role doesn't stop for its log.
            guard count > 0 else { return }
            rest = rest.dropFirst(count)
        }
    }
}

extension Logger.Level {
    fileprivate var place: Int {
        guard let place = Self.allCases.firstIndex(of: self) else {
            preconditionFailure("allCases has every level")
        }
        return place
    }
}

/// A line under construction: what is over its limit is cut off, and `...` says so.
private struct LogLine {
    private var bytes: [UInt8] = []
    private let limit: Int

    init(limit: Int) {
        self.limit = limit
        bytes.reserveCapacity(256)
    }

    mutating func add(_ text: String) {
        guard bytes.count <= limit else { return }
        bytes += text.utf8
    }

    /// Control characters as escapes, so that an entry stays one line and no terminal obeys it.
    mutating func add(escaping text: String) {
        for byte in text.utf8 {
            guard bytes.count <= limit else { return }
            switch byte {
            case UInt8(ascii: "\n"): bytes += "\\n".utf8
            case UInt8(ascii: "\t"): bytes += "\\t".utf8
            case 0..<0x20, 0x7F: bytes.append(UInt8(ascii: "?"))
            default: bytes.append(byte)
            }
        }
    }

    /// In quotes where a reader could not tell where the value ends.
    mutating func add(value: String) {
        let needsQuotes =
            value.isEmpty
            || value.utf8.contains { byte in
                byte <= 0x20 || byte == 0x7F || byte == UInt8(ascii: "\"")
                    || byte == UInt8(ascii: "=") || byte == UInt8(ascii: "\\")
            }
        guard needsQuotes else {
            add(escaping: value)
            return
        }
        add("\"")
        add(escaping: value.replacing("\\", with: "\\\\").replacing("\"", with: "\\\""))
        add("\"")
    }

    consuming func ended() -> [UInt8] {
        if bytes.count >= limit {
            bytes.removeLast(bytes.count - (limit - 4))
            // Not in the middle of a character: continuation bytes are 10xxxxxx.
            while let last = bytes.last, last & 0xC0 == 0x80 { bytes.removeLast() }
            if let last = bytes.last, last >= 0xC0 { bytes.removeLast() }
            bytes += "...".utf8
        }
        bytes.append(UInt8(ascii: "\n"))
        return bytes
    }
}
