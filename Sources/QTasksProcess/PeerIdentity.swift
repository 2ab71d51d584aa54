// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc

/// Who is at the other end of a Unix socket, by the kernel's word and not by its own.
package enum PeerIdentity: Sendable {
    /// A process of this host and pid namespace. The handle's descriptor tells of its end. It
    /// counts as the worker that says hello only if that names the same pid and start time.
    case local(ProcessIdentity, PidDescriptor)

    /// It can't be watched: it is on another host, in another pid namespace, or the kernel or a
    /// sandbox doesn't let us. Heartbeats must do.
    case remote

    /// It was a process here that has ended and been waited for.
    case gone

    /// Asks who connected, or, for the connecting side, who listens.
    ///
    /// - Parameter descriptor: The connection's, such as libzmq's `ZMQ_SRCFD`; stays the caller's.
    ///   One that isn't a Unix socket is `remote`.
    package init(descriptor: Int32) {
        var pid: pid_t = 0
        var user: uid_t = 0
        // A pid of 0 means one that isn't visible in this pid namespace.
        guard clinux_peer_credentials(descriptor, &pid, &user) == 0, pid > 0 else {
            self = .remote
            return
        }
        let direct = clinux_peer_pidfd(descriptor)
        if direct >= 0 {
            self.init(pid: pid, handle: PidDescriptor(owning: direct))
        } else {
            self.init(withoutPeerDescriptor: pid)
        }
    }

    // Before Linux 6.5 the number may have gone to another process since the peer connected; the
    // start time that the caller compares shows it.
    private init(withoutPeerDescriptor pid: Int32) {
        do {
            if let handle = try PidDescriptor.open(pid: pid) {
                self.init(pid: pid, handle: handle)
            } else {
                self = .gone
            }
        } catch {
            self = .remote  // EPERM or ENOSYS: an old seccomp profile, gVisor
        }
    }

    private init(pid: Int32, handle: PidDescriptor) {
        if let identity = ProcessIdentity.of(pid: pid), !handle.hasEnded || handle.kill(0) {
            // After /proc was read it still ran, or signal 0 reached it, so it isn't waited for:
            // the number, and with it what /proc said, is its own.
            self = .local(identity, handle)
        } else {
            self = handle.hasEnded ? .gone : .remote
        }
    }
}
