// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire
import ZeroMQ

/// The sockets that somebody binds.
enum Address: Int, CaseIterable {
    /// The Broker's ROUTER for clients.
    case clients
    /// The Broker's ROUTER for workers.
    case workers
    /// Storage's ROUTER for the Broker.
    case storage
    /// Storage's PULL for results.
    case results
    /// GlobalConfig's ROUTER.
    case config
    /// GlobalConfig's XPUB.
    case configUpdates
}

/// Messages on their way in one direction: their order holds, their times don't.
struct Pipe {
    struct Message {
        var arrival: UInt64
        var bytes: [UInt8]
    }

    private(set) var messages: [Message] = []
    private var lastArrival: UInt64 = 0

    /// Puts a message in; it arrives at the time returned, no earlier than those before it.
    mutating func put(_ bytes: [UInt8], arrival: UInt64) -> UInt64 {
        lastArrival = max(lastArrival, arrival)
        messages.append(Message(arrival: lastArrival, bytes: bytes))
        return lastArrival
    }

    func hasArrived(by time: UInt64) -> Bool {
        messages.first.map { $0.arrival <= time } ?? false
    }

    mutating func take() -> [UInt8] { messages.removeFirst().bytes }

    mutating func removeAll() { messages.removeAll() }

    /// The last message is there twice.
    mutating func repeatLast() {
        guard let last = messages.last else { return }
        messages.append(last)
    }

    /// Keeps the first `count` messages, which come later by `delay`.
    mutating func keep(_ count: Int, delay: UInt64) {
        messages.removeLast(messages.count - count)
        for index in messages.indices { messages[index].arrival += delay }
        lastArrival += delay
    }
}

/// One session: one connection, under one routing id.
final class Connection {
    let number: UInt32
    let socket: ConnectingSocket
    let bound: BoundSocket
    var toBound = Pipe()
    var toSocket = Pipe()

    /// Nothing more gets through.
    var isBroken = false

    /// The binding side has read something of it.
    var hasSpoken = false

    /// The binding side has noticed.
    var isGoneForBound = false

    init(number: UInt32, socket: ConnectingSocket, bound: BoundSocket) {
        self.number = number
        self.socket = socket
        self.bound = bound
    }

    /// Never used twice, as a ROUTER's own names are not.
    var routingID: RoutingID {
        RoutingID([
            0, UInt8(truncatingIfNeeded: number >> 24), UInt8(truncatingIfNeeded: number >> 16),
            UInt8(truncatingIfNeeded: number >> 8), UInt8(truncatingIfNeeded: number),
        ])
    }
}

/// A DEALER (with IMMEDIATE and PROBE_ROUTER) or a PUSH, which finds its way back by itself.
final class ConnectingSocket {
    let owner: SimulatedProcess
    let address: Address
    fileprivate(set) var connection: Connection?
    fileprivate var isClosed = false

    fileprivate init(owner: SimulatedProcess, address: Address) {
        self.owner = owner
        self.address = address
    }
}

/// A ROUTER with MANDATORY, or a PULL.
final class BoundSocket {
    let owner: SimulatedProcess
    let address: Address
    fileprivate var connections: [Connection] = []

    fileprivate init(owner: SimulatedProcess, address: Address) {
        self.owner = owner
        self.address = address
    }
}

/// What carries messages between processes, as libzmq does over ipc (recovery.md, chapter 1).
///
/// Within a session nothing is lost, repeated or reordered, only late. A session may break at any
/// moment: what was on its way to the connecting side is lost, and of what was on its way to the
/// binding side the end of it; the beginning may still be read, also after what a new session
/// brought. Whoever sends before he has noticed, sends into the void.
final class SimulatedNetwork {
    private unowned let world: World
    private var bound: [BoundSocket?] = Array(repeating: nil, count: Address.allCases.count)
    private var sockets: [ConnectingSocket] = []
    private var waiting: [ConnectingSocket] = []
    private var connectionCount: UInt32 = 0

    /// Sessions that are open, oldest first.
    private(set) var open: [Connection] = []

    init(_ world: World) {
        self.world = world
    }

    /// The run is over: lets go of everybody.
    func dissolve() {
        for socket in sockets { socket.connection = nil }
        for socket in bound { socket?.connections = [] }
        (sockets, bound, waiting, open) = ([], [], [], [])
    }

    // MARK: Connecting

    func bind(_ address: Address, by owner: SimulatedProcess) -> BoundSocket {
        let socket = BoundSocket(owner: owner, address: address)
        bound[address.rawValue] = socket
        let ready = waiting.filter { $0.address == address }
        waiting.removeAll { $0.address == address }
        for socket in ready { planConnection(socket) }
        return socket
    }

    func connect(to address: Address, by owner: SimulatedProcess) -> ConnectingSocket {
        let socket = ConnectingSocket(owner: owner, address: address)
        sockets.append(socket)
        planConnection(socket)
        return socket
    }

    func close(_ socket: ConnectingSocket) {
        socket.isClosed = true
        waiting.removeAll { $0 === socket }
        if let connection = socket.connection { breakSession(connection) }
    }

    /// libzmq tries again by itself: RECONNECT_IVL 10 ms, doubling to 200 ms.
    private func planConnection(_ socket: ConnectingSocket) {
        world.after(world.random.nanoseconds(50 * .microsecond...60 * .millisecond)) { [self] in
            guard socket.owner.isAlive, !socket.isClosed, socket.connection == nil else { return }
            guard let bound = bound[socket.address.rawValue], bound.owner.isAlive else {
                waiting.append(socket)
                return
            }
            begin(socket, bound)
        }
    }

    private func begin(_ socket: ConnectingSocket, _ bound: BoundSocket) {
        connectionCount += 1
        let connection = Connection(number: connectionCount, socket: socket, bound: bound)
        socket.connection = connection
        bound.connections.append(connection)
        open.append(connection)
        world.trace(socket.owner.name, .connected(bound.owner.name))
        switch socket.address {
        // PUSH sockets don't probe
        case .results: break
        // a SUB says at each connection what it wants: everything
        case .configUpdates: put([1], to: bound, in: connection)
        case .clients, .workers, .storage, .config: put([], to: bound, in: connection)
        }
        socket.owner.socketConnected(socket)
    }

    // MARK: Sending

    /// - Returns: `false` for EAGAIN: nobody is at the other end, as far as this side knows.
    func send(_ bytes: [UInt8], on socket: ConnectingSocket) -> Bool {
        guard let connection = socket.connection else { return false }
        world.trace(socket.owner.name, .sent(connection.bound.owner.name, bytes))
        if let bytes = passed(bytes, in: connection) {
            put(bytes, to: connection.bound, in: connection)
        }
        world.sent(on: connection)
        return true
    }

    /// - Returns: `false` for EHOSTUNREACH.
    func send(_ bytes: [UInt8], on bound: BoundSocket, to routingID: RoutingID) -> Bool {
        guard let connection = bound.connections.first(where: { $0.routingID == routingID }),
            !connection.isGoneForBound
        else { return false }
        world.trace(bound.owner.name, .sent(connection.socket.owner.name, bytes))
        guard !connection.isBroken else {
            world.count(.messageLost)
            return true
        }
        guard let bytes = passed(bytes, in: connection) else { return true }
        let arrival = connection.toSocket.put(bytes, arrival: world.time + world.messageDelay())
        let owner = connection.socket.owner
        world.at(arrival) { owner.wake() }
        world.sent(on: connection)
        return true
    }

    /// To all who are connected to a PUB.
    ///
    /// Now and then one doesn't get it, as where his pipe is full. Only where it `mayBeLost`: of two lost in
    /// a row, the last change and the number that is told once more, nobody ever hears (H8).
    func publish(_ bytes: [UInt8], on bound: BoundSocket, mayBeLost: Bool) {
        for connection in bound.connections where !connection.isGoneForBound {
            guard !mayBeLost || world.isCalm || !world.random.chance(5) else {
                world.count(.messageLost)
                continue
            }
            _ = send(bytes, on: bound, to: connection.routingID)
        }
    }

    /// What is left of a message once a planted fault has had it.
    private func passed(_ bytes: [UInt8], in connection: Connection) -> [UInt8]? {
        guard let plant = world.plant else { return bytes }
        return plant.tamper(bytes, in: connection, world)
    }

    private func put(_ bytes: [UInt8], to bound: BoundSocket, in connection: Connection) {
        guard !connection.isBroken else { return world.count(.messageLost) }
        let arrival = connection.toBound.put(bytes, arrival: world.time + world.messageDelay())
        world.at(arrival) { bound.owner.wake() }
    }

    // MARK: Receiving

    /// The messages that have arrived, at most `limit` of them.
    func receive(on socket: ConnectingSocket, atMost limit: Int = .max) -> [[UInt8]] {
        guard let connection = socket.connection, !connection.isBroken else { return [] }
        var messages: [[UInt8]] = []
        while messages.count < limit, connection.toSocket.hasArrived(by: world.time) {
            let bytes = connection.toSocket.take()
            world.trace(socket.owner.name, .read(connection.bound.owner.name, bytes))
            messages.append(bytes)
        }
        return messages
    }

    /// The messages that have arrived: in order within a session, in any order across them.
    func receive(
        on bound: BoundSocket,
        atMost limit: Int = .max
    ) -> [(connection: Connection, bytes: [UInt8])] {
        var messages: [(connection: Connection, bytes: [UInt8])] = []
        while messages.count < limit {
            let ready = bound.connections.filter { $0.toBound.hasArrived(by: world.time) }
            guard !ready.isEmpty else { break }
            let connection = world.random.pick(ready)
            let bytes = connection.toBound.take()
            if connection.isBroken, connection.socket.connection !== connection,
                connection.socket.connection?.hasSpoken == true
            {
                world.count(.messageReordered)
            }
            connection.hasSpoken = true
            world.trace(bound.owner.name, .read(connection.socket.owner.name, bytes))
            messages.append((connection, bytes))
        }
        bound.connections.removeAll { $0.isGoneForBound && $0.toBound.messages.isEmpty }
        return messages
    }

    func hasArrived(on socket: ConnectingSocket) -> Bool {
        guard let connection = socket.connection, !connection.isBroken else { return false }
        return connection.toSocket.hasArrived(by: world.time)
    }

    func hasArrived(on bound: BoundSocket) -> Bool {
        bound.connections.contains { $0.toBound.hasArrived(by: world.time) }
    }

    /// What lies in a bound socket, read by nobody yet.
    func unread(on bound: BoundSocket) -> [[UInt8]] {
        bound.connections.flatMap { connection in
            connection.toBound.messages.prefix { $0.arrival <= world.time }.map(\.bytes)
        }
    }

    // MARK: Breaking

    func breakSession(_ connection: Connection) {
        guard !connection.isBroken else { return }
        world.trace(connection.socket.owner.name, .brokenSession(connection.bound.owner.name))
        end(connection)
    }

    /// A process is gone, and its sockets with it.
    func ended(_ process: SimulatedProcess) {
        for index in bound.indices where bound[index]?.owner === process {
            // they hold on to it, too
            bound[index]?.connections = []
            bound[index] = nil
        }
        waiting.removeAll { $0.owner === process }
        for connection in open
        where connection.socket.owner === process || connection.bound.owner === process {
            end(connection)
        }
    }

    private func end(_ connection: Connection) {
        connection.isBroken = true
        open.removeAll { $0 === connection }
        // IMMEDIATE: what the connecting side has not read is gone
        for _ in connection.toSocket.messages { world.count(.messageLost) }
        connection.toSocket.removeAll()
        if connection.bound.owner.isAlive { leaveRest(of: connection) }
        let socket = connection.socket
        world.after(world.random.nanoseconds(0...2 * .millisecond)) { [self] in
            guard socket.connection === connection else { return }
            socket.connection = nil
            if socket.owner.isAlive, !socket.isClosed { planConnection(socket) }
        }
        world.after(world.random.nanoseconds(0...20 * .millisecond)) {
            connection.isGoneForBound = true
        }
    }

    /// Of what was on its way to the binding side some is in its pipe already, and is read in time.
    private func leaveRest(of connection: Connection) {
        // nothing of the Broker's: there is one peer, and its session ends with one of the two
        let isBroker = connection.bound.address == .storage
        let kept = isBroker ? 0 : world.random.between(0...connection.toBound.messages.count)
        let isLate = world.random.chance(50)
        let delay = isLate ? world.random.nanoseconds(0...150 * .millisecond) : 0
        for _ in kept..<connection.toBound.messages.count { world.count(.messageLost) }
        connection.toBound.keep(kept, delay: delay)
        if kept > 0, !world.isCalm, world.random.chance(20) {
            connection.toBound.repeatLast()
            world.count(.messageRepeated)
        }
        let owner = connection.bound.owner
        for message in connection.toBound.messages {
            world.at(max(world.time, message.arrival)) { owner.wake() }
        }
    }
}
