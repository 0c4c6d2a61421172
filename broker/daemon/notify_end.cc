// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The end of the broker, as the datagram socket sees it: whoever has sent there hears nothing, and believes that his
// message waits still.
#include <vector>

#include "broker/daemon/notify_intake.h"

namespace sockbroker {

void NotifyIntake::stop() {
        ends_ = true;
        stop_reading();
}

void NotifyIntake::refuse_waiting() noexcept {
        (void)succeeds([&] {
                std::vector<IncomingPtr> waiting;
                for (const auto& [uid, sender] : senders_) {
                        if (sender.handling) {
                                waiting.push_back(sender.handling);
                        }
                        for (const auto& one : sender.queue) {
                                waiting.push_back(one.message);
                        }
                }
                for (const auto& message : waiting) {
                        message->counted = true;
                        message->over_rate =
                                Refusal{ResultCode::kBusy,
                                        "the broker ends, and has not decided yet: send it to the next one",
                                        {}};
                        refuse(message);
                }
        });
}

}  // namespace sockbroker
