// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See wait.h.
#include "broker/client/wait.h"

#include <systemd/sd-login.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include <fmt/format.h>

#include "broker/base/printable.h"
#include "broker/client/queues.h"

namespace sockbroker {

namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::json;

constexpr auto kPeriod = std::chrono::milliseconds(100);
// A broker that takes its time is asked less often; not much less, since one that starts takes its time once.
constexpr unsigned kRest = 9;
constexpr auto kMostRest = std::chrono::milliseconds(1000);
// Handshakes that were half-open when a listener was displaced end there. The kernel repeats its part of one after 1 s
// and 3 s; so this is two losses in a row, and the client's answer to the second repetition.
constexpr auto kHandshake = std::chrono::seconds(4);
// A socket that has just been closed is listed a moment longer than the kernel shows it.
constexpr unsigned kUnseen = 10;

// Empty where it is null, missing or no text.
std::string text_of(const Json& row, const char* field) {
        const auto at = row.find(field);
        return at != row.end() && at->is_string() ? printable(at->get_ref<const std::string&>()) : "";
}

std::string number_of(std::uint64_t number, std::string_view noun) {
        return fmt::format("{} {}{}", number, noun, number == 1 ? "" : "s");
}

}  // namespace

ControlRequest WaitOperation::next() {
        if (asks_whether_known_) {
                return {.request = "VERB=status\n", .fds = {}};
        }
        asked_ = Clock::now();
        sockets_.clear();
        return {.request = "VERB=list\n", .fds = {}};
}

void WaitOperation::take_line(std::string_view line) {
        const Json row = Json::parse(line, nullptr, false);
        if (!row.is_object() || text_of(row, "service") != service_) {
                return;
        }
        if (asks_whether_known_) {
                named_ = true;
                return;
        }
        const std::optional<Protocol> protocol = parse_protocol(text_of(row, "protocol"));
        if (!protocol) {
                return;
        }
        const auto flows = row.find("flows");
        sockets_.push_back(
                {.cookie = std::strtoull(text_of(row, "cookie").c_str(), nullptr, 16),
                 .protocol = *protocol,
                 .address_family = text_of(row, "family") == "ipv4" ? AF_INET : AF_INET6,
                 .bound = text_of(row, "bound"),
                 .unit = text_of(row, "unit"),
                 .state = text_of(row, "state"),
                 .flows = flows != row.end() && flows->is_number_unsigned() ? flows->get<std::size_t>() : 0});
}

Operation::Rest WaitOperation::rest() const {
        return std::clamp(std::chrono::duration_cast<Rest>(kRest * (Clock::now() - asked_)), Rest(kPeriod),
                          Rest(kMostRest));
}

void WaitOperation::fail_look(std::string why) {
        asks_whether_known_ = false;
        answered_ = false;
        missing_ = std::move(why);
}

std::optional<Operation::Rest> WaitOperation::failed(const Error& error) {
        fail_look(error.text());
        return rest();
}

Result<Operation::Course> WaitOperation::take(ControlAnswer& answer, std::vector<OwnedFd> /*received*/) {
        if (answer.result != "ok") {
                fail_look(fmt::format("{}: {}", answer.result, answer.message));
                return Course{.over = false, .rest = rest()};
        }
        if (!asks_whether_known_ && sockets_.empty() && !known_) {
                asks_whether_known_ = true;
                named_ = false;
                return Course{.over = false};
        }
        if (asks_whether_known_ && !named_) {
                answer = {
                        .result = "unknown-service",
                        .errnum = ENOENT,
                        .message = fmt::format("no policy in force has a section [Service {}]; check the name against "
                                               "sockbrokerctl status, or reload",
                                               service_),
                        .warnings = {}};
                return Course{};
        }
        asks_whether_known_ = false;
        known_ = answered_ = true;
        Result<Missing> missing = look();
        if (!missing) {
                return std::unexpected(missing.error());
        }
        missing_ = missing->value_or("");
        return missing_.empty() ? Course{} : Course{.over = false, .rest = rest()};
}

Result<WaitOperation::Missing> WaitOperation::look() {
        return wanted_ == WaitFor::kLive ? live() : drained();
}

WaitOperation::Missing WaitOperation::live() const {
        const bool any = std::ranges::any_of(sockets_, [](const Socket& one) { return one.state == "live"; });
        return any ? Missing() : fmt::format("service {} has no live socket", service_);
}

// The unit of the caller, if it has registered some of them.
std::string WaitOperation::own_unit() const {
        char* name = nullptr;
        if (sd_pid_get_unit(0, &name) < 0) {
                return "";
        }
        const std::unique_ptr<char, decltype(&std::free)> owned(name, std::free);
        return std::ranges::any_of(sockets_, [&](const Socket& one) { return one.unit == name; }) ? name : "";
}

void WaitOperation::note() {
        if (!unit_) {
                unit_ = own_unit();
        }
        const std::string unit = unit_.value_or("");
        for (auto& [cookie, one] : displaced_) {
                one.listed = false;
        }
        for (const Socket& one : sockets_) {
                if (one.state != "draining") {
                        displaced_.erase(one.cookie);  // it serves again
                } else if (unit.empty() || one.unit == unit) {
                        Displaced& entry =
                                displaced_.try_emplace(one.cookie, Displaced{.socket = one, .first = Clock::now()})
                                        .first->second;
                        entry.listed = true;
                        entry.socket.flows = one.flows;
                }
        }
}

Result<WaitOperation::Missing> WaitOperation::drained() {
        note();
        std::map<std::pair<Protocol, int>, Queues> queues;
        Missing missing;
        for (auto at = displaced_.begin(); at != displaced_.end();) {
                const auto& [cookie, entry] = *at;
                const Socket& socket = entry.socket;
                const auto [known, fresh] = queues.try_emplace({socket.protocol, socket.address_family});
                if (fresh) {
                        auto read = read_queues(socket.protocol, socket.address_family);
                        if (!read) {
                                return std::unexpected(read.error());
                        }
                        known->second = std::move(*read);
                }
                const auto queue = known->second.find(cookie);
                const bool there = queue != known->second.end();
                if (!there && !entry.listed) {
                        at = displaced_.erase(at);
                        continue;
                }
                at->second.unseen = there ? 0 : entry.unseen + 1;
                if (entry.unseen > kUnseen) {
                        return fail(
                                fmt::format("the kernel does not show the socket {} of service {}: run this in the "
                                            "broker's network namespace",
                                            socket.bound, service_));
                }
                if (!there) {
                        missing = fmt::format("socket {} of service {} is not seen", socket.bound, service_);
                } else if (queue->second.depth > 0) {
                        missing = fmt::format("socket {} of service {} has {} in its queue", socket.bound, service_,
                                              number_of(queue->second.depth,
                                                        socket.protocol == Protocol::kTcp ? "connection" : "byte"));
                } else if (entry.listed && socket.flows > 0) {
                        missing = fmt::format("socket {} of service {} has {}", socket.bound, service_,
                                              number_of(socket.flows, "flow"));
                } else if (socket.protocol == Protocol::kTcp && Clock::now() - entry.first < kHandshake) {
                        missing = fmt::format("socket {} of service {} may have half-open handshakes", socket.bound,
                                              service_);
                }
                ++at;
        }
        return missing;
}

}  // namespace sockbroker
