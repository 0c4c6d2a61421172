// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/incoming.h"

#include "broker/base/event.h"
#include "broker/holds/in_holder.h"

namespace sockbroker {

namespace {

std::string_view why_not(hands::Outcome outcome) {
        switch (outcome) {
        case hands::Outcome::kBusy:
                return "all processes that take descriptors are busy, ask again later";
        case hands::Outcome::kBarred:
                return "descriptors that this user or his like has sent keep processes of the broker waiting, ask "
                       "again "
                       "when they do not";
        case hands::Outcome::kLost:
                return "the process that took the descriptors of this message has ended, ask again";
        default:
                return "what came with this message keeps who looks at it waiting; hand over sockets alone, and none "
                       "whose lock is kept";
        }
}

}  // namespace

IncomingPtr incoming(Message peeked) {
        auto message = std::make_shared<Incoming>();
        static_cast<Message&>(*message) = std::move(peeked);
        return message;
}

void Incoming::fail() noexcept {
        arrived.clear();
        not_taken = Refusal{ResultCode::kInternal, {}, {}};
}

void Incoming::note(const hands::Taken& taken) noexcept {
        for (const auto& one : taken.found) {
                if (in_holder && one.staging == hands::Staging::kOffered) {
                        in_holder->add(one.facts.cookie);
                }
        }
        if (!succeeds([&] { note_found(taken); })) {
                fail();
        }
}

void Incoming::note_found(const hands::Taken& taken) {
        if (taken.outcome != hands::Outcome::kDone) {
                not_taken = Refusal{ResultCode::kBusy, std::string(why_not(taken.outcome)), {}};
                return;
        }
        truncated = truncated || taken.truncated;
        count = taken.count;
        arrived.reserve(taken.found.size());
        for (std::size_t i = 0; i < taken.found.size(); i++) {
                const auto& one = taken.found[i];
                arrived.push_back({one.facts, taken.staging + static_cast<std::uint32_t>(i), one.errnum});
        }
}

}  // namespace sockbroker
