// Part of QTasks. License: see LICENSE.

import CLinux
import CZeroMQ
import Glibc
import QTasksProcess
import Testing

@testable import ZeroMQ

/// Messages between two sockets, over both transports that roles on one host use.
@Suite(.timeLimit(.minutes(1)))
struct `A socket` {
    enum Transport: CaseIterable {
        case ipc
        case inproc
    }

    private let folder: TemporaryFolder
    private let context: Context

    init() throws {
        folder = try TemporaryFolder()
        context = try Context()
    }

    private func endpoint(_ transport: Transport, _ name: String = "socket") -> String {
        switch transport {
        case .ipc: folder.endpoint(name)
        case .inproc: "inproc://\(name)"
        }
    }

    @Test(arguments: Transport.allCases)
    func `carries a request there and the answer back`(over transport: Transport) throws {
        var patience = try Patience()
        let router = try Socket(.router, in: context, options: .router(maxMessageBytes: nil))
        let dealer = try Socket(.dealer, in: context, options: .dealer)
        try router.bind(to: endpoint(transport))
        try dealer.connect(to: endpoint(transport))
        let probe = try patience.receive(on: router, while: [dealer.pollItem])
        #expect(probe.count == 2 && probe[1].isEmpty)

        #expect(try dealer.send([1, 2, 3]) == .sent)
        var frames = Frames()
        try patience.receive(into: &frames, on: router)
        let peer = frames.routingID(at: 0)
        #expect(frames.all.dropFirst() == [[1, 2, 3]])
        #expect(peer == RoutingID(probe[0]))
        #expect(peer.description.count == 10)

        #expect(try router.send([4], to: peer) == .sent)
        #expect(try patience.receive(on: dealer) == [[4]])
        #expect(try [5, 6].withUnsafeBytes { try router.send($0, to: peer) } == .sent)
        #expect(try patience.receive(on: dealer) == [[5, 6].withUnsafeBytes { Array($0) }])
    }

    @Test(arguments: Transport.allCases)
    func `keeps the frames of a message together`(over transport: Transport) throws {
        var patience = try Patience()
        let router = try Socket(.router, in: context, options: .router(maxMessageBytes: nil))
        let dealer = try Socket(.dealer, in: context, options: .dealer)
        try router.bind(to: endpoint(transport))
        try dealer.connect(to: endpoint(transport))
        let peer = RoutingID(try patience.receive(on: router, while: [dealer.pollItem])[0])

        let message: [[UInt8]] = [[], [1], Array(repeating: 2, count: 100_000), []]
        #expect(try dealer.send(frames: message) == .sent)
        #expect(try patience.receive(on: router).dropFirst() == message[...])
        #expect(try router.send(frames: message, to: peer) == .sent)
        #expect(try patience.receive(on: dealer) == message)
    }

    @Test func `finds nothing where nothing is, and forgets what it held`() throws {
        var patience = try Patience()
        let line = try line()
        try line.push.send([1])
        var frames = Frames()
        try patience.receive(into: &frames, on: line.pull)
        #expect(frames.all == [[1]])
        #expect(try !line.pull.receive(into: &frames))
        #expect(frames.all == [])
    }

    @Test func `lends a large array instead of copying it, and gives it back`() throws {
        var patience = try Patience()
        let line = try line()
        var lent: LentBytes? = LentBytes(Array(repeating: 7, count: 1 << 20))
        let address = lent?.place.start
        weak let witness = lent
        if let lent { #expect(line.push.send(lent: lent, more: false) == 0) }
        lent = nil
        #expect(witness != nil)

        var frames = Frames()
        try patience.receive(into: &frames, on: line.pull)
        frames.withBytes(at: 0) { bytes in
            #expect(bytes.baseAddress == address)
            #expect(bytes.count == 1 << 20 && bytes.allSatisfy { $0 == 7 })
        }
        #expect(witness != nil)
        frames.clear()
        #expect(witness == nil)
    }

    @Test func `gives a lent array back when the message is refused`() throws {
        let push = try Socket(.push, in: context, options: .push)
        try push.connect(to: endpoint(.ipc))
        var lent: LentBytes? = LentBytes(Array(repeating: 7, count: 1 << 20))
        weak let witness = lent
        if let lent { #expect(push.send(lent: lent, more: false) == EAGAIN) }
        lent = nil
        #expect(witness == nil)
    }

    @Test(arguments: Transport.allCases)
    func `passes on a part of what it received, without a copy`(over transport: Transport) throws {
        var patience = try Patience()
        let line = try line()
        let push = try Socket(.push, in: context, options: .push)
        let pull = try Socket(.pull, in: context, options: .pull(maxMessageBytes: nil))
        try pull.bind(to: endpoint(transport, "next"))
        try push.connect(to: endpoint(transport, "next"))
        var sent = [UInt8](repeating: 7, count: 1 << 20)
        sent[100] = 1
        try line.push.send(sent)
        var frames = Frames()
        try patience.receive(into: &frames, on: line.pull)
        let kept = frames.keep(at: 0)
        frames.withBytes(at: 0) { #expect($0.baseAddress == kept.bytes.baseAddress) }
        frames.clear()
        #expect(Array(kept.bytes) == sent)
        try patience.room(on: push)
        #expect(try push.send([9], with: LentFrame(kept, 100..<200_000)) == .sent)
        #expect(try patience.receive(on: pull) == [[9], Array(sent[100..<200_000])])
    }

    @Test func `says when it is done with what it was lent`() throws {
        var patience = try Patience()
        let router = try Socket(.router, in: context, options: .router(maxMessageBytes: nil))
        let dealer = try Socket(.dealer, in: context, options: .dealer)
        try router.bind(to: endpoint(.ipc))
        try dealer.connect(to: endpoint(.ipc))
        let probe = try patience.receive(on: router, while: [dealer.pollItem])
        let bell = try Doorbell()
        let bytes = [UInt8](repeating: 3, count: 1 << 20)
        let frame = LentFrame(bytes) { bell.ring() }
        #expect(try router.send(frame, to: RoutingID([1, 2, 3])) == .unreachable)
        do {
            let frame = LentFrame(bytes) { bell.ring() }
            #expect(try router.send(frame, to: RoutingID(probe[0])) == .sent)
        }
        #expect(try patience.receive(on: dealer) == [bytes])
        var loop = try PollLoop()
        try loop.watch(descriptor: bell.descriptor, token: 1)
        #expect(try loop.waitPatiently().tokens == [1])
    }

    @Test func `sends what the array held, whatever becomes of the variable`() throws {
        var patience = try Patience()
        let line = try line()
        var bytes = [UInt8](repeating: 1, count: Socket.lentBytesMin)
        try line.push.send(bytes)
        bytes[0] = 2
        #expect(try patience.receive(on: line.pull)[0][0] == 1)
    }

    @Test func `says when a routing id is unknown, and sends none of the message`() throws {
        var patience = try Patience()
        let router = try Socket(.router, in: context, options: .router(maxMessageBytes: nil))
        let dealer = try Socket(.dealer, in: context, options: .dealer)
        try router.bind(to: endpoint(.ipc))
        try dealer.connect(to: endpoint(.ipc))
        let name = try patience.receive(on: router, while: [dealer.pollItem])[0]
        let peer = RoutingID(name)

        // Were the frames sent all the same, the first would be read as the dealer's routing id.
        #expect(try router.send(frames: [name, [2]], to: RoutingID([9, 9])) == .unreachable)
        #expect(
            try router.send([1], to: RoutingID([UInt8](repeating: 9, count: 20))) == .unreachable
        )
        #expect(try router.send(frames: [[3], [4]], to: peer) == .sent)
        #expect(try patience.receive(on: dealer) == [[3], [4]])
    }

    @Test func `takes nothing while nobody is connected`() throws {
        var patience = try Patience()
        let dealer = try Socket(.dealer, in: context, options: .dealer)
        let router = try Socket(.router, in: context, options: .router(maxMessageBytes: nil))
        try dealer.connect(to: endpoint(.ipc))
        #expect(try dealer.send([1]) == .wouldBlock)
        #expect(try dealer.send(frames: [[1], [2]]) == .wouldBlock)

        try router.bind(to: endpoint(.ipc))
        try patience.room(on: dealer)
        #expect(try dealer.send([3]) == .sent)
        #expect(try patience.receive(on: router)[1] == [])
        #expect(try patience.receive(on: router)[1] == [3])
    }

    /// ```
    ///  router   bound ---- closed   bound again
    ///  dealer      probe             probe, under a new id
    /// ```
    @Test func `greets each new connection with one empty message`() throws {
        var patience = try Patience()
        let dealer = try Socket(.dealer, in: context, options: .dealer)
        try dealer.connect(to: endpoint(.ipc))
        var peers: Set<RoutingID> = []
        for _ in 1...3 {
            let router = try Socket(.router, in: context, options: .router(maxMessageBytes: nil))
            try router.bind(to: endpoint(.ipc))
            let probe = try patience.receive(on: router, while: [dealer.pollItem])
            #expect(probe.count == 2 && probe[1].isEmpty)
            #expect(peers.insert(RoutingID(probe[0])).inserted)

            // A second probe, or anything of the session before, would come ahead of this.
            #expect(try dealer.send([1]) == .sent)
            #expect(try patience.receive(on: router) == [probe[0], [1]])
        }
    }

    /// libzmq drops frames up to the next message's start once a peer is lost half-way: ended too
    /// early, a message would take the next one with it.
    @Test func `loses one message with a peer, never the next as well`() throws {
        var patience = try Patience()
        let dealer = try Socket(.dealer, in: context, options: .dealer)
        var loop = try PollLoop()
        do {
            let first = try Socket(.router, in: context, options: .router(maxMessageBytes: nil))
            try first.bind(to: endpoint(.inproc, "first"))
            try dealer.connect(to: endpoint(.inproc, "first"))
            try patience.room(on: dealer)
            #expect(dealer.sendFrame([1], more: true) == 0)
            _ = try loop.poll([dealer.pollItem])  // takes in what libzmq has told it so far
        }
        // What it is told next is that the router is gone.
        var watcher = try PollLoop()
        try watcher.watch(descriptor: commandDescriptor(of: dealer), token: 1)
        _ = try watcher.waitPatiently()
        _ = try loop.poll([dealer.pollItem])
        #expect(dealer.sendRest([[2], [3], [4]]) != .unreachable)

        let second = try Socket(.router, in: context, options: .router(maxMessageBytes: nil))
        try second.bind(to: endpoint(.inproc, "second"))
        try dealer.connect(to: endpoint(.inproc, "second"))
        try patience.room(on: dealer)
        #expect(try dealer.send(frames: [[5], [6]]) == .sent)
        #expect(try patience.receive(on: second)[1] == [])
        #expect(try patience.receive(on: second).dropFirst() == [[5], [6]])
    }

    @Test func `is cut off by a message over the limit, and comes back without it`() throws {
        var patience = try Patience()
        let router = try Socket(.router, in: context, options: .router(maxMessageBytes: 1024))
        let dealer = try Socket(.dealer, in: context, options: .dealer)
        try router.bind(to: endpoint(.ipc))
        try dealer.connect(to: endpoint(.ipc))
        let before = try patience.receive(on: router, while: [dealer.pollItem])
        #expect(try dealer.send([UInt8](repeating: 1, count: 1024)) == .sent)
        #expect(try patience.receive(on: router)[1].count == 1024)

        #expect(try dealer.send([UInt8](repeating: 1, count: 1025)) == .sent)
        let after = try patience.receive(on: router, while: [dealer.pollItem])
        #expect(after[1].isEmpty)
        #expect(after[0] != before[0])
    }

    @Test func `drops the frames there is no room for, and only those`() throws {
        var patience = try Patience()
        let line = try line()
        let message = (0..<20).map { [UInt8($0)] }
        try line.push.send(frames: message)
        try line.push.send(frames: [[1], [2]])
        var frames = Frames(capacity: 8)
        try patience.receive(into: &frames, on: line.pull)
        var overflowed = frames.overflowed
        #expect(overflowed)
        #expect(frames.all == Array(message.prefix(8)))
        try patience.receive(into: &frames, on: line.pull)
        overflowed = frames.overflowed
        #expect(!overflowed)
        #expect(frames.all == [[1], [2]])
    }

    @Test func `tells which connection a message came by`() throws {
        var patience = try Patience()
        let router = try Socket(.router, in: context, options: .router(maxMessageBytes: nil))
        let near = try Socket(.dealer, in: context, options: .dealer)
        let far = try Socket(.dealer, in: context, options: .dealer)
        try router.bind(to: endpoint(.ipc))
        try router.bind(to: endpoint(.inproc))
        try far.connect(to: endpoint(.ipc))
        var frames = Frames()
        try patience.receive(into: &frames, on: router, while: [far.pollItem])
        var process: pid_t = 0
        var user: uid_t = 0
        let source = frames.sourceDescriptor
        let descriptor = try #require(source)
        #expect(clinux_peer_credentials(descriptor, &process, &user) == 0)
        #expect(process == getpid() && user == getuid())

        try near.connect(to: endpoint(.inproc))
        try patience.receive(into: &frames, on: router, while: [near.pollItem])
        let noSource = frames.sourceDescriptor
        #expect(noSource == nil)
    }

    @Test func `names the endpoint and the option that libzmq refuses`() throws {
        let pull = try Socket(.pull, in: context, options: .pull(maxMessageBytes: nil))
        let error = #expect(throws: ZeroMQError.self) { try pull.bind(to: "carrier-pigeon://x") }
        #expect(error?.call == "zmq_bind")
        #expect(error?.subject == "carrier-pigeon://x")
        let text = error?.description ?? ""
        #expect(text.hasPrefix("zmq_bind 'carrier-pigeon://x': "), "\(text)")

        let context = context
        let refused = #expect(throws: ZeroMQError.self) {
            _ = try Socket(.pull, in: context, options: .router(maxMessageBytes: nil))
        }
        #expect(refused?.subject == "ZMQ_ROUTER_MANDATORY")
        #expect(refused?.code == EINVAL)
        #expect(refused?.isTransient == false)
    }

    @Test func `fills in the wildcard of its endpoint, and can leave it again`() throws {
        let pull = try Socket(.pull, in: context, options: .pull(maxMessageBytes: nil))
        #expect(try pull.lastEndpoint == "")
        try pull.bind(to: "tcp://127.0.0.1:*")
        let endpoint = try pull.lastEndpoint
        #expect(endpoint.hasPrefix("tcp://127.0.0.1:") && !endpoint.hasSuffix("*"))
        try pull.unbind(from: endpoint)
        #expect(throws: ZeroMQError.self) { try pull.unbind(from: endpoint) }
    }

    @Test func `hears of every subscription, and publishes what was asked for`() throws {
        var patience = try Patience()
        let xpub = try Socket(.xpub, in: context, options: .xpub)
        let early = try Socket(.sub, in: context, options: .sub)
        let late = try Socket(.sub, in: context, options: .sub)
        try xpub.bind(to: endpoint(.ipc))
        try early.connect(to: endpoint(.ipc))
        try early.subscribe([7])
        #expect(try patience.receive(on: xpub) == [[1, 7]])
        try late.connect(to: endpoint(.ipc))
        try late.subscribe([7])
        #expect(try patience.receive(on: xpub) == [[1, 7]])

        #expect(try xpub.send([8, 1]) == .sent)
        #expect(try xpub.send([7, 1]) == .sent)
        #expect(try patience.receive(on: early) == [[7, 1]])
        #expect(try patience.receive(on: late) == [[7, 1]])
        try late.unsubscribe([7])
        try late.disconnect(from: endpoint(.ipc))
    }

    /// `ZMQ_FD`: readable when another thread has told the socket something.
    private func commandDescriptor(of socket: borrowing Socket) throws -> Int32 {
        var descriptor: Int32 = -1
        var size = MemoryLayout<Int32>.size
        try check("zmq_getsockopt") { zmq_getsockopt(socket.handle, ZMQ_FD, &descriptor, &size) }
        return descriptor
    }

    /// A PUSH, and the PULL it is connected to.
    private struct Line: ~Copyable {
        let pull: Socket
        let push: Socket
    }

    private func line() throws -> Line {
        let pull = try Socket(.pull, in: context, options: .pull(maxMessageBytes: nil))
        let push = try Socket(.push, in: context, options: .push)
        try pull.bind(to: endpoint(.inproc))
        try push.connect(to: endpoint(.inproc))
        return Line(pull: pull, push: push)
    }
}
