// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The verbs drain and undrain: a service is withdrawn while it goes on serving, and announced again.
#include "broker/ctl/ask.h"
#include "broker/ctl/passed.h"
#include "broker/ctl/verbs.h"
#include "broker/protocol/request.h"
#include "broker/protocol/service_name.h"

namespace sockbroker::ctl {

namespace {

int ask_for(const Options& options, sockbroker::Verb verb) {
        const std::string& service = options.arguments.front();
        if (!valid_service_name(service)) {
                complain(hand_out({}, service).error().text());
                return kExitUsage;
        }
        const auto answer = ask(options, format_request({.verb = verb, .service = service}), [](std::string_view) {});
        if (!answer) {
                return answer.error();
        }
        const int status = show_answer(options, service, *answer, answer->message);
        // Whoever stops the service next relies on it: the kernel has followed, and the next broker knows.
        return answer->warnings.empty() ? status : kExitFailed;
}

}  // namespace

int drain_service(const Options& options) {
        return ask_for(options, sockbroker::Verb::kDrain);
}

int undrain_service(const Options& options) {
        return ask_for(options, sockbroker::Verb::kUndrain);
}

}  // namespace sockbroker::ctl
