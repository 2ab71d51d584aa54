// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksProcess

/// Runs seeds in one child process a core, and sums up what they say.
final class SimulatorChildren {
    /// One of them.
    private final class Child {
        let process: ChildProcess
        let output: Int32
        var words = ChildWords()
        var totals = RunTotals()
        var hasEnded = false
        var isOpen = true

        init(_ process: ChildProcess, output: Int32) {
            self.process = process
            self.output = output
        }
    }

    private var children: [Child] = []
    private let listener: SeedRunner.Listener
    private let found: (PlantFind) -> Void

    init(
        telling listener: SeedRunner.Listener,
        found: @escaping (PlantFind) -> Void = { _ in }
    ) {
        self.listener = listener
        self.found = found
    }

    /// How many there are to be.
    static var count: Int { max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))) }

    /// Starts one more.
    ///
    /// - Throws: ``SimulatorError`` where there can't be one.
    func start(_ arguments: [String]) throws {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { throw SimulatorError("no pipe: errno \(errno)") }
        defer { close(ends[1]) }
        do {
            let process = try ChildProcess.spawn(arguments: arguments, stdout: ends[1])
            children.append(Child(process, output: ends[0]))
        } catch {
            close(ends[0])
            throw SimulatorError("\(error)")
        }
    }

    /// Listens until all have ended.
    ///
    /// - Parameter next: Called when one has ended: the arguments of one that is to run in its place.
    /// - Returns: What came of all seeds.
    /// - Throws: ``SimulatorError`` where one ended before it was done, such as by a trap in a core.
    func wait(next: () -> [String]? = { nil }) throws -> RunTotals {
        while children.contains(where: \.isOpen) {
            var entries = children.filter(\.isOpen).map {
                pollfd(fd: $0.output, events: Int16(POLLIN), revents: 0)
            }
            guard poll(&entries, nfds_t(entries.count), -1) > 0 else { continue }
            for entry in entries where entry.revents != 0 {
                for child in children where child.isOpen && child.output == entry.fd {
                    read(child)
                    if !child.isOpen, let arguments = next() { try start(arguments) }
                }
            }
        }
        if children.contains(where: { !$0.hasEnded }) {
            throw SimulatorError(
                "a child ended before it had run its seeds; see what it wrote above"
            )
        }
        return totals
    }

    private var totals: RunTotals { children.reduce(into: RunTotals()) { $0 += $1.totals } }

    private func read(_ child: Child) {
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        let count = Glibc.read(child.output, &buffer, buffer.count)
        guard count > 0 else {
            guard count == 0 || errno != EINTR else { return }
            child.isOpen = false
            close(child.output)
            return
        }
        child.words.append(buffer.prefix(count))
        while let word = child.words.next() {
            switch word {
            case .totals(let totals):
                child.totals = totals
                listener.progressed(self.totals)
            case .report(let text): listener.reported(text)
            case .find(let find): found(find)
            case .end: child.hasEnded = true
            case .nonsense(let line): listener.reported(line)
            }
        }
    }
}

/// Why the simulator itself could not go on.
struct SimulatorError: Error, CustomStringConvertible {
    var description: String

    init(_ description: String) {
        self.description = description
    }
}
