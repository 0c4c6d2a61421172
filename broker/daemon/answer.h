// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a peer is told: a result, and maybe rows, descriptors, or events for as long as it stays.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "broker/base/event.h"
#include "broker/base/owned_fd.h"
#include "broker/daemon/monitor.h"
#include "broker/daemon/rows.h"
#include "broker/protocol/result_code.h"

namespace sockbroker {

struct Answer {
        ResultCode code = ResultCode::kOk;
        std::string message;
        std::vector<std::string> warnings;
        std::string_view cause;  // CAUSE=: the key of the request that a refusal is about, where programs look at that
        Rows rows;               // may be empty
        std::vector<OwnedFd> fds;  // go with the RESULT= record
        struct {
                std::string service;
                std::vector<std::uint64_t> cookies;
        } held;                                            // go with it too, from the holder that keeps them
        std::function<void()> undelivered;                 // called if the peer left before that
        std::shared_ptr<Monitors::Reader> feed = nullptr;  // goes on for as long as the peer stays
        bool unloaded = false;                             // dispatch was taken away: the daemon ends after this answer
};
using Reply = std::function<void(Answer)>;

// Does what ends in a reply, or at least replies that memory did not suffice for it: who waits for a later answer has
// no deadline.
template <class Act>
void or_fail(const Reply& reply, const Act& act) {
        if (!succeeds(act)) {
                (void)guarded([&] { reply(Answer{.code = ResultCode::kInternal, .message = {}}); });
        }
}

// The same, with what `make` returns.
template <class Make>
void reply_with(const Reply& reply, const Make& make) {
        or_fail(reply, [&] { reply(make()); });
}

}  // namespace sockbroker
