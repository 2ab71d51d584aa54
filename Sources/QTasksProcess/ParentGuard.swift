// Part of QTasks. License: see LICENSE.

import CLinux
import Glibc

/// Ties this process's life to its parent's, in the kernel: no orphan can be left over, not even
/// one that is stopped by SIGSTOP.
package enum ParentGuard {
    /// From here on this process is killed (SIGKILL) when the parent ends.
    ///
    /// First thing in a role.
    ///
    /// The kernel watches the *thread* that started this process, not the parent as such (see
    /// `PR_SET_PDEATHSIG` in `prctl(2)`): the parent must spawn from a thread that lives as long as
    /// it does. The guard doesn't pass to this process's own children.
    ///
    /// Where the parent had ended before, this doesn't return: the process ends with code 0,
    /// because an orphan is no failure that anyone is left to hear of.
    ///
    /// - Parameter parent: The pid of who started this process, as it was handed over.
    package static func arm(expectedParent parent: Int32) {
        guard clinux_set_parent_death_signal(SIGKILL) == 0 else {
            preconditionFailure("PR_SET_PDEATHSIG takes any valid signal")
        }
        // After arming, so that it can't end unseen in between. `_exit`: nothing is worth a flush.
        if getppid() != parent { _exit(0) }
    }
}
