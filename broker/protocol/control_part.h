// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A part of the control data of recvmsg(2), as whoever receives a message and whoever only peeks at it read it.
#pragma once

#include <sys/socket.h>

#include <cstring>

#include "broker/protocol/message.h"

namespace sockbroker {

// False: it is too short for such a value.
template <class T>
bool read_part(const cmsghdr* header, T& value) {
        if (header->cmsg_len < CMSG_LEN(sizeof value)) {
                return false;
        }
        std::memcpy(&value, CMSG_DATA(header), sizeof value);
        return true;
}

// Of SCM_PIDFD. The message owns the descriptor.
void take_pidfd(const cmsghdr* header, Message& message);

}  // namespace sockbroker
