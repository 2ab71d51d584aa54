// Part of QTasks. License: see LICENSE.

import Testing

@testable import AppendLog

@Suite
struct `Which segments make up a log` {
    private static func header(
        _ index: UInt32,
        _ incarnation: UInt32,
        after predecessor: UInt32
    ) -> SegmentHeader {
        SegmentHeader(
            index: index,
            salt: index,
            incarnation: incarnation,
            firstSequence: UInt64(index),
            predecessor: RecordPosition(segment: predecessor, offset: predecessor == 0 ? 0 : 2048)
        )
    }

    private static func numbers(_ chain: SegmentChain) -> [UInt32] {
        chain.links.map(\.header.index)
    }

    @Test func `leaves out what an unclean end left behind`() {
        let headers = [
            Self.header(1, 1, after: 0), Self.header(2, 1, after: 1), Self.header(3, 2, after: 1),
        ]
        let chain = SegmentChain(headers, incarnation: 2)
        #expect(Self.numbers(chain) == [1, 3] && chain.superseded == [2])
    }

    /// Found by the fuzzer: where 3 is gone, 2 stood in for it once its incarnation was reached.
    @Test func `is the same once a later opening has reached the incarnation of a remnant`() {
        var headers = [
            Self.header(1, 1, after: 0), Self.header(2, 2, after: 1), Self.header(4, 1, after: 3),
        ]
        let before = SegmentChain(headers, incarnation: 1)
        #expect(Self.numbers(before) == [1, 4] && before.superseded == [2])
        headers.append(Self.header(5, 2, after: 4))
        let after = SegmentChain(headers, incarnation: 2)
        #expect(Self.numbers(after) == [1, 4, 5] && after.superseded == [2])
    }

    /// Found by the fuzzer, as a mark in a segment that is gone: 2 would stand in for 3 once a new one
    /// says that the log before it ends there.
    @Test func `can lack only what nothing else would stand in for`() {
        let chain = SegmentChain(
            [
                Self.header(1, 1, after: 0), Self.header(2, 2, after: 1),
                Self.header(4, 1, after: 3), Self.header(6, 1, after: 5),
            ],
            incarnation: 1
        )
        #expect(Self.numbers(chain) == [1, 4, 6] && chain.superseded == [2])
        #expect([5, 7].allSatisfy(chain.canLack) && !chain.canLack(3))
    }
}
