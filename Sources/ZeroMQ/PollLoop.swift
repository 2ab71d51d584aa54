// Part of QTasks. License: see LICENSE.

import CLinux
import CZeroMQ
import Glibc

/// A socket as ``PollLoop`` knows it.
///
/// Owns nothing: must not outlive the ``Socket`` it came from.
public struct PollItem {
    let handle: UnsafeMutableRawPointer
    /// Which socket it is; handles are used again.
    let number: UInt64
    /// Its `ZMQ_FD`.
    let descriptor: Int32
    var events: Int16

    /// The same socket, watched for room to send as well.
    ///
    /// A ROUTER always has room for somebody: this is for sockets with one peer, such as a PUSH
    /// that waits for it to come back.
    public var orWritable: PollItem {
        var item = self
        item.events |= Int16(ZMQ_POLLOUT)
        return item
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
/// Everything is in one `epoll(7)` set. For a socket that is its `ZMQ_FD`, which only tells that
/// something changed, so each turn asks every socket for its state (`ZMQ_EVENTS`) before it sleeps,
/// and those whose descriptor woke it again: a message that is already there is found at once, also
/// one that was left unread in an earlier turn. `zmq_poll(3)` does the same, but asks every socket
/// twice, and each asking costs two system calls; and it ends the process where there are more
/// descriptors than the limit on open files (`RLIMIT_NOFILE`).
///
/// Belongs to one thread. Keep a turn's result no longer than the turn, and turns allocate nothing.
public struct PollLoop: ~Copyable {
    /// The most sockets a turn takes: one bit each.
    public static let itemsMax = 64

    private static let eventsMax = 64
    private static let timerToken = UInt64.max
    /// The first socket's token; the others follow, by their place in `sockets`.
    private static let socketTokens = UInt64.max - 1 << 20

    private let epoll: Int32
    private let timer: Int32
    private let events: UnsafeMutablePointer<epoll_event>
    /// Every socket that came by, in the set until it is closed.
    ///
    /// One that isn't in a turn's list wakes
    /// the loop in vain at most.
    private var sockets: [(number: UInt64, descriptor: Int32)] = []
    /// The last turn's list, by places in `sockets`.
    private var places: [Int] = []
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
    }

    deinit {
        close(timer)
        close(epoll)
        events.deallocate()
    }

    /// Reports `token` in each turn that finds the descriptor readable, hung up or failed.
    ///
    /// The loop owns nothing: unwatch before closing. What is not read is reported again in the
    /// next turn, at once.
    ///
    /// - Parameters:
    ///   - descriptor: What `epoll(7)` can watch.
    ///   - token: Any number but the last million that there are.
    /// - Throws: `EEXIST` where it is watched already, `EPERM` for a plain file. See
    ///   `epoll_ctl(2)`.
    public borrowing func watch(descriptor: Int32, token: UInt64) throws(ZeroMQError) {
        precondition(token < Self.socketTokens, "the last tokens are the sockets' and the timer's")
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
        timeout: Int32
    ) throws(ZeroMQError) -> Ready {
        precondition(items.count <= Self.itemsMax, "a turn takes no more sockets than it has bits")
        try watchSockets(items)
        tokens.removeAll(keepingCapacity: true)
        var ready = Ready(tokens: [])
        for index in items.indices { try ask(items[index], index, &ready) }
        repeat {
            let isFound = ready.readable | ready.writable != 0
            let found = try sleep(isFound ? 0 : timeout)
            for index in 0..<found {
                let token = events[index].data.u64
                if token == Self.timerToken {
                    ready.timerFired = takeTimer()
                } else if token >= Self.socketTokens {
                    let place = Int(token - Self.socketTokens)
                    if let item = places.firstIndex(of: place) {
                        try ask(items[item], item, &ready)
                    }
                } else {
                    tokens.append(token)
                }
            }
            // a socket that only had to look after itself is no reason to wake anybody
        } while timeout != 0 && ready.readable | ready.writable == 0 && !ready.timerFired
            && tokens.isEmpty
        ready.tokens = tokens
        return ready
    }

    /// Waits until something in the set is ready, or looks.
    private func sleep(_ timeout: Int32) throws(ZeroMQError) -> Int {
        let found = try check("epoll_wait") {
            var found: Int32
            repeat {
                // EINTR: a signal came first; its handler has written to what the loop watches
                found = epoll_wait(epoll, events, Int32(Self.eventsMax), timeout)
            } while found == -1 && zmq_errno() == EINTR
            return found
        }
        return Int(found)
    }

    /// Asks one socket for its state, which also lets it do what its descriptor woke it for.
    private func ask(
        _ item: PollItem,
        _ index: Int,
        _ ready: inout Ready
    ) throws(ZeroMQError) {
        var state: Int32 = 0
        var bytes = MemoryLayout<Int32>.size
        while zmq_getsockopt(item.handle, ZMQ_EVENTS, &state, &bytes) == -1 {
            let code = zmq_errno()
            guard code == EINTR else {
                throw ZeroMQError(call: "zmq_getsockopt", subject: "ZMQ_EVENTS", code: code)
            }
        }
        let wanted = state & Int32(item.events)
        if wanted & ZMQ_POLLIN != 0 { ready.readable |= 1 << UInt64(index) }
        if wanted & ZMQ_POLLOUT != 0 { ready.writable |= 1 << UInt64(index) }
    }

    /// Sees to it that the sockets of this turn are in the set; costs nothing while they stay the same.
    private mutating func watchSockets(_ items: [PollItem]) throws(ZeroMQError) {
        let isSame =
            items.count == places.count
            && items.indices.allSatisfy { items[$0].number == sockets[places[$0]].number }
        guard !isSame else { return }
        places.removeAll(keepingCapacity: true)
        for item in items { places.append(try place(of: item)) }
    }

    private mutating func place(of item: PollItem) throws(ZeroMQError) -> Int {
        if let known = sockets.firstIndex(where: { $0.number == item.number }) { return known }
        // who had this descriptor before is closed, and has left the set by that
        let former = sockets.firstIndex { $0.descriptor == item.descriptor }
        let place = former ?? sockets.count
        let entry = (item.number, item.descriptor)
        if former == nil { sockets.append(entry) } else { sockets[place] = entry }
        var event = epoll_event()
        // each change wakes once: before it sleeps, a turn has asked the socket for its state
        event.events = EPOLLIN.rawValue | EPOLLET.rawValue
        event.data.u64 = Self.socketTokens + UInt64(place)
        try check("epoll_ctl", about: "descriptor \(item.descriptor)") {
            epoll_ctl(epoll, EPOLL_CTL_ADD, item.descriptor, &event)
        }
        return place
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
