# SPDX-License-Identifier: LGPL-2.1-or-later
#
# For the supervisor itself. It has the program's user and may look into it, so a program that took it over must find
# nothing here that it has not: no execve, no new process, no file to write, no socket but to the broker.

default: errno ENOSYS
arguments: errno EPERM
foreign: kill

# The program's calls, memory and descriptors. The ioctls are those of seccomp_unotify(2).
allow ioctl arg1 in {0xc0502100, 0xc0182101, 0x40082102, 0x40182103, 0x40082104}
allow pidfd_open
allow pidfd_getfd process_vm_readv  # why: its work; of processes of its own user, as that user may anyway
# process_vm_writev is allowed with --asked-names alone (own_filter.cc).
# The sizes of notifications (SECCOMP_GET_NOTIF_SIZES), once.
allow seccomp arg0 == 3

# What of the program a bind depends on, in /proc. 0x400243: O_WRONLY, O_RDWR, O_CREAT, O_TRUNC and the bit of
# O_TMPFILE.
allow openat arg2 !& 0x400243
allow read close fstat newfstatat statx lseek getdents64 readlink readlinkat
allow fchdir chdir umask
allow fstatfs geteuid  # to follow a path: what is /proc, and whose links

# Its sockets, and options on them.
allow bind listen shutdown getsockname getpeername getsockopt
allow setsockopt  # why: onto a spare, what the program has set of options_copy.cc's list
allow fcntl arg1 in {F_DUPFD_CLOEXEC, F_GETFD, F_GETFL, F_SETFL}

# The broker.
allow socket arg0 == AF_UNIX
allow connect sendto sendmsg recvfrom recvmsg

# Standard error; and itself.
allow write writev
allow poll ppoll clock_gettime gettimeofday setitimer rt_sigreturn rt_sigprocmask restart_syscall
allow mmap arg2 !& PROT_EXEC
allow mprotect arg2 !& PROT_EXEC
allow munmap mremap madvise brk futex getrandom
allow prlimit64 arg0 == 0 and arg2:64 == 0  # how many descriptors it may have: it sets no limit
allow getpid getppid gettid tgkill exit exit_group rt_sigaction
