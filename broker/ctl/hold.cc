// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The verb hold: before a service is stopped on purpose, so that its clients wait as they would after a crash.
#include "broker/ctl/ask.h"
#include "broker/ctl/passed.h"
#include "broker/ctl/verbs.h"
#include "broker/protocol/request.h"
#include "broker/protocol/service_name.h"

namespace sockbroker::ctl {

int hold_service(const Options& options) {
        const std::string& service = options.arguments.front();
        if (!valid_service_name(service)) {
                complain(hand_out({}, service).error().text());
                return kExitUsage;
        }
        if (options.timeout == kForever || static_cast<std::uint64_t>(options.timeout.count()) > kMaxHoldUsec) {
                complain("hold needs --timeout=SPAN, how long clients may wait for the next instance, 12h at most");
                return kExitUsage;
        }
        const auto answer = ask(options,
                                format_request({.verb = sockbroker::Verb::kHold,
                                                .service = service,
                                                .timeout_usec = static_cast<std::uint64_t>(options.timeout.count())}),
                                [](std::string_view) {});
        if (!answer) {
                return answer.error();
        }
        return show_answer(options, service, *answer, answer->message);
}

}  // namespace sockbroker::ctl
