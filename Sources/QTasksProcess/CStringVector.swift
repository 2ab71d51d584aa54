// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc

/// Strings as `execve(2)` takes them: an array of pointers that ends with a null pointer.
struct CStringVector: ~Copyable {
    let pointer: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>
    private let count: Int

    /// Strings must not contain NUL: what follows it would be cut off.
    init(_ strings: [String]) {
        self.init(owning: strings.map { Self.copy($0) })
    }

    /// This process's environment without `removed`, with `added` in place of what had those names.
    init(environment added: [String: String], removing removed: Set<String>) {
        var entries = Self.inherited { name in added[name] == nil && !removed.contains(name) }
        for (name, value) in added {
            entries.append(Self.copy("\(name)=\(value)"))
        }
        self.init(owning: entries)
    }

    private init(owning strings: [UnsafeMutablePointer<CChar>]) {
        count = strings.count
        pointer = .allocate(capacity: count + 1)
        for (index, string) in strings.enumerated() {
            (pointer + index).initialize(to: string)
        }
        (pointer + count).initialize(to: nil)
    }

    deinit {
        for index in 0..<count { free(pointer[index]) }
        pointer.deinitialize(count: count + 1)
        pointer.deallocate()
    }

    /// Byte for byte, because a variable's value need not be UTF-8.
    private static func inherited(
        where isWanted: (String) -> Bool
    ) -> [UnsafeMutablePointer<CChar>] {
        var entries: [UnsafeMutablePointer<CChar>] = []
        var next = clinux_environment()
        while let place = next, let entry = place.pointee {
            next = place + 1
            let nameBytes = UnsafeRawBufferPointer(start: entry, count: strcspn(entry, "="))
            if isWanted(String(decoding: nameBytes, as: UTF8.self)), let copy = strdup(entry) {
                entries.append(copy)
            }
        }
        return entries
    }

    private static func copy(_ string: String) -> UnsafeMutablePointer<CChar> {
        precondition(!string.utf8.contains(0), "no argument or variable can contain NUL")
        guard let copy = strdup(string) else { preconditionFailure("out of memory") }
        return copy
    }
}
