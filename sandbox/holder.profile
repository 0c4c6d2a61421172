# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Beside what intake.profile has. A holder gives the sockets that it keeps to who retrieves them, and to PID 1.

allow sendmsg  # why: its end towards the core takes orders only, and the core's end refuses to receive
allow fcntl arg1 == F_DUPFD_CLOEXEC  # for PID 1, while the socket may be released
allow pipe2  # by which PID 1 says that it has come so far
