// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The end of a socket that others have descriptors of, the program or the broker: to close one would not do. The broker
// notices a listener that is shut down, and a UDP socket that is connected, and takes it away.
#pragma once

#include "broker/socket/facts.h"

namespace sockbroker::supervise {

// No client is to wait in it any more.
void end_socket(int fd, const SocketFacts& facts);

// A UDP socket that was ended may serve again.
void revive_socket(int fd);

}  // namespace sockbroker::supervise
