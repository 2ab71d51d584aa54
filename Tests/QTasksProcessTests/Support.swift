// Part of QTasks. License: see LICENSE.

import Glibc
import Testing

@testable import QTasksProcess

/// Long enough for a busy machine; reached only by a failure.
let patienceMilliseconds: Int32 = 20_000

/// Waits for the child's end and reaps it.
func waitForEnd(_ child: ChildProcess) -> ExitReport? {
    guard Polling.isReadable(child.pidfd, withinMilliseconds: patienceMilliseconds) else {
        return nil
    }
    return child.reap()
}

/// Waits until that process has ended, reaped or not.
func hasEndedInTime(_ handle: PidDescriptor) -> Bool {
    Polling.isReadable(handle.descriptor, withinMilliseconds: patienceMilliseconds)
}

/// Starts a shell script, and reads the first line it prints.
func startShell(_ script: String) throws -> (child: ChildProcess, line: String) {
    var ends: [Int32] = [-1, -1]
    try #require(pipe(&ends) == 0)
    defer { close(ends[0]) }
    let child = try ChildProcess.spawn(
        executable: "/bin/sh",
        arguments: ["-c", script],
        stdout: ends[1]
    )
    close(ends[1])
    var line: [UInt8] = []
    var byte: UInt8 = 0
    while Polling.isReadable(ends[0], withinMilliseconds: patienceMilliseconds),
        read(ends[0], &byte, 1) == 1, byte != UInt8(ascii: "\n")
    {
        line.append(byte)
    }
    return (child, String(decoding: line, as: UTF8.self))
}

/// Starts a shell script that prints a pid, and gives a handle of that process.
func startShellWithGrandchild(_ script: String) throws -> (ChildProcess, Int32, PidDescriptor) {
    let (child, line) = try startShell(script)
    let pid = try #require(Int32(line), "the script printed '\(line)'")
    return (child, pid, try #require(try PidDescriptor.open(pid: pid)))
}
