// Part of QTasks. License: see LICENSE.

import QTasksModel
import QTasksWire
import Testing
import ZeroMQ

@testable import QTasksBroker

private let slow = Session([0, 0, 0, 0, 1])
private let other = Session([0, 0, 0, 0, 2])

@Suite
struct `What a client leaves unread` {
    /// Sends until a message is a mark.
    private func sendToMark(_ arrears: inout Arrears, _ session: Session) -> Int {
        var sent = 1
        while !arrears.sent(1000, to: session) { sent += 1 }
        return sent
    }

    @Test func `is what went out since the mark that came back last`() {
        var arrears = Arrears()
        var marks = 0
        while !arrears.isOverdrawn(slow) {
            let sent = sendToMark(&arrears, slow)
            #expect(sent * 1000 < Arrears.markBytes && sent * 1200 > Arrears.markBytes)
            marks += 1
        }
        arrears.returned(slow)
        #expect(!arrears.isOverdrawn(slow), "it reads on")
        _ = arrears.sent(1, to: slow)
        for _ in 1..<marks { arrears.returned(slow) }
        #expect(arrears.count == 1)
        _ = sendToMark(&arrears, slow)
        arrears.returned(slow)
        #expect(arrears.count == 0, "all is read")
    }

    @Test func `cuts off who reads nothing, and nobody else`() {
        var arrears = Arrears()
        for _ in 0...Arrears.bytesMax / 1000 { _ = arrears.sent(1000, to: slow) }
        _ = arrears.sent(1000, to: other)
        #expect(arrears.isOverdrawn(slow) && !arrears.isOverdrawn(other))
        arrears.forget(slow)
        #expect(!arrears.isOverdrawn(slow))
    }

    @Test func `is nothing where a client reads, however much that is`() {
        var arrears = Arrears()
        for _ in 0..<3 * Arrears.bytesMax / 1000 {
            if arrears.sent(1000, to: slow) { arrears.returned(slow) }
            guard !arrears.isOverdrawn(slow) else {
                Issue.record("it has read everything")
                return
            }
        }
    }

    @Test func `doesn't grow with connections that are gone (P9)`() {
        var arrears = Arrears()
        _ = sendToMark(&arrears, slow)
        for number in UInt32(0)..<50_000 {
            let bytes = withUnsafeBytes(of: number.bigEndian) { Array($0) }
            _ = arrears.sent(10, to: Session([9] + bytes))
            guard arrears.count <= 4096 else {
                Issue.record("\(arrears.count) sessions are counted")
                return
            }
        }
        arrears.returned(slow)
        let isMark = arrears.sent(10, to: slow)
        #expect(!isMark)
    }

    @Test func `ends its waits with its connection, and it is told of once`() throws {
        var bench = try BrokerBench()
        let id = try bench.add()
        bench.broker.clients.wait(
            for: id,
            session: BrokerBench.client,
            number: 1,
            options: .wait,
            deadline: nil
        )
        #expect(bench.broker.clients.isAwaited(id))
        while !bench.broker.clients.arrears.isOverdrawn(BrokerBench.client) {
            _ = bench.broker.sends(1 << 20, to: BrokerBench.client)
        }
        for _ in 0..<2 {
            let isCut = bench.broker.shallCut(BrokerBench.client)
            #expect(isCut)
        }
        let notices = bench.broker.flush().notices.filter { "\($0.event)" == "client cut" }
        #expect(notices.count == 1)
        #expect(!bench.broker.clients.isAwaited(id))
        let isOtherCut = bench.broker.shallCut(other)
        bench.broker.clientReadOn(BrokerBench.client)
        let isStillCut = bench.broker.shallCut(BrokerBench.client)
        #expect(!isOtherCut && !isStillCut)
    }
}
