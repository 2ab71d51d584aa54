// Part of QTasks. License: see LICENSE.

import Glibc

/// A fresh folder, removed with all that is in it when the last reference to it goes.
package final class TemporaryFolder: Sendable {
    /// Where they are made.
    ///
    /// `Tests/run` sets TMPDIR and removes it whole, with whatever a process that was killed left there.
    package static var parent: String {
        getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    }

    package let path: String

    /// Makes one.
    ///
    /// - Parameter name: What its name begins with: it tells who left it there, where somebody did.
    /// - Throws: ``ProcessError/system(call:subject:code:)``.
    package init(_ name: String = "qtasks") throws(ProcessError) {
        let parent = Self.parent
        var template = Array("\(parent)/\(name)-XXXXXX".utf8CString)
        guard let made = mkdtemp(&template) else { throw .last("mkdtemp", parent) }
        path = String(cString: made)
    }

    deinit {
        remove()
    }

    /// Removes it now.
    package func remove() {
        Self.remove(path)
    }

    /// Removes a file, or a folder with all that is in it; what can't be removed stays.
    package static func remove(_ path: String) {
        remove(path, in: AT_FDCWD)
    }

    /// Never follows a link, and takes names as the bytes that they are.
    private static func remove(_ name: UnsafePointer<CChar>, in parent: Int32) {
        if unlinkat(parent, name, 0) == 0 { return }
        let descriptor = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
        guard descriptor >= 0 else { return }
        guard let folder = fdopendir(descriptor) else {
            close(descriptor)
            return
        }
        while let entry = readdir(folder) {
            withUnsafePointer(to: &entry.pointee.d_name) { field in
                field.withMemoryRebound(to: CChar.self, capacity: 256) {
                    if strcmp($0, ".") != 0, strcmp($0, "..") != 0 { remove($0, in: descriptor) }
                }
            }
        }
        closedir(folder)
        unlinkat(parent, name, AT_REMOVEDIR)
    }
}
