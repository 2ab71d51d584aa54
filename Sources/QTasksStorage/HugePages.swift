// Part of QTasks. License: see LICENSE.

import Glibc

/// Memory in pages of 2 MiB instead of 4 KiB, where the kernel has some.
///
/// Tables of many tasks are read at places that nobody foresees: with small pages each look waits for
/// the page table as well as for the memory, and each page costs a fault of its own while the table grows.
enum HugePages {
    /// The size that arrays should have which ask for this, in bytes.
    static let bytes = 2 << 20

    /// Asks for them for what an array has reserved and not written yet; see `madvise(2)`,
    /// `MADV_HUGEPAGE`.
    static func ask<Element>(for array: inout ContiguousArray<Element>) {
        let reserved = array.capacity * MemoryLayout<Element>.stride
        array.withUnsafeMutableBufferPointer { elements in
            guard let base = elements.baseAddress else { return }
            let page = UInt(getpagesize())
            let start = (UInt(bitPattern: base) + page - 1) / page * page
            let end = (UInt(bitPattern: base) + UInt(reserved)) / page * page
            guard start < end else { return }
            // a kernel without them has only small ones to give
            _ = madvise(UnsafeMutableRawPointer(bitPattern: start), Int(end - start), MADV_HUGEPAGE)
        }
    }
}
