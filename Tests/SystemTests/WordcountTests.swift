// Part of QTasks. License: see LICENSE.

import Glibc
import Testing

extension `A running system` {
    @MainActor
    @Suite(.serialized, .timeLimit(.minutes(1)))
    struct `The wordcount example` {
        @Test(arguments: [false, true])
        func `counts odd files as wc does, and leaves no process`(killing: Bool) async throws {
            try await Bed.use { bed in
                let files = bed.folder + "/files"
                try Self.makeOddFiles(in: files)
                let count =
                    ["count", files, "--workers", "2"] + (killing ? ["--kill-a-worker"] : [])
                let counted = try bed.run(Tool.wordcount.path, count)
                #expect(counted.code == 0, "\(counted.log)")
                #expect(Self.table(counted.output) == Self.table(try Self.wc(bed, files)))
                #expect(counted.output.split(separator: "\n").last?.hasSuffix(" total") == true)
                if killing {
                    let pattern =
                        /killed worker \d+ \(SIGKILL\) with [1-9]\d* running tasks, all run elsewhere/
                    #expect(counted.log.contains(pattern), "\(counted.log)")
                }
                #expect(ProcFile.names(in: bed.folder).sorted() == ["events", "files", "gate"])
            }
        }

        /// Words, bytes that are none, and names that hide.
        private static func makeOddFiles(in folder: String) throws {
            mkdir(folder, 0o700)
            mkdir(folder + "/.hidden", 0o700)
            let files: [String: [UInt8]] = [
                "empty": [], "no end": Array("one two".utf8), "white": [9, 10, 11, 12, 13, 32],
                "zeros": [0, 65, 0, 66, 32, 0, 10], "high": [0xE4, 32, 0xFF, 65, 0xA0, 66, 10],
                ".hidden/in": Array("found too\n".utf8), "ünï": Array("ä ö\n".utf8),
                "large": (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 7) },
            ]
            for (name, bytes) in files { try ProcFile.write(bytes, to: folder + "/" + name) }
            symlink("large", folder + "/link")
            for number in 0..<40 {
                try ProcFile.write("file \(number)\n", to: folder + "/file-\(number)")
            }
        }

        /// What `wc` says of the same files.
        private static func wc(_ bed: Bed, _ folder: String) throws -> String {
            let line = "find \"$0\" -type f -print0 | LC_ALL=C wc -lwc --files0-from=-"
            return try bed.run("/bin/sh", ["-c", line, folder]).output
        }

        /// A table's lines, in any order, without the padding of its columns.
        private static func table(_ text: String) -> [String] {
            text.split(separator: "\n").map { line in
                line.split(separator: " ", omittingEmptySubsequences: true).joined(separator: " ")
            }.sorted()
        }
    }
}
