// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The answering side of load.c, faster than Python: a line comes, the name of the instance and the line go back. Called
// through ctypes in a thread of a service of the harness, which has opened and registered the socket.
#pragma once

// Accepts from the listener until `*stop` is set; then finishes what it has accepted. Returns how many it answered.
long sb_answer_tcp(int listener, const char* name, const volatile int* stop);
// Reads from the socket until `*stop` is 1 and its queue is empty, or until it is 2. IP_PKTINFO and IPV6_RECVPKTINFO
// are set already.
long sb_answer_udp(int fd, const char* name, const volatile int* stop);
