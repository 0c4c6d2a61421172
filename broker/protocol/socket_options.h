// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Options of UNIX sockets that Debian 12's headers lack. The values are those of include/uapi/asm-generic/socket.h and
// include/linux/socket.h.
#pragma once

#include <sys/socket.h>

#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76  // kernel 6.5
#endif
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77  // kernel 6.5
#endif
#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83  // kernel 6.16
#endif
#ifndef SCM_PIDFD
#define SCM_PIDFD 4
#endif
#ifndef SCM_SECURITY
#define SCM_SECURITY 3
#endif
