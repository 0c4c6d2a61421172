# SPDX-License-Identifier: LGPL-2.1-or-later
#
# For services behind the broker: all that ordinary network servers do, threads and just-in-time compilers included.
# Language: sockbroker-run(1). What it does not stop: /usr/share/doc/sockbroker/sandbox.md.
# Add to it in default.profile.d/*.profile, not here.

include strict

# Sockets: streams and datagrams of IP and all of the local kind. No raw, packet, netlink, vsock and other ones. Without
# IPPROTO_MPTCP: the kernel cannot dispatch to it, and Go then takes TCP. What bind(2) and connect(2) are asked for lies
# in memory, where no filter sees it: there the kernel's own rules decide.
allow socket arg0 == AF_UNIX
allow socket arg0 in {AF_INET, AF_INET6} and arg1 & SOCK_TYPE_MASK in {SOCK_STREAM, SOCK_DGRAM} and arg2 in {0, IPPROTO_TCP, IPPROTO_UDP}
allow bind connect
# What they could reach by these they may connect to anyway.
allow socketpair arg0 == AF_UNIX
allow send sendto sendmsg sendmmsg

# Just-in-time compilers: what is mapped has the rights of its file.
allow mmap mmap2 mprotect pkey_mprotect  # why: just-in-time compilers

# Servers that give up at their start what they do not have (gunicorn, dovecot, freeradius). Real, effective and saved
# numbers are the same one here, and without a capability the kernel refuses any other.
allow setuid setgid setreuid setregid  # why: become who it is already
allow setresuid setresgid  # why: become who it is already
# And of capabilities (nfs-ganesha, dnsdist): it has none, and without one the kernel lets nobody raise any.
allow capset  # why: what is not permitted cannot be raised

# Reading files ahead of time, and talking to other processes of the same user.
allow io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents
allow shmget shmat shmctl shmdt semget semop semtimedop semctl msgget msgsnd msgrcv msgctl
allow mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr
