# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The process that accepts connections. It never takes a message: it looks whether there is one, and reads orders, by a
# call that brings no descriptor.

allow accept4
allow getsockopt arg1 == SOL_SOCKET and arg2 == SO_PEERCRED
allow setsockopt arg1 == SOL_SOCKET and arg2 in {SO_PASSCRED, SO_PASSPIDFD, SO_PASSSEC, SO_TIMESTAMP}
allow shutdown
allow recvmsg arg2 == MSG_PEEK|MSG_DONTWAIT
allow recvfrom arg3 == MSG_DONTWAIT  # orders, and records without descriptors: it cannot bring one
allow sendmsg  # why: passes connections to the core and to hands, and says why a connection is refused
