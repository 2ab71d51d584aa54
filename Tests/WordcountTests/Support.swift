// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksProcess
import Testing

@testable import wordcount

extension TemporaryFolder {
    /// Makes a file with these bytes in it; its folder must be there.
    func write(_ bytes: [UInt8], to name: [UInt8]) throws -> ByteText {
        let file = ByteText(Array(path.utf8) + Array("/".utf8) + name)
        let descriptor = open(file.cString, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        try #require(descriptor >= 0, "\(file.escaped): \(FileError.latest)")
        defer { close(descriptor) }
        var written = 0
        while written < bytes.count {
            let count = bytes[written...].withUnsafeBytes {
                Glibc.write(descriptor, $0.baseAddress, $0.count)
            }
            try #require(count > 0, "\(file.escaped): \(FileError.latest)")
            written += count
        }
        return file
    }

    func write(_ text: String, to name: String) throws -> ByteText {
        try write(Array(text.utf8), to: Array(name.utf8))
    }

    func makeFolder(_ name: String) throws {
        try #require(mkdir("\(path)/\(name)", 0o755) == 0, "\(name): \(FileError.latest)")
    }

    func makeLink(_ name: String, to target: String) throws {
        try #require(symlink(target, "\(path)/\(name)") == 0, "\(name): \(FileError.latest)")
    }
}

/// What a command prints, run in the C locale; the bytes may be no text.
///
/// It prints to a file that it opens itself: a pipe could be inherited by what another test starts.
func output(of command: [String]) throws -> [UInt8] {
    let folder = try TemporaryFolder("wordcount-output")
    let file = "\(folder.path)/output"
    let descriptor = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    try #require(descriptor >= 0, "open: \(FileError.latest)")
    defer {
        close(descriptor)
        folder.remove()  // not before: the folder goes with its last use
    }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 1, file, O_WRONLY, 0)

    var pid: pid_t = 0
    let arguments = (["env", "LC_ALL=C"] + command).map { strdup($0) }
    defer { arguments.forEach { free($0) } }
    let code = posix_spawnp(&pid, "env", &actions, nil, arguments + [nil], environ)
    try #require(code == 0, "\(command): \(FileError(code: code))")
    var status: Int32 = 0
    while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
    try #require(status == 0, "\(command) ended with status \(status)")
    return try contents(of: descriptor)
}

private func contents(of descriptor: Int32) throws -> [UInt8] {
    var bytes: [UInt8] = []
    var piece = [UInt8](repeating: 0, count: 1 << 16)
    while true {
        let count = read(descriptor, &piece, piece.count)
        try #require(count >= 0, "read: \(FileError.latest)")
        if count == 0 { return bytes }
        bytes += piece[..<count]
    }
}

/// SplitMix64: the same seed, the same bytes.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) {
        state = seed
    }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
        return mixed ^ mixed >> 31
    }

    mutating func bytes(_ count: Int, from alphabet: [UInt8]) -> [UInt8] {
        (0..<count).map { _ in alphabet[Int.random(in: 0..<alphabet.count, using: &self)] }
    }
}
