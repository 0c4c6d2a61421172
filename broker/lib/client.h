// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The implementation of sockbroker_client: the conversation, and the result of the last request. No exception leaves
// a function of the C interface: guarded() turns it into an errno.
#pragma once

#include <pthread.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "broker/base/owned_fd.h"
#include "broker/client/match.h"
#include "broker/lib/conversation.h"
#include "broker/lib/sockbroker.h"

struct sockbroker_client {
        explicit sockbroker_client(sockbroker::Conversation made) : conversation(std::move(made)) {}

        std::atomic<unsigned> references{1};
        pid_t process = ::getpid();
        std::uint64_t timeout_usec = 10'000'000;
        sockbroker::Conversation conversation;

        bool answered = false;
        sockbroker::ControlAnswer answer;       // without an answer only its message counts
        std::vector<sockbroker::OwnedFd> lent;  // duplicates of what is registered without blocking
        std::vector<sockbroker::OwnedFd> fds;
        sockbroker::MatchedService taker;
};

namespace sockbroker {

// 0, or why this one may not be used.
[[nodiscard]] inline int usable(const sockbroker_client* client) {
        if (client == nullptr) {
                return -EINVAL;
        }
        return client->process == ::getpid() ? 0 : -ECHILD;
}

// Forgets what came of the last request, and says why there is none; returns the negative errno.
int refuse(sockbroker_client& client, int errnum, std::string message);

// While one lives the thread is not cancelled, pthread_cancel(3): that unwinds the stack, and where C++ lets nothing
// through (noexcept, destructors) it ends the process. It is cancelled where it waits, in finish(), or later.
class Uncancelled {
public:
        Uncancelled() { (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before_); }
        ~Uncancelled() { (void)pthread_setcancelstate(before_, nullptr); }
        Uncancelled(const Uncancelled&) = delete;
        Uncancelled& operator=(const Uncancelled&) = delete;

private:
        int before_ = PTHREAD_CANCEL_ENABLE;
};

template <class Body>
int guarded(const Body& body) noexcept {
        const Uncancelled all_the_while;
        try {
                return body();
        } catch (const std::bad_alloc&) {
                return -ENOMEM;
        } catch (const std::exception&) {
                return -EIO;
        }
}

}  // namespace sockbroker
