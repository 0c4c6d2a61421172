# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What sockbroker-routes may ask of the kernel once it serves. Built into it. It has CAP_NET_ADMIN, so what counts is
# where that can be used: in messages on the one netlink socket that is open, and nowhere else. No socket is made, none
# is connected, bound or set up, nothing is opened, executed or signalled.
#
# Descriptors have fixed numbers: 3 the listening socket, 4 the route socket, 5 changes that others make, 6 and 7
# connections of the broker.

default: errno ENOSYS
arguments: errno EPERM
foreign: kill

kill execve execveat
kill ptrace process_vm_readv process_vm_writev
kill init_module finit_module delete_module kexec_load kexec_file_load
kill bpf

# To the kernel alone: without an address a netlink socket sends to nobody else.
allow sendto arg0 in {4, 6, 7} and arg4:64 == 0
allow recvfrom arg0 in {4, 5, 6, 7} and arg4:64 == 0
allow accept4 arg0 == 3
allow poll ppoll
allow close
allow write arg0 == 2

# Memory, and none of it executable.
allow brk munmap mremap madvise futex
allow mmap arg2 !& PROT_EXEC
allow mprotect arg2 !& PROT_EXEC

allow clock_gettime clock_getres getrandom
allow rt_sigreturn rt_sigprocmask restart_syscall exit exit_group
