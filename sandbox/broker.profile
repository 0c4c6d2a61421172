# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What sockbrokerd may ask of the kernel once it serves. Built into the daemon and installed when its program is loaded
# and its capabilities are dropped, before the first message is read: for all of its threads, on top of the unit's own
# filter, which has to allow set-up as well. `sockbrokerd --dump-seccomp` shows it as it is built in.
#
# An allow-list: every line is a call that the broker, libc or libsystemd really make. Names of accounts are looked up
# by another process, names.profile. What is not named does not exist (ENOSYS), for libraries fall back to what there
# is; what is named with other arguments is refused (EPERM).

default: errno ENOSYS
arguments: errno EPERM
foreign: kill

# Nobody makes these by mistake: whoever does is not the broker any more, and the process ends. No exec, so that no
# other program and no file capability comes in; no look into another process; no code for the kernel.
kill execve execveat
kill ptrace process_vm_readv process_vm_writev
kill init_module finit_module delete_module kexec_load kexec_file_load

# Memory, and none of it new and executable: what runs is what was loaded at the start.
allow brk munmap mremap madvise
allow mmap arg2 !& PROT_EXEC
allow mprotect arg2 !& PROT_EXEC

# Threads: the exact flags of pthread_create(3), so no process and no namespace. clone3 hides its flags in memory, where
# no filter can see them; libc takes clone when it is not there.
allow clone arg0 == CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_SIGHAND|CLONE_THREAD|CLONE_SYSVSEM|CLONE_SETTLS|CLONE_PARENT_SETTID|CLONE_CHILD_CLEARTID
errno ENOSYS clone3
allow set_robust_list rseq futex sched_yield sched_getaffinity exit exit_group
allow rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall
# A thread gives its capabilities up, and names itself. Neither raises anything: what is not permitted cannot be.
allow capget capset  # why: what is not permitted cannot be raised
allow prctl arg0 in {PR_SET_NAME, PR_GET_NAME}
# No signal to anybody: abort(3) ends by an invalid instruction instead. The exception is signal 0, which asks whether a
# registrant still lives.
errno EPERM kill tkill tgkill
allow pidfd_open
allow pidfd_send_signal arg1 == 0

# Who and where am I.
allow getpid gettid getuid geteuid getgid getegid getrandom uname sysinfo
allow prlimit64 arg0 == 0 and arg2:64 == 0  # reads a limit of its own, sets none
allow clock_gettime clock_getres gettimeofday

# The event loop.
allow epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 poll ppoll
allow eventfd2 signalfd4 timerfd_create timerfd_settime pipe2
allow read write readv writev pread64 lseek close
allow fcntl arg1 in {F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, F_DUPFD_QUERY, F_ADD_SEALS, F_GET_SEALS}
allow ioctl arg1 in {TCGETS, PIDFD_GET_INFO}  # isatty(3), which stdio asks of each file; who sends
allow memfd_create  # journal entries too large for a datagram; it can be neither executed nor mapped so

# Files: policies and /proc. To write, only a file that did not exist, as the copy of the policy is
# written: no sysctl, no /proc/self/mem, nobody's file. Landlock says where.
allow openat arg2 & O_ACCMODE|O_CREAT|O_TRUNC == O_RDONLY
allow openat arg2 == O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC
allow fstat newfstatat statx statfs fstatfs readlink readlinkat access faccessat faccessat2 getdents64
allow fsync rename renameat unlink unlinkat

# Sockets: UNIX for the journal, PID 1 and D-Bus; route netlink for interfaces and routes. Those of services never come
# here. No listen(2) and no accept(2), and of socket options only those of UNIX sockets.
allow socket arg0 == AF_UNIX
allow socketpair arg0 == AF_UNIX  # a hand's end goes to the process that makes it
allow socket arg0 == AF_NETLINK and arg2 == NETLINK_ROUTE
allow connect bind shutdown getsockname getpeername
allow getsockopt  # reads only
allow setsockopt arg1 == SOL_SOCKET and arg2 in {SO_PASSCRED, SO_PASSPIDFD, SO_PASSSEC, SO_PASSRIGHTS, SO_TIMESTAMP, SO_SNDBUF, SO_SNDBUFFORCE, SO_RCVBUF, SO_RCVBUFFORCE}
allow sendmsg sendto recvmsg recvfrom

# The maps that are open: look up, write, delete. PROG_TEST_RUN asks one slot whether its socket still takes lookups,
# by a program that is never attached. OBJ_GET_INFO_BY_FD tells whether the link is attached. LINK_DETACH is unload.
# LINK_CREATE and OBJ_PIN put a program that is loaded already into the cgroup of a unit (UdpReply=original), and its
# link beside the maps. No program and no map is made here, and no pin opened.
allow bpf arg0 in {BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM, BPF_MAP_DELETE_ELEM, BPF_PROG_TEST_RUN, BPF_OBJ_GET_INFO_BY_FD, BPF_LINK_DETACH, BPF_LINK_CREATE, BPF_OBJ_PIN}
# Waits for dispatch programs that still run.
allow membarrier arg0 == MEMBARRIER_CMD_GLOBAL
