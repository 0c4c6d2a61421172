// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/client/match.h"
#include "broker/protocol/service_name.h"

namespace sockbroker {

// The broker's own text: names of services need no escaping, and no other member has such a name.
void read_taker(std::string_view line, MatchedService& taker) {
        constexpr std::string_view kService = R"("service":")";
        constexpr std::string_view kHold = R"("hold_usec":)";
        constexpr std::string_view kReusePort = R"("reuse_port":)";
        if (const auto at = line.find(kService); at != std::string_view::npos) {
                const auto rest = line.substr(at + kService.size());
                const auto name = rest.substr(0, rest.find('"'));
                if (valid_service_name(name)) {
                        taker.service = name;
                }
        }
        if (const auto at = line.find(kHold); at != std::string_view::npos) {
                const auto rest = line.substr(at + kHold.size());
                taker.holds = !rest.empty() && rest.front() >= '1' && rest.front() <= '9';
        }
        if (const auto at = line.find(kReusePort); at != std::string_view::npos) {
                taker.reuse_port = line.substr(at + kReusePort.size()).starts_with("true");
        }
}

ControlRequest MatchOperation::next() {
        Request request{.verb = Verb::kMatch};
        request.bind = bind_;
        return {.request = format_request(request), .fds = {}};
}

Result<Operation::Course> MatchOperation::take(ControlAnswer& answer, std::vector<OwnedFd> /*received*/) {
        if (answer.result == "ok" && taker_.service.empty()) {
                return fail(EPROTO, "the broker's answer names no service");
        }
        return Course{};
}

}  // namespace sockbroker
