// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/client/retrieve.h"

#include <iterator>

#include "broker/protocol/request.h"

namespace sockbroker {

ControlRequest RetrieveOperation::next() {
        return {.request = format_request({Verb::kRetrieve, service_}), .fds = {}};
}

Result<Operation::Course> RetrieveOperation::take(ControlAnswer& answer, std::vector<OwnedFd> received) {
        const bool full = received.size() >= kMaxMessageFds;
        std::move(received.begin(), received.end(), std::back_inserter(fds_));
        if (answer.result == "ok" && full) {
                some_came_ = true;
                return Course{.over = false};
        }
        if (answer.result == "not-held" && some_came_) {  // they were as many as one message carries
                answer.result = "ok";
                answer.errnum = 0;
        }
        return Course{};
}

Result<ControlClient::Answer> retrieve_all(ControlClient& client, const std::string& service,
                                           std::vector<OwnedFd>& fds) {
        RetrieveOperation retrieval(service, fds);
        return run(client, retrieval);
}

}  // namespace sockbroker
