# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The process that forks all others, beside what all of those have: a filter is inherited, and each child adds its own.

allow clone arg0 == CLONE_CHILD_SETTID|CLONE_CHILD_CLEARTID|SIGCHLD
errno ENOSYS clone3
allow set_robust_list  # fork(3), in the child
allow rt_sigprocmask rt_sigaction
allow wait4
allow kill arg1 == SIGKILL  # the kernel lets it end processes of the broker's user only
allow read arg0 == 4  # its signals
allow recvmsg sendmsg
allow dup3 close_range
allow fcntl arg1 == F_DUPFD_CLOEXEC
allow prctl arg0 == PR_SET_NAME
allow prctl arg0 == PR_SET_SECCOMP  # of the child, to add its own
allow mprotect arg2 == PROT_READ  # of the child, for memory that only the door may write
