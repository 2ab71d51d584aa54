// Part of QTasks. License: see LICENSE.

import QTasksModel
import Testing

@testable import QTasks

@Suite
struct `A moment as people write it` {
    /// 2026-11-23T18:26:01.5Z.
    private static let now = Timestamp(nanoseconds: 1_795_458_361_500_000_000)

    private static func read(_ text: String) -> Int64? {
        TimeText.moment(text, now: now)?.nanoseconds
    }

    @Test func `is read with and without zone and fraction`() {
        let second: Int64 = 1_795_458_361
        #expect(Self.read("now") == Self.now.nanoseconds)
        #expect(Self.read("2026-11-23T18:26:01.123456789Z") == second * 1_000_000_000 + 123_456_789)
        #expect(Self.read("2026-11-23 18:26:01.123456789") == second * 1_000_000_000 + 123_456_789)
        #expect(
            Self.read("2026-11-23T20:26:01.000000000+02:00") == second * 1_000_000_000
        )
        #expect(
            Self.read("2026-11-23T12:56:01.000000000-05:30") == second * 1_000_000_000
        )
        #expect(Self.read("-90s") == Self.now.nanoseconds - 90_000_000_000)
        #expect(Self.read("-5m") == Self.now.nanoseconds - 300_000_000_000)
    }

    @Test func `stands for the end of what it names`() {
        let end: Int64 = 1_795_458_361_999_999_999
        #expect(Self.read("18:26:01") == end)
        #expect(Self.read("2026-11-23T18:26:01Z") == end)
        #expect(Self.read("18:26:01.123") == end - 876_000_000)
        #expect(Self.read("18:26") == end + 58_000_000_000)
        #expect(Self.read("2026-11-23") == 1_795_478_399_999_999_999)
        let printed = Timestamp(nanoseconds: 1_795_458_361_123_456_789)
        #expect(Self.read(printed.description) ?? 0 >= printed.nanoseconds)
    }

    @Test(
        arguments: [
            "", "yesterday", "25:00:00", "12:60:00", "2026-02-31T00:00:00Z", "2026-13-01",
            "2026-11-23T18:26:01+2", "12:03:04 ", "-5", "-m", "5m", "12", "12:3:4",
            "2026-11-23T18:26:01.Z",
        ]
    )
    func `is nothing else`(text: String) {
        #expect(Self.read(text) == nil)
    }
}
