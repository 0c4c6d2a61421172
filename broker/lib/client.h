// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The implementation of sockbroker_client: the conversation, and the result of the last request. No exception leaves
// a function of the C interface: guarded() turns it into an errno.
#pragma once

#include <sys/types.h>

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

template <class Body>
int guarded(const Body& body) noexcept {
        try {
                return body();
        } catch (const std::bad_alloc&) {
                return -ENOMEM;
        } catch (const std::exception&) {
                return -EIO;
        }
}

}  // namespace sockbroker
