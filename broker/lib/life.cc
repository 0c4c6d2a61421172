// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The C face, first part: making, ending, what came of the last request.
#include <cerrno>
#include <memory>

#include "broker/lib/client.h"

using sockbroker::guarded;
using sockbroker::usable;

int sockbroker_new(sockbroker_client** ret, const char* runtime_dir) {
        if (ret == nullptr) {
                return -EINVAL;
        }
        return guarded([&] {
                auto made = sockbroker::Conversation::make(runtime_dir == nullptr ? "/run/sockbroker" : runtime_dir);
                if (!made) {
                        return made.error().errnum > 0 ? -made.error().errnum : -EIO;
                }
                *ret = std::make_unique<sockbroker_client>(std::move(*made)).release();
                return 0;
        });
}

sockbroker_client* sockbroker_ref(sockbroker_client* broker) {
        if (broker != nullptr) {
                broker->references.fetch_add(1, std::memory_order_relaxed);
        }
        return broker;
}

sockbroker_client* sockbroker_unref(sockbroker_client* broker) {
        const sockbroker::Uncancelled all_the_while;
        if (broker != nullptr && broker->references.fetch_sub(1, std::memory_order_acq_rel) == 1) {
                const std::unique_ptr<sockbroker_client> last(broker);
                if (usable(broker) == 0) {  // in a child the request is its parent's
                        broker->conversation.cancel();
                }
        }
        return nullptr;
}

int sockbroker_set_timeout(sockbroker_client* broker, uint64_t usec) {
        if (const int bad = usable(broker); bad < 0) {
                return bad;
        }
        if (usec == 0) {
                return -EINVAL;
        }
        broker->timeout_usec = usec;
        return 0;
}

const char* sockbroker_get_result(sockbroker_client* broker) {
        return broker != nullptr && broker->answered ? broker->answer.result.c_str() : nullptr;
}

const char* sockbroker_get_message(sockbroker_client* broker) {
        return broker == nullptr ? "" : broker->answer.message.c_str();
}

const char* sockbroker_get_warning(sockbroker_client* broker, unsigned i) {
        return broker != nullptr && i < broker->answer.warnings.size() ? broker->answer.warnings[i].c_str() : nullptr;
}

const char* sockbroker_get_service(sockbroker_client* broker) {
        return broker == nullptr || broker->taker.service.empty() ? nullptr : broker->taker.service.c_str();
}
