// Part of QTasks. License: see LICENSE.

import DequeModule
import QTasksModel
package import QTasksWire

/// Who is told of a record.
enum RecordTarget {
    /// A plain GET's answer.
    case get(ClientTable.RequestNumber, TaskID)
    /// A wait, and how it ends.
    case wait(Wait, RecordReply.State)

    var id: TaskID {
        switch self {
        case .get(_, let id): id
        case .wait(let wait, _): wait.id
        }
    }
}

/// A record on its way to a client, whose large parts are read from the store when it is sent.
package struct PlacedReply {
    package let session: Session
    /// The client's message up to the record.
    let head: [UInt8]
    /// A ``PlacedRecord``.
    let record: [UInt8]
    /// How many bytes the message has.
    package let count: Int
    let target: RecordTarget
    /// It is sent as it is; else the Broker has to look into it.
    let isPlain: Bool

    /// The client's message; `nil` where the store doesn't have it there any more.
    package func message(_ read: PayloadReading) -> [UInt8]? {
        record.withUnsafeBytes { bytes in
            guard let placed = try? PlacedRecord(bytes) else { return nil }
            var isWhole = false
            let message = [UInt8](unsafeUninitializedCapacity: count) { target, written in
                let target = UnsafeMutableRawBufferPointer(target)
                head.withUnsafeBytes { target.copyMemory(from: $0) }
                let place = UnsafeMutableRawBufferPointer(rebasing: target[head.count..<count])
                isWhole = placed.assemble(into: place, read)
                written = isWhole ? count : 0
            }
            return isWhole ? message : nil
        }
    }
}

extension BrokerState {
    /// Messages for clients of at least so many bytes are counted until ``clientTook(_:_:)``.
    package static var largeMessageBytes: Int { LargeReplies.messageBytesMin }
}

/// What clients were sent and have not taken yet, as far as it is large, and what waits for that.
///
/// libzmq queues without a bound for a client that doesn't read. So what one session is sent from
/// the store stops at ``bytesMax``; the rest waits as what it is, a place: it costs 200 bytes, and
/// holds nothing on the disk.
struct LargeReplies {
    /// Bytes of large messages that one session may have under way.
    static let bytesMax = 64 << 20

    /// What counts as large, in bytes.
    static let messageBytesMin = 64 << 10

    private var underWay: [Session: Int] = [:]
    private var waiting: [Session: Deque<PlacedReply>] = [:]

    /// How many replies wait for a session.
    func waitingCount(_ session: Session) -> Int { waiting[session]?.count ?? 0 }

    /// Counts a message that goes out now.
    mutating func sent(_ bytes: Int, to session: Session) {
        underWay[session, default: 0] += bytes
    }

    /// Counts a reply if it may go now, and keeps it else.
    mutating func admit(_ reply: PlacedReply) -> Bool {
        guard waiting[reply.session] == nil, hasRoom(for: reply) else {
            waiting[reply.session, default: []].append(reply)
            return false
        }
        sent(reply.count, to: reply.session)
        return true
    }

    /// A session took so much, or will never be sent it.
    ///
    /// - Returns: What may go now; it is counted.
    mutating func took(_ bytes: Int, _ session: Session) -> [PlacedReply] {
        if let left = underWay[session] {
            underWay[session] = left > bytes ? left - bytes : nil
        }
        var admitted: [PlacedReply] = []
        while let next = waiting[session]?.first, hasRoom(for: next) {
            waiting[session]?.removeFirst()
            sent(next.count, to: session)
            admitted.append(next)
        }
        if waiting[session]?.isEmpty == true { waiting[session] = nil }
        return admitted
    }

    /// The connection is gone; gives what waited for it.
    mutating func forget(_ session: Session) -> [PlacedReply] {
        waiting.removeValue(forKey: session).map { Array($0) } ?? []
    }

    /// One always may, however large it is.
    private func hasRoom(for reply: PlacedReply) -> Bool {
        let bytes = underWay[reply.session, default: 0]
        return bytes == 0 || bytes + reply.count <= Self.bytesMax
    }
}
