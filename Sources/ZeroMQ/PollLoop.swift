// Part of QTasks. License: see LICENSE.

import CLinux
import CZeroMQ
import Glibc

/// A socket as ``PollLoop`` knows it.
///
/// Owns nothing: must not outlive the ``Socket`` it came from.
public struct PollItem {
    let handle: UnsafeMutableRawPointer
    var events: Int16

    /// The same socket, watched for room to send as well.
    ///
    /// A ROUTER always has room for somebody: this is for sockets with one peer, such as a PUSH
    /// that waits for it to come back.
    public var orWritable: PollItem {
        PollItem(handle: handle, events: events | Int16(ZMQ_POLLOUT))
    }
}

/// What one turn of a ``PollLoop`` found.
public struct Ready {
    /// One bit for each item given to the turn, the first in the lowest: there is a message.
    public fileprivate(set) var readable: UInt64 = 0

    /// The same for items watched with ``PollItem/orWritable``: a send would be taken.
    public fileprivate(set) var writable: UInt64 = 0

    /// Whether the deadline of ``PollLoop/setTimer(at:)`` has passed.
    ///
    /// It is then no longer set.
    public fileprivate(set) var timerFired = false

    /// What the ready descriptors were watched under.
    ///
    /// One that was unwatched later in the same turn is still here.
    public fileprivate(set) var tokens: [UInt64]

    /// Whether the item at this place in the turn's list has a message.
    public func isReadable(_ item: Int) -> Bool {
        readable & (1 << UInt64(item)) != 0
    }

    /// Whether the item at this place in the turn's list would take a message.
    public func isWritable(_ item: Int) -> Bool {
        writable & (1 << UInt64(item)) != 0
    }
}

/// What the thread of a role waits on: sockets, descriptors, and one deadline, all in one call.
///
/// Sockets go to `zmq_poll(3)`. Everything else is in one `epoll(7)` set of which `zmq_poll` sees
/// the one descriptor, because its cost grows with their number and because it ends the process
/// where there are more of them than the limit on open files (`RLIMIT_NOFILE`).
///
/// `ZMQ_FD` of a socket only tells that something changed; `zmq_poll` asks each socket for its
/// state before it blocks, so a message that is already there is found at once, also one that an
/// earlier turn left unread.
///
/// Belongs to one thread. Keep a turn's result no longer than the turn, and turns allocate nothing.
public struct PollLoop: ~Copyable {
    /// The most sockets a turn takes: one bit each.
    public static let itemsMax = 64

    private static let eventsMax = 64
    private static let timerToken = UInt64.max

    private let epoll: Int32
    private let timer: Int32
    private let events: UnsafeMutablePointer<epoll_event>
    private let polled: UnsafeMutablePointer<zmq_pollitem_t>
    private var deadline: UInt64?
    private var tokens: [UInt64] = []

    /// - Throws: `EMFILE` where the process has no descriptor left. See `epoll_create1(2)` and
    ///   `timerfd_create(2)`.
    public init() throws(ZeroMQError) {
        let epoll = try check("epoll_create1") { epoll_create1(Int32(EPOLL_CLOEXEC)) }
        let timer: Int32
        do {
            timer = try check("timerfd_create") {
                timerfd_create(CLOCK_BOOTTIME, Int32(TFD_CLOEXEC) | Int32(TFD_NONBLOCK))
            }
        } catch {
            close(epoll)
            throw error
        }
        do {
            try Self.add(timer, as: Self.timerToken, to: epoll)
        } catch {
            close(timer)
            close(epoll)
            throw error
        }
        self.epoll = epoll
        self.timer = timer
        events = .allocate(capacity: Self.eventsMax)
        polled = .allocate(capacity: Self.itemsMax + 1)
    }

    deinit {
        close(timer)
        close(epoll)
        events.deallocate()
        polled.deallocate()
    }

    /// Reports `token` in each turn that finds the descriptor readable, hung up or failed.
    ///
    /// The loop owns nothing: unwatch before closing. What is not read is reported again in the
    /// next turn, at once.
    ///
    /// - Parameters:
    ///   - descriptor: What `epoll(7)` can watch.
    ///   - token: Any number but `UInt64.max`.
    /// - Throws: `EEXIST` where it is watched already, `EPERM` for a plain file. See
    ///   `epoll_ctl(2)`.
    public borrowing func watch(descriptor: Int32, token: UInt64) throws(ZeroMQError) {
        precondition(token != Self.timerToken, "UInt64.max is the timer's own token")
        try Self.add(descriptor, as: token, to: epoll)
    }

    /// Stops watching.
    ///
    /// - Throws: `ENOENT` where it isn't watched. See `epoll_ctl(2)`.
    public borrowing func unwatch(descriptor: Int32) throws(ZeroMQError) {
        try check("epoll_ctl", about: "descriptor \(descriptor)") {
            epoll_ctl(epoll, EPOLL_CTL_DEL, descriptor, nil)
        }
    }

    /// Sets the one deadline; the same again costs no system call.
    ///
    /// - Parameter deadline: By ``MonotonicClock``; one that has passed fires in the next turn, and
    ///   `nil` sets none.
    /// - Throws: Nothing that is to be expected. See `timerfd_settime(2)`.
    public mutating func setTimer(at deadline: UInt64?) throws(ZeroMQError) {
        guard deadline != self.deadline else { return }
        var time = itimerspec()
        if let deadline {
            let nanoseconds = max(deadline, 1)  // zero would mean none
            time.it_value.tv_sec = Int(clamping: nanoseconds / 1_000_000_000)
            time.it_value.tv_nsec = Int(nanoseconds % 1_000_000_000)
        }
        try check("timerfd_settime") {
            timerfd_settime(timer, Int32(TFD_TIMER_ABSTIME), &time, nil)
        }
        self.deadline = deadline
    }

    /// Blocks until a socket, a descriptor or the timer is ready, however long that takes.
    ///
    /// - Parameter items: At most ``itemsMax``; each one's place is its bit in the result.
    /// - Returns: What is ready, at least one thing.
    /// - Throws: `ETERM` once the context of a socket is closing. See `zmq_poll(3)`.
    public mutating func wait(_ items: [PollItem]) throws(ZeroMQError) -> Ready {
        try turn(items, timeout: -1)
    }

    /// Looks what is ready now.
    public mutating func poll(_ items: [PollItem]) throws(ZeroMQError) -> Ready {
        try turn(items, timeout: 0)
    }

    private mutating func turn(
        _ items: [PollItem],
        timeout: Int
    ) throws(ZeroMQError) -> Ready {
        try pollSockets(items, timeout: timeout)
        tokens.removeAll(keepingCapacity: true)
        let timerFired = polled[items.count].revents == 0 ? false : try collectEvents()
        var ready = Ready(timerFired: timerFired, tokens: tokens)
        for index in items.indices {
            let found = Int32(polled[index].revents)
            if found & ZMQ_POLLIN != 0 { ready.readable |= 1 << UInt64(index) }
            if found & ZMQ_POLLOUT != 0 { ready.writable |= 1 << UInt64(index) }
        }
        return ready
    }

    private func pollSockets(_ items: [PollItem], timeout: Int) throws(ZeroMQError) {
        precondition(items.count <= Self.itemsMax, "a turn takes no more sockets than it has bits")
        for (index, item) in items.enumerated() {
            let polledItem = zmq_pollitem_t(
                socket: item.handle,
                fd: 0,
                events: item.events,
                revents: 0
            )
            (polled + index).initialize(to: polledItem)
        }
        let rest = zmq_pollitem_t(socket: nil, fd: epoll, events: Int16(ZMQ_POLLIN), revents: 0)
        (polled + items.count).initialize(to: rest)
        while zmq_poll(polled, Int32(items.count + 1), timeout) == -1 {
            let code = zmq_errno()
            // EINTR: a signal came first, and zmq_poll(3) leaves it to us to ask again.
            guard code == EINTR else {
                throw ZeroMQError(call: "zmq_poll", subject: nil, code: code)
            }
        }
    }

    /// Puts the ready descriptors' tokens where ``Ready/tokens`` comes from.
    ///
    /// Those that there is no room for are found again in the next turn.
    ///
    /// - Returns: Whether the timer is among them.
    private mutating func collectEvents() throws(ZeroMQError) -> Bool {
        var timerFired = false
        let found = try check("epoll_wait") {
            var found: Int32
            repeat {
                found = epoll_wait(epoll, events, Int32(Self.eventsMax), 0)
            } while found == -1 && zmq_errno() == EINTR
            return found
        }
        for index in 0..<Int(found) {
            let token = events[index].data.u64
            if token == Self.timerToken {
                timerFired = takeTimer()
            } else {
                tokens.append(token)
            }
        }
        return timerFired
    }

    private mutating func takeTimer() -> Bool {
        var expirations: UInt64 = 0
        guard read(timer, &expirations, MemoryLayout<UInt64>.size) > 0 else { return false }
        deadline = nil
        return true
    }

    private static func add(
        _ descriptor: Int32,
        as token: UInt64,
        to epoll: Int32
    ) throws(ZeroMQError) {
        var event = epoll_event()
        event.events = EPOLLIN.rawValue
        event.data.u64 = token
        try check("epoll_ctl", about: "descriptor \(descriptor)") {
            epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event)
        }
    }
}
