# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What the process that asks NSS for accounts may ask of the kernel (broker/names). Built into the daemon. Wider than
# the broker's own filter, for the libraries that /etc/nsswitch.conf names are not ours: they are loaded when they are
# needed, and speak to servers. So what counts here is what is not in it: no exec, no bpf(2), no signals, no other
# process, no namespace, nothing made, changed or removed in the file system. It holds no descriptor of the broker's but
# its end of a socket pair, and no capability.

default: errno ENOSYS
arguments: errno EPERM
foreign: kill

kill execve execveat
kill ptrace process_vm_readv process_vm_writev
kill init_module finit_module delete_module kexec_load kexec_file_load
kill bpf

# Memory. Libraries are mapped from their files; none of it is writable and executable at once.
allow brk munmap mremap madvise mincore
allow mmap arg2 & PROT_WRITE|PROT_EXEC in {0, PROT_WRITE, PROT_EXEC}
allow mprotect arg2 !& PROT_EXEC

# Threads, and the fork that puts another process in the place of one that has ended or hangs.
allow clone arg0 !& CLONE_NEWNS|CLONE_NEWCGROUP|CLONE_NEWUTS|CLONE_NEWIPC|CLONE_NEWUSER|CLONE_NEWPID|CLONE_NEWNET|CLONE_NEWTIME
errno ENOSYS clone3
allow fork wait4 set_robust_list get_robust_list rseq futex sched_yield sched_getaffinity exit exit_group set_tid_address
allow rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall
allow capget capset  # why: what is not permitted cannot be raised
allow prctl arg0 in {PR_SET_NAME, PR_GET_NAME, PR_SET_PDEATHSIG, PR_SET_VMA}
errno EPERM kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal

# Who and where am I.
allow getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getgroups getrandom uname sysinfo getrusage
allow prlimit64 arg0 == 0 and arg2:64 == 0
allow clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time

# Waiting, reading and writing.
allow epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 poll ppoll select pselect6
allow eventfd2 timerfd_create timerfd_settime pipe2 dup dup2 dup3
allow read write readv writev pread64 pwrite64 lseek close close_range
allow fcntl arg1 in {F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD, F_DUPFD_CLOEXEC, F_DUPFD_QUERY, F_GETLK, F_SETLK, F_SETLKW, F_ADD_SEALS, F_GET_SEALS}
allow ioctl arg1 in {TCGETS, FIONREAD, FIONBIO}
allow memfd_create inotify_init1 inotify_add_watch inotify_rm_watch

# Files are read.
allow open arg1 & O_ACCMODE|O_CREAT|O_TRUNC == O_RDONLY
allow openat arg2 & O_ACCMODE|O_CREAT|O_TRUNC == O_RDONLY
allow stat fstat lstat newfstatat statx statfs fstatfs readlink readlinkat access faccessat faccessat2 getdents64 getcwd
allow flock fadvise64

# Sockets: to servers of accounts on this machine, or, where the unit lets them, elsewhere.
allow socket arg0 == AF_UNIX
allow socket arg0 in {AF_INET, AF_INET6} and arg1 & SOCK_TYPE_MASK in {SOCK_STREAM, SOCK_DGRAM} and arg2 in {0, IPPROTO_TCP, IPPROTO_UDP}
allow socket arg0 == AF_NETLINK and arg2 == NETLINK_ROUTE
allow connect bind shutdown getsockname getpeername getsockopt
allow socketpair arg0 == AF_UNIX
allow setsockopt arg1 == SOL_SOCKET and arg2 in {SO_LINGER, SO_KEEPALIVE, SO_REUSEADDR, SO_PASSCRED, SO_PASSPIDFD, SO_TIMESTAMP, SO_SNDBUF, SO_SNDBUFFORCE, SO_RCVBUF, SO_RCVBUFFORCE, SO_RCVTIMEO, SO_SNDTIMEO}
allow setsockopt arg1 == IPPROTO_TCP and arg2 in {TCP_NODELAY, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT}
allow setsockopt arg1 in {IPPROTO_IP, IPPROTO_IPV6}
allow sendmsg sendmmsg sendto recvmsg recvmmsg recvfrom
