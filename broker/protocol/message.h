// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One recvmsg(2) on a notify or control socket: text, descriptors, the kernel's word on the sender.
// Every descriptor that arrives is owned at once, so that nothing leaks on any path; a truncated message
// keeps none of them.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"

namespace sockbroker {

struct Message {
        std::string text;
        std::vector<OwnedFd> fds;
        bool has_fds = false;              // of a message that was peeked: some came with it
        std::optional<ucred> credentials;  // SCM_CREDENTIALS; of a message without: none
        OwnedFd pidfd;                     // SCM_PIDFD, on kernels from 6.5
        bool sender_gone = false;          // the kernel had no pidfd to give: the sender was reaped already
        std::int64_t sent_usec = 0;        // SO_TIMESTAMP, microseconds since the epoch; 0: unknown
        bool truncated = false;            // text too long, too many fds, or none left here: text is dropped
        std::vector<OwnedFd> dropped;      // the fds of a truncated message, only to be closed; close(2) may block
};

// SO_PASSCRED, SO_PASSPIDFD where the kernel has it, SO_TIMESTAMP. For a listening socket and again for each
// connection: those that it accepts inherit the first two, which counts for a record sent before the accept.
[[nodiscard]] Result<void> prepare_receiver(int fd);

// Does not block. EAGAIN when the queue is empty; a Message with empty text and no descriptors is legal on a
// datagram socket and means end-of-file on seqpacket. Sets FD_CLOEXEC on what arrives and touches no file status flags.
[[nodiscard]] Result<Message> receive(int fd);

// Sends one record without blocking and without SIGPIPE, with at most kMaxMessageFds descriptors.
[[nodiscard]] Result<void> send_record(int fd, std::string_view text, const std::vector<int>& fds = {});

}  // namespace sockbroker
