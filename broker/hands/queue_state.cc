// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/queue_state.h"

#include <sys/socket.h>

#include <cerrno>

namespace sockbroker::hands {

// Each record, an empty one too, has the credentials of its sender with it, or, where that is asked for, the time at
// which it was sent; the end of the connection has neither. Either takes all of the room, so there is none for a
// descriptor.
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

bool drop_plain_records(int connection) {
        // The room of the peek is exact only without a time stamp.
        const int off = 0;
        if (setsockopt(connection, SOL_SOCKET, SO_TIMESTAMP, &off, sizeof off) != 0) {
                return false;
        }
        while (true) {
                char byte = 0;
                alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))];
                iovec vector = {.iov_base = &byte, .iov_len = 1};
                msghdr header{
                        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
                const ssize_t size = recvmsg(connection, &header, MSG_PEEK | MSG_DONTWAIT);
                if (size < 0 && errno == ECONNRESET) {  // told once
                        continue;
                }
                if (size < 0 && errno == EAGAIN) {
                        return true;
                }
                if (size == 0 && header.msg_controllen == 0) {
                        return true;  // the end
                }
                const bool has_credentials = header.msg_controllen > 0;
                if (size < 0 || !has_credentials || (header.msg_flags & MSG_CTRUNC) != 0 ||
                    recv(connection, &byte, 1, MSG_DONTWAIT) < 0) {
                        return false;
                }
        }
}

}  // namespace sockbroker::hands
