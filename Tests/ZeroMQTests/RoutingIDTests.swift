// Part of QTasks. License: see LICENSE.

import Testing

@testable import ZeroMQ

@Suite
struct `A routing id` {
    @Test(arguments: 0...20)
    func `gives back the bytes it was made of`(count: Int) {
        let bytes = (0..<count).map { UInt8(200 + $0) }
        let id = RoutingID(bytes)
        #expect(id.withBytes { Array($0) } == bytes)
        #expect(id == RoutingID(bytes))
        #expect(id.hashValue == RoutingID(bytes).hashValue)
    }

    @Test func `differs where any byte or the length does`() {
        let ids: [[UInt8]] = [[], [0], [0, 0], [1], [1, 0], Array(repeating: 0, count: 9)]
        #expect(Set(ids.map { RoutingID($0) }).count == ids.count)
    }

    @Test func `is shown in hexadecimal`() {
        #expect(RoutingID([0, 0x6B, 0x8B, 0x45, 0x67]).description == "006b8b4567")
    }
}
