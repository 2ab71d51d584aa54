// Part of QTasks. License: see LICENSE.

import Glibc

/// What this machine's processors did since it was made, from `/proc/stat` (proc(5)).
///
/// Under a hypervisor's quota all of a virtual machine stands still for tens of milliseconds at a time
/// (`steal`): what is measured meanwhile tells of the neighbours.
struct ProcessorTime {
    private let start = Self.ticks()

    /// The share of all processors' time since then for which the hypervisor let them wait, 0 to 1; 0 where
    /// the kernel doesn't tell.
    var stolenShare: Double {
        let end = Self.ticks()
        guard let start, let end, end.all > start.all else { return 0 }
        return Double(end.stolen - start.stolen) / Double(end.all - start.all)
    }

    /// The share of it in which they had nothing to do, 0 to 1; 1 where the kernel doesn't tell.
    var idleShare: Double {
        let end = Self.ticks()
        guard let start, let end, end.all > start.all else { return 1 }
        return Double(end.idle - start.idle) / Double(end.all - start.all)
    }

    private static func ticks() -> (all: UInt64, stolen: UInt64, idle: UInt64)? {
        guard let file = fopen("/proc/stat", "re") else { return nil }
        defer { fclose(file) }
        var line = [CChar](repeating: 0, count: 512)
        guard fgets(&line, Int32(line.count), file) != nil else { return nil }
        let text = String(
            decoding: line.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)),
            as: UTF8.self
        )
        // user, nice, system, idle, iowait, irq, softirq, steal; guests' time is in user
        let numbers = text.split(whereSeparator: \.isWhitespace).dropFirst().prefix(8)
            .compactMap { UInt64($0) }
        return numbers.count == 8
            ? (numbers.reduce(0, +), numbers[7], numbers[3] + numbers[4]) : nil
    }
}
