// SPDX-License-Identifier: LGPL-2.1-or-later
//
// close(2) of what peers chose. It may wait for as long as the peer likes: for a TCP connection with SO_LINGER whose
// data nobody reads, for a file of a FUSE server that does not answer, for a queue that holds such descriptors. So the
// event loop closes only what cannot wait, and threads of this class all the rest. Never touches a descriptor
// otherwise, but for SO_LINGER of a connection, which no broker wants.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "broker/base/owned_fd.h"
#include "broker/daemon/incoming.h"
#include "broker/protocol/message.h"

namespace sockbroker {

class Closer {
public:
        // Threads come one after the other, and only while all others wait: TasksMax= of the unit has room for these.
        static constexpr std::size_t kMaxThreads = 8;

        Closer();
        ~Closer();  // waits for nobody: what is left ends with the process
        Closer(const Closer&) = delete;
        Closer& operator=(const Closer&) = delete;

        // Descriptors that came with one message. Listeners without SO_LINGER, UDP sockets and pipes are closed before
        // it returns, so that who waits for an answer, or for a barrier, finds them closed.
        void close(std::vector<OwnedFd> received) noexcept;
        // The same of which nothing is known: not even looked at before a thread has it, for fstat(2) may wait as well.
        void close_unseen(OwnedFd fd) noexcept;
        // A connection of a UNIX socket, with whatever the peer has sent on it and nobody has read.
        void close_connection(OwnedFd connection) noexcept;

private:
        struct State;
        // For want of memory they are closed here, at the risk of waiting.
        void hand_over(std::vector<OwnedFd> batch) noexcept;
        std::shared_ptr<State> state_;
};

// A message whose descriptors the Closer gets when nobody needs it any more.
[[nodiscard]] IncomingPtr to_be_closed(Message message, Closer& closer);

// Whether close(2) of it returns at once, whatever its owner does meanwhile.
[[nodiscard]] bool closes_at_once(int fd);

}  // namespace sockbroker
