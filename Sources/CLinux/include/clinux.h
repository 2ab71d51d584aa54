// Part of QTasks. License: see LICENSE.
//
// What Swift's Glibc module lacks: Linux system calls, a few constants, and CRC32C by the CPU's own
// instruction. Thin on purpose: no policy lives here. Every function sets errno as its manual page
// says and returns -1 on failure unless noted.

#ifndef CLINUX_H
#define CLINUX_H

#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/types.h>

/// pidfd_open(2): a descriptor that becomes readable when the process ends. Close-on-exec.
int clinux_pidfd_open(pid_t pid);

/// pidfd_send_signal(2): signals exactly the process the descriptor stands for.
int clinux_pidfd_send_signal(int pidfd, int signal);

/// prctl(PR_SET_PDEATHSIG): the signal this process gets when the *thread* that started it ends.
int clinux_set_parent_death_signal(int signal);

/// prctl(PR_SET_CHILD_SUBREAPER): orphans below this process become its children.
int clinux_set_child_subreaper(void);

/// prctl(PR_SET_NAME): the calling thread's name as `ps` shows it; 15 bytes at most.
int clinux_set_name(const char *name);

/// sched_setattr(2), `sched_runtime` of a thread without real-time priority (Linux 6.12): whether others wait for
/// what the calling thread does.
///
/// It then runs for 0.2 ms before it is another one's turn instead of 1 to 3 ms, and gets a processor the sooner
/// when it wakes up, at the same share of it in all. Threads and processes that it starts from then on inherit
/// it, or (SCHED_FLAG_RESET_ON_FORK) none ever does again. Earlier kernels take no notice.
int clinux_set_awaited(int is_awaited, int is_inherited);

/// malloc_trim(3): memory that is free goes back to the system; nothing where the C library has no such call.
void clinux_return_memory(void);

/// SO_PEERPIDFD (Linux 6.5): a pidfd of whoever is at the other end of a Unix socket. Close-on-exec.
int clinux_peer_pidfd(int fd);

/// SO_PEERCRED: the pid at the other end of a Unix socket, 0 if it isn't visible from here.
int clinux_peer_credentials(int fd, pid_t *pid, uid_t *uid);

/// wait4(2) with WNOHANG as wanted; fills what it cost. Returns the pid, 0 if none ended, or -1.
pid_t clinux_wait4(pid_t pid, int *status, int options, struct rusage *usage);

/// Starts a program as the leader of its own process group with an empty signal mask and default
/// dispositions; descriptors above 2 don't pass. See posix_spawn(3).
/// `stdin_fd`, `stdout_fd`, `stderr_fd`: what becomes 0, 1 and 2; -1 keeps the parent's.
/// Returns 0, or the error number (errno isn't set).
int clinux_spawn(pid_t *pid, const char *path, char *const argv[], char *const envp[],
                 int stdin_fd, int stdout_fd, int stderr_fd);

/// Status of wait(2), taken apart: macros that Swift can't import.
int clinux_exited(int status);
int clinux_exit_code(int status);
int clinux_signaled(int status);
int clinux_term_signal(int status);

/// CRC-32C (Castagnoli, RFC 3720 appendix B.4) of `count` bytes, continued from `crc`; begin with 0.
/// Uses the SSE 4.2 or ARMv8 instruction where the CPU has it, a table elsewhere.
uint32_t clinux_crc32c(uint32_t crc, const void *bytes, size_t count);

/// Has the CPU fetch the cache line of `place`, which will be written to; doesn't wait, and never fails.
static inline void clinux_prefetch(const void *place) { __builtin_prefetch(place, 1); }

/// The same by table alone, so that a test can hold the two against each other.
uint32_t clinux_crc32c_table(uint32_t crc, const void *bytes, size_t count);

/// environ(7): what the process hands to its children; ends with NULL. Not while another thread sets it.
char **clinux_environment(void);

/// waitid(2) with WNOHANG and WNOWAIT: a child that ended and is left to be waited for; `pid` 0 asks
/// about any. Returns its pid, 0 if none ended, or -1.
pid_t clinux_peek_child(pid_t pid);

/// statfs(2): the number in `f_type` of the file system that holds `path`, or -1.
long clinux_file_system_type(const char *path);

/// sync_file_range(2): writes out a range of a file's bytes and waits for it. No size, no name, no disk's cache:
/// nothing is durable by it.
int clinux_write_out(int fd, int64_t offset, int64_t count);

/// ppoll(2): waits until `fd` can be read, `nanoseconds` at most. 1: it can; 0: it can't yet; -1: see errno.
int clinux_wait_readable(int fd, int64_t nanoseconds);

/// From now on `signal` writes its number, one byte, to `fd`, in whichever thread it arrives; system
/// calls go on (SA_RESTART). `fd` should not block: what finds it full is dropped. See sigaction(2).
int clinux_catch_signal(int signal, int fd);

/// Gives `signal` its default disposition again.
int clinux_release_signal(int signal);

/// pipe2(2): a pipe whose ends don't block and don't pass to what this process executes.
int clinux_pipe(int ends[2]);

/// A descriptor that is readable while something waits for the main thread (Swift's main actor), or -1
/// where this libdispatch has none. Main thread only; Foundation's run loop uses the same entry points.
int clinux_main_queue_descriptor(void);

/// Runs what waits for the main thread. Main thread only.
void clinux_drain_main_queue(void);

#endif
