# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A hand that closes: what messages carried, and connections. Answers go through a pipe, descriptor 3.

allow recvmsg  # why: orders, and the messages that it is to take
allow write arg0 == 3
