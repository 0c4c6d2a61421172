# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A hand that takes messages: sees what the sockets in them are, and offers them to the core in the staging map. It
# sends nothing, so that none of its descriptors reaches anybody: answers go through a pipe, descriptor 3.

allow recvmsg  # why: orders, and the messages that it is to take
allow write arg0 == 3
allow getsockopt getsockname getpeername  # reads only
allow fcntl arg1 == F_GETFD
allow bpf arg0 in {BPF_MAP_UPDATE_ELEM, BPF_MAP_DELETE_ELEM}  # of the one map that it has
