// Part of QTasks. License: see LICENSE.

import Glibc
import Testing

@testable import ZeroMQ

@Suite(.timeLimit(.minutes(1)))
struct `An encrypted connection` {
    private let context: Context

    init() throws {
        context = try Context()
    }

    @Test func `carries messages both ways`() throws {
        var patience = try Patience()
        let (server, client) = (try CurveKeyPair.generate(), try CurveKeyPair.generate())
        let router = try self.router(.server(secretKey: server.secretKey, zapDomain: nil))
        let dealer = try self.dealer(.client(client, serverKey: server.publicKey))
        try dealer.connect(to: try router.lastEndpoint)
        let probe = try patience.receive(on: router, while: [dealer.pollItem])
        try dealer.send([1, 2])
        #expect(try patience.receive(on: router)[1] == [1, 2])
        try router.send([3], to: RoutingID(probe[0]))
        #expect(try patience.receive(on: dealer) == [[3]])
    }

    /// Two dealers connect, of which the server can have only the second; its probe is the first
    /// thing to arrive, and the other is still alone.
    @Test(arguments: [false, true])
    func `is made with the server's own key only`(plain: Bool) throws {
        var patience = try Patience()
        let (server, client) = (try CurveKeyPair.generate(), try CurveKeyPair.generate())
        let router = try self.router(.server(secretKey: server.secretKey, zapDomain: nil))
        let wrong = CurveOptions.client(client, serverKey: client.publicKey)
        let stranger = try self.dealer(plain ? nil : wrong)
        let dealer = try self.dealer(.client(client, serverKey: server.publicKey))
        try stranger.connect(to: try router.lastEndpoint)
        try dealer.connect(to: try router.lastEndpoint)
        try dealer.send([0])
        _ = try patience.receive(on: router, while: [dealer.pollItem, stranger.pollItem])
        #expect(try stranger.send([1]) == .wouldBlock)
    }

    /// The stranger's connection is dropped after its handshake; the other router asks nobody.
    @Test func `is refused where a ZAP domain has nobody to ask`() throws {
        var patience = try Patience()
        let (server, client) = (try CurveKeyPair.generate(), try CurveKeyPair.generate())
        let asks = try router(.server(secretKey: server.secretKey, zapDomain: "tasks"))
        let open = try router(.server(secretKey: server.secretKey, zapDomain: nil))
        let refused = try dealer(.client(client, serverKey: server.publicKey))
        let welcome = try dealer(.client(client, serverKey: server.publicKey))
        try refused.connect(to: try asks.lastEndpoint)
        try welcome.connect(to: try open.lastEndpoint)
        _ = try patience.receive(on: open, while: [welcome.pollItem, refused.pollItem])
        #expect(try refused.send([1]) == .wouldBlock)
    }

    @Test func `pairs can be told apart, stored and read again`() throws {
        let pair = try CurveKeyPair.generate()
        #expect(pair.publicKey.utf8.count == 40)
        #expect(pair.secretKey.utf8.count == 40)
        #expect(try CurveKeyPair.generate() != pair)
        #expect(try CurveKeyPair(secretKey: pair.secretKey) == pair)
        #expect(!"\(pair)".contains(pair.secretKey))
    }

    @Test(arguments: ["", "short", String(repeating: "~", count: 40)])
    func `pairs are not made of what is no key`(text: String) {
        let error = #expect(throws: ZeroMQError.self) { try CurveKeyPair(secretKey: text) }
        #expect(error?.code == EINVAL)
    }

    private func router(_ curve: CurveOptions?) throws -> Socket {
        var options = SocketOptions.router(maxMessageBytes: nil)
        options.curve = curve
        let router = try Socket(.router, in: context, options: options)
        try router.bind(to: "tcp://127.0.0.1:*")
        return router
    }

    private func dealer(_ curve: CurveOptions?) throws -> Socket {
        var options = SocketOptions.dealer
        options.curve = curve
        return try Socket(.dealer, in: context, options: options)
    }
}
