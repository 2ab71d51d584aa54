// Part of QTasks. License: see LICENSE.

import Glibc
import QTasksProcess
import Testing

@testable import wordcount

@Suite struct `Walking folders` {
    /// What `find PATH... -type f` prints, in the order of the bytes.
    private func find(_ paths: [String]) throws -> [[UInt8]] {
        let printed = try output(of: ["find"] + paths + ["-type", "f", "-print0"])
        return printed.split(separator: 0).map(Array.init)
            .sorted { $0.lexicographicallyPrecedes($1) }
    }

    private func walked(_ paths: [String]) -> [[UInt8]] {
        FileWalk(paths.map { ByteText($0) }).files.map(\.bytes)
    }

    private func makeTree() throws -> TemporaryFolder {
        let scratch = try TemporaryFolder()
        for folder in ["a", "a/deep", "a/deep/er", ".hidden", "empty", "with space"] {
            try scratch.makeFolder(folder)
        }
        let names = [
            "plain", ".dot", "a/1", "a/deep/er/2", ".hidden/.3", "with space/four 4", "new\nline",
            "-n", "größe",
        ]
        for name in names { _ = try scratch.write("text", to: name) }
        _ = try scratch.write([1], to: Array("a/".utf8) + [0xFF, 0xFE, 0x20])
        try scratch.makeLink("link-to-file", to: "plain")
        try scratch.makeLink("link-to-folder", to: "a")
        try scratch.makeLink("a/loop", to: "..")
        try scratch.makeLink("broken", to: "nowhere")
        try #require(mkfifo("\(scratch.path)/pipe", 0o644) == 0)
        return scratch
    }

    @Test func `finds what find finds`() throws {
        let scratch = try makeTree()
        let expected = try find([scratch.path])
        #expect(expected.count == 10)
        #expect(walked([scratch.path]) == expected)
    }

    @Test func `writes paths as find writes them`() throws {
        let scratch = try makeTree()
        for form in ["\(scratch.path)/", "\(scratch.path)/a/..", "\(scratch.path)/./.hidden"] {
            #expect(walked([form]) == (try find([form])))
        }
    }

    @Test func `takes the paths in turn, repeated ones again`() throws {
        let scratch = try makeTree()
        let (a, plain) = ("\(scratch.path)/a", "\(scratch.path)/plain")
        #expect(
            walked([plain, a, plain]) == [Array(plain.utf8)] + walked([a]) + [Array(plain.utf8)]
        )
    }

    @Test(arguments: ["link-to-file", "link-to-folder", "broken", "pipe"])
    func `passes over what is no file, as find does, and says so`(name: String) throws {
        let scratch = try makeTree()
        let path = "\(scratch.path)/\(name)"
        let walk = FileWalk([ByteText(path)])
        #expect(try find([path]).isEmpty)
        #expect(walk.files.isEmpty)
        #expect(walk.failures.isEmpty)
        #expect(walk.passedOver.map(\.path) == [ByteText(path)])
    }

    @Test func `tells of a path that is not there`() throws {
        let scratch = try TemporaryFolder()
        let missing = ByteText("\(scratch.path)/missing")
        let walk = FileWalk([missing])
        #expect(walk.files.isEmpty)
        #expect(walk.failures == [.init(path: missing, reason: "No such file or directory")])
    }

    @Test func `makes relative paths absolute`() {
        let folder = ByteText("/home/me")
        #expect(ByteText("a/b").absolute(in: folder) == ByteText("/home/me/a/b"))
        #expect(ByteText("/a/b").absolute(in: folder) == ByteText("/a/b"))
        #expect(ByteText("a").absolute(in: ByteText("/")) == ByteText("/a"))
    }
}
