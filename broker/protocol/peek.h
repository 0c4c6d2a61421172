// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A message as the process that decides sees it: text and the kernel's word on the sender, without a descriptor. Those
// that came with it stay in the queue: peeking has no room for one, so that the kernel installs none and closes none.
// Whoever takes such a message off the queue does so elsewhere.
#pragma once

#include "broker/base/result.h"
#include "broker/protocol/message.h"

namespace sockbroker {

// SO_PASSCRED and SO_TIMESTAMP on, SO_PASSPIDFD and SO_PASSSEC off. For a listening socket and again for each
// connection, before the first peek(). The room of a peek is exact: with one of the latter two on, kernels that write
// SCM_RIGHTS before them would install descriptors there (measured on 6.18).
[[nodiscard]] Result<void> prepare_for_peeking(int fd);

// The first message of the queue, which stays there. Does not block, but while another process receives from the same
// socket. EAGAIN when the queue is empty; empty text without descriptors is legal on a datagram socket and means
// end-of-file on seqpacket. `has_fds` instead of `fds`, no pidfd.
[[nodiscard]] Result<Message> peek(int fd);

// The same where somebody was told that a message is there. The kernel notes when a message was sent only while
// SO_TIMESTAMP is on, and an accepted connection does not inherit that; what was sent before gets the time of the first
// look at it. A message whose first look this is, and that has such a time, has none here (`sent_usec` 0).
[[nodiscard]] Result<Message> peek_sent(int fd);

// Takes the message that was peeked last off the queue; only for one without descriptors. Adds the pidfd of its sender,
// on kernels from 6.5.
[[nodiscard]] Result<void> consume(int fd, Message& message);

// For a message with descriptors on a connection: the pidfd of the process that connected, from 6.5, where the
// credentials of the message name the same pid. As long as that process lives its pid is nobody else's, so it is the
// sender too. Otherwise none.
void pin_sender(int connection, Message& message);

}  // namespace sockbroker
