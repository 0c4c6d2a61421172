# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What every process that touches strangers' descriptors may ask of the kernel (broker/hands); the profile of its role
# adds to it. All are built into the daemon. One that was taken over by what it was given can neither make a process,
# open a file or a socket, nor look into another process.

default: errno ENOSYS
arguments: errno EPERM
foreign: kill

kill execve execveat
kill ptrace process_vm_readv process_vm_writev
kill init_module finit_module delete_module kexec_load kexec_file_load

# Memory: none is executable, and none is a file's. Whoever reads or writes from the page of a silent file server keeps
# a lock of the kernel's for as long as that server likes, and the core could need it.
allow brk munmap mremap madvise
allow mmap arg2 !& PROT_EXEC and arg3 == MAP_PRIVATE|MAP_ANONYMOUS

allow close ppoll clock_gettime exit_group rt_sigreturn restart_syscall
