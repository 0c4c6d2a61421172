// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/client/retrieve.h"

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <nlohmann/json.hpp>

#include <fmt/format.h>

#include "broker/client/descriptors.h"
#include "broker/protocol/request.h"

namespace sockbroker {

ControlRequest RetrieveOperation::next() {
        if (step_ == Step::kRetrieve) {
                free_ = free_descriptors(kMaxMessageFds);
                if (free_ < kMaxMessageFds) {
                        step_ = Step::kCount;
                        held_.clear();
                        return {.request = format_request({Verb::kList}), .fds = {}};
                }
        }
        return {.request = format_request({.verb = Verb::kRetrieve, .service = service_, .pid = on_behalf_of_}),
                .fds = {}};
}

void RetrieveOperation::take_line(std::string_view line) {
        if (step_ != Step::kCount) {
                return;
        }
        const auto row = nlohmann::json::parse(line, nullptr, false);
        if (!row.is_object()) {
                return;
        }
        const auto state = row.find("state");
        const auto service = row.find("service");
        if (state != row.end() && *state == "held" && service != row.end() && service->is_string()) {
                held_[service->get<std::string>()]++;
        }
}

// Without a name the broker alone knows the service: then as many as any has.
std::size_t RetrieveOperation::held() const {
        std::size_t most = 0;
        for (const auto& [service, count] : held_) {
                most = service_.empty() || service == service_ ? std::max(most, count) : most;
        }
        return most;
}

Result<Operation::Course> RetrieveOperation::take(ControlAnswer& answer, std::vector<OwnedFd> received) {
        if (step_ == Step::kCount) {
                if (answer.result != "ok") {
                        return Course{};
                }
                if (held() > free_) {
                        const auto why = fmt::format(
                                "{} sockets are held and this process may have {} descriptors more: raise LimitNOFILE= "
                                "of its unit",
                                held(), free_);
                        if (!some_came_) {
                                return fail(EMFILE, why);
                        }
                        answer.warnings.push_back(why);  // an error would lose those that came
                        return Course{};
                }
                step_ = Step::kRetrieveCounted;
                return Course{.over = false};
        }
        step_ = Step::kRetrieve;
        const bool full = received.size() >= kMaxMessageFds;
        std::move(received.begin(), received.end(), std::back_inserter(fds_));
        if (answer.result == "ok" && full) {
                some_came_ = true;
                return Course{.over = false};
        }
        if (answer.result == "ok" && fds_.empty()) {
                return fail(EPROTO, "the broker's answer has no socket that was held");
        }
        if (answer.result == "not-held" && some_came_) {  // they were as many as one message carries
                answer.result = "ok";
                answer.errnum = 0;
        }
        return Course{};
}

Result<ControlClient::Answer> retrieve_all(ControlClient& client, const std::string& service, std::vector<OwnedFd>& fds,
                                           pid_t on_behalf_of) {
        RetrieveOperation retrieval(service, fds, on_behalf_of);
        return run(client, retrieval);
}

}  // namespace sockbroker
