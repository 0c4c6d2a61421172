// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/queue_state.h"

#include <sys/socket.h>

#include <cerrno>

namespace sockbroker::hands {

// Each record, an empty one too, has the credentials of its sender with it, the end of the connection has none. They
// take all of the room, so there is none for a descriptor.
QueueState look_at_queue(int connection) {
        char byte = 0;
        alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))];
        iovec vector = {.iov_base = &byte, .iov_len = 1};
        msghdr header{.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        ssize_t size = recvmsg(connection, &header, MSG_PEEK | MSG_DONTWAIT);
        if (size < 0 && errno == ECONNRESET) {  // told once
                header.msg_controllen = sizeof control;
                size = recvmsg(connection, &header, MSG_PEEK | MSG_DONTWAIT);
        }
        if (size < 0) {
                return errno == EAGAIN ? QueueState::kEmpty : QueueState::kRecord;
        }
        return size > 0 || header.msg_controllen > 0 ? QueueState::kRecord : QueueState::kEnded;
}

}  // namespace sockbroker::hands
