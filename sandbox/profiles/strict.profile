# SPDX-License-Identifier: LGPL-2.1-or-later
#
# For a service that gets all its sockets passed and makes none: it can accept, send and receive, and do nothing that
# would reach a socket of another address. No connect(2) either, so that a datagram socket takes nobody's flow, and so
# no sd_notify(3), syslog(3) or name service. Language: sockbroker-run(1). What it does not stop: sandbox.md in
# /usr/share/doc/sockbroker. A call that no line names does not exist, so that programs and the C library take their
# older ways; one that is here, with other arguments, is not permitted. Add to it in strict.profile.d/*.profile, not
# here.

default: errno ENOSYS
arguments: errno EPERM
foreign: errno ENOSYS

# Files.
allow read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek _llseek close close_range
allow stat fstat lstat newfstatat fstatat64 stat64 fstat64 lstat64 statx access faccessat faccessat2 readlink readlinkat
allow statfs fstatfs statfs64 fstatfs64 getdents getdents64 getcwd chdir fchdir umask
allow dup dup2 dup3 pipe pipe2 flock fsync fdatasync sync_file_range syncfs sync
allow truncate ftruncate truncate64 ftruncate64 fallocate fadvise64 fadvise64_64 readahead
allow rename renameat renameat2 link linkat symlink symlinkat unlink unlinkat rmdir
allow chown fchown lchown fchownat utime utimes utimensat futimesat
allow getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr
allow setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr
allow sendfile sendfile64 splice tee vmsplice copy_file_range memfd_create
allow inotify_init inotify_init1 inotify_add_watch inotify_rm_watch

# No file becomes setuid or setgid. Where open(2) creates nothing, its mode is whatever was in the register. 0x400040:
# O_CREAT and the bit of O_TMPFILE; openat2 has its arguments in memory, where no filter sees them.
allow open arg1 !& 0x400040
allow open arg2 !& S_ISUID|S_ISGID
allow openat arg2 !& 0x400040
allow openat arg3 !& S_ISUID|S_ISGID
allow creat arg1 !& S_ISUID|S_ISGID
allow chmod arg1 !& S_ISUID|S_ISGID
allow fchmod arg1 !& S_ISUID|S_ISGID
allow fchmodat arg2 !& S_ISUID|S_ISGID
allow mkdir arg1 !& S_ISUID|S_ISGID
allow mkdirat arg2 !& S_ISUID|S_ISGID
allow mknod arg1 !& S_ISUID|S_ISGID
allow mknodat arg2 !& S_ISUID|S_ISGID

# Waiting.
allow poll ppoll select pselect6 _newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old
allow epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4
allow timerfd_create timerfd_settime timerfd_gettime timer_create timer_settime timer_gettime timer_getoverrun timer_delete
allow nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times getitimer setitimer alarm pause

# Memory: none is writable and executable at once, nor becomes executable later.
allow mmap arg2 & PROT_WRITE|PROT_EXEC in {0, PROT_WRITE, PROT_EXEC}
allow mmap2 arg2 & PROT_WRITE|PROT_EXEC in {0, PROT_WRITE, PROT_EXEC}
allow mprotect arg2 !& PROT_EXEC
allow pkey_mprotect arg2 !& PROT_EXEC
allow pkey_alloc pkey_free
allow munmap mremap madvise msync mincore brk mlock mlock2 mlockall munlock munlockall get_mempolicy membarrier

# Processes and threads, in no namespace of their own. clone3 has its flags in memory: without it the C library takes
# clone.
allow clone arg0 !& CLONE_NEWNS|CLONE_NEWCGROUP|CLONE_NEWUTS|CLONE_NEWIPC|CLONE_NEWUSER|CLONE_NEWPID|CLONE_NEWNET|CLONE_NEWTIME
errno ENOSYS clone3
allow fork vfork execve execveat exit exit_group wait4 waitid waitpid
allow kill tkill tgkill pidfd_open pidfd_send_signal rt_sigaction rt_sigprocmask rt_sigpending rt_sigreturn rt_sigsuspend
allow rt_sigtimedwait rt_sigqueueinfo rt_tgsigqueueinfo sigaltstack restart_syscall sigreturn
allow futex futex_waitv get_robust_list set_robust_list set_tid_address rseq set_thread_area get_thread_area arch_prctl
allow getpid getppid gettid getpgid getpgrp setpgid getsid setsid getuid geteuid getresuid getgid getegid getresgid getgroups
allow capget uname sysinfo getcpu getrusage getrlimit ugetrlimit setrlimit prlimit64 getpriority setpriority getrandom
allow sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_setparam sched_getscheduler sched_setscheduler
allow sched_getattr sched_setattr sched_get_priority_max sched_get_priority_min sched_rr_get_interval
allow personality arg0 in {0, 0xffffffff}  # what it is, and the ordinary one

# A program may shut itself in further.
allow landlock_create_ruleset landlock_add_rule landlock_restrict_self
allow seccomp arg0 in {SECCOMP_SET_MODE_FILTER, SECCOMP_GET_ACTION_AVAIL}

allow prctl arg0 in {PR_SET_NAME, PR_GET_NAME, PR_SET_PDEATHSIG, PR_GET_PDEATHSIG, PR_SET_DUMPABLE, PR_GET_DUMPABLE}
allow prctl arg0 in {PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER, PR_SET_TIMERSLACK, PR_GET_TIMERSLACK}
allow prctl arg0 in {PR_SET_THP_DISABLE, PR_GET_THP_DISABLE, PR_SET_VMA, PR_GET_SPECULATION_CTRL, PR_SET_SPECULATION_CTRL}
allow prctl arg0 in {PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS, PR_SET_SECCOMP, PR_GET_SECCOMP, PR_GET_KEEPCAPS, PR_SET_KEEPCAPS}
allow prctl arg0 in {PR_CAPBSET_READ, PR_GET_SECUREBITS}

allow fcntl arg1 in {F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETLK, F_SETLK, F_SETLKW}
allow fcntl arg1 in {F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW, F_GETPIPE_SZ, F_SETPIPE_SZ, F_ADD_SEALS, F_GET_SEALS}
allow fcntl arg1 in {F_SETOWN, F_GETOWN, F_SETSIG, F_GETSIG}
allow fcntl64 arg1 in {F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETLK, F_SETLK, F_SETLKW}

# What descriptors, terminals and interfaces are; nothing that changes a terminal's input or an interface.
allow ioctl arg1 in {FIONREAD, FIONBIO, FIOCLEX, FIONCLEX, FIOASYNC, SIOCATMARK, SIOCOUTQ}
allow ioctl arg1 in {TCGETS, TCSETS, TCSETSW, TCSETSF, TIOCGWINSZ, TIOCGPGRP, TIOCSPGRP}
allow ioctl arg1 in {0x802c542a, 0x402c542b, 0x402c542c, 0x402c542d}  # TCGETS2, TCSETS2, TCSETSW2, TCSETSF2
allow ioctl arg1 in {SIOCGIFCONF, SIOCGIFNAME, SIOCGIFINDEX, SIOCGIFFLAGS, SIOCGIFADDR, SIOCGIFMTU}

# Sockets that are there already. A pair of local ones is how a program talks to its own processes; not of datagrams,
# for one of those may send to any other socket by its name.
allow socketpair arg0 == AF_UNIX and arg1 & SOCK_TYPE_MASK in {SOCK_STREAM, SOCK_SEQPACKET}
allow listen accept accept4 shutdown getsockname getpeername getsockopt
allow recv recvfrom recvmsg recvmmsg
# MSG_FASTOPEN connects, and a listener that was shut down can be connected.
allow send arg3 !& MSG_FASTOPEN
allow sendto arg3 !& MSG_FASTOPEN
allow sendmsg arg2 !& MSG_FASTOPEN
allow sendmmsg arg3 !& MSG_FASTOPEN

# Options by name, since their values lie in memory. Not here: IP_TRANSPARENT, IP_FREEBIND and those of IPv6 (foreign
# addresses), IP_LOCAL_PORT_RANGE (chooses the port that a bind to port 0 gets), SO_MARK, SO_BINDTODEVICE (routing),
# SO_*BUFFORCE, BPF on sockets, raw headers, IP options, TCP_REPAIR, TCP_ULP, UDP_ENCAP (doors to more of the kernel).
# SO_PRIORITY: without a capability 0 to 6, which IP_TOS sets too; Erlang sets it for each connection that it accepts.
allow setsockopt arg1 == SOL_SOCKET and arg2 in {SO_REUSEADDR, SO_REUSEPORT, SO_KEEPALIVE, SO_LINGER, SO_OOBINLINE, SO_BROADCAST, SO_DONTROUTE}
allow setsockopt arg1 == SOL_SOCKET and arg2 in {SO_SNDBUF, SO_RCVBUF, SO_RCVLOWAT, SO_SNDTIMEO, SO_RCVTIMEO, SO_PEEK_OFF, SO_RXQ_OVFL}
allow setsockopt arg1 == SOL_SOCKET and arg2 in {SO_PASSCRED, SO_PASSPIDFD, SO_PASSRIGHTS, SO_TIMESTAMP, SO_TIMESTAMPNS, SO_TIMESTAMPING}
allow setsockopt arg1 == SOL_SOCKET and arg2 in {63, 64, 65, 66, 67}  # the same with 64-bit time: SO_TIMESTAMP_NEW to SO_SNDTIMEO_NEW
allow setsockopt arg1 == SOL_SOCKET and arg2 in {SO_INCOMING_CPU, SO_BUSY_POLL, SO_ZEROCOPY, SO_MAX_PACING_RATE, SO_PRIORITY}
allow setsockopt arg1 == IPPROTO_IP and arg2 in {IP_TOS, IP_TTL, IP_PKTINFO, IP_MTU_DISCOVER, IP_RECVERR, IP_RECVTTL, IP_RECVTOS}
allow setsockopt arg1 == IPPROTO_IP and arg2 in {IP_RECVORIGDSTADDR, IP_MINTTL, IP_BIND_ADDRESS_NO_PORT, IP_RECVFRAGSIZE}
allow setsockopt arg1 == IPPROTO_IP and arg2 in {IP_MULTICAST_IF, IP_MULTICAST_TTL, IP_MULTICAST_LOOP, IP_MULTICAST_ALL, IP_ADD_MEMBERSHIP, IP_DROP_MEMBERSHIP}
allow setsockopt arg1 == IPPROTO_IPV6 and arg2 in {IPV6_V6ONLY, IPV6_UNICAST_HOPS, IPV6_TCLASS, IPV6_RECVTCLASS, IPV6_RECVPKTINFO, IPV6_PKTINFO}
allow setsockopt arg1 == IPPROTO_IPV6 and arg2 in {IPV6_RECVERR, IPV6_RECVHOPLIMIT, IPV6_RECVORIGDSTADDR, IPV6_RECVFRAGSIZE, IPV6_DONTFRAG}
allow setsockopt arg1 == IPPROTO_IPV6 and arg2 in {IPV6_MTU, IPV6_MTU_DISCOVER, IPV6_AUTOFLOWLABEL, IPV6_ADDR_PREFERENCES}
allow setsockopt arg1 == IPPROTO_IPV6 and arg2 in {IPV6_MULTICAST_IF, IPV6_MULTICAST_HOPS, IPV6_MULTICAST_LOOP, IPV6_MULTICAST_ALL, IPV6_ADD_MEMBERSHIP, IPV6_DROP_MEMBERSHIP}
allow setsockopt arg1 == IPPROTO_TCP and arg2 in {TCP_NODELAY, TCP_CORK, TCP_QUICKACK, TCP_MAXSEG, TCP_DEFER_ACCEPT, TCP_SYNCNT, TCP_LINGER2}
allow setsockopt arg1 == IPPROTO_TCP and arg2 in {TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT, TCP_NOTSENT_LOWAT, TCP_WINDOW_CLAMP}
allow setsockopt arg1 == IPPROTO_TCP and arg2 in {TCP_CONGESTION, TCP_FASTOPEN, TCP_FASTOPEN_CONNECT, TCP_SAVE_SYN, TCP_INQ}
allow setsockopt arg1 == IPPROTO_UDP and arg2 in {UDP_CORK, UDP_SEGMENT, UDP_GRO}

# Refused by name, for an answer that says so.
errno EPERM ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp pidfd_getfd
errno EPERM bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register fanotify_init fanotify_mark
errno EPERM unshare setns mount umount umount2 pivot_root chroot fsopen fsmount fsconfig fspick open_tree move_mount mount_setattr
errno EPERM setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups capset
errno EPERM keyctl add_key request_key name_to_handle_at open_by_handle_at
errno EPERM init_module finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff acct quotactl quotactl_fd
errno EPERM iopl ioperm modify_ldt vm86 vm86old syslog vhangup sethostname setdomainname
errno EPERM settimeofday stime clock_settime clock_adjtime adjtimex ioprio_set migrate_pages move_pages mbind set_mempolicy
errno EPERM socket bind connect
