// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The verb wait: until a service serves, or until what was displaced has nothing left to do. It asks again and again,
// each time on a new connection, so that the broker may restart in between; it changes nothing.
#include <fmt/format.h>
#include <sys/socket.h>
#include <systemd/sd-login.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <thread>

#include "broker/ctl/ask.h"
#include "broker/ctl/passed.h"
#include "broker/ctl/queues.h"
#include "broker/ctl/render.h"
#include "broker/ctl/verbs.h"

namespace sockbroker::ctl {

namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kPeriod = std::chrono::milliseconds(100);
// A broker that takes its time is asked less often; not much less, since one that starts takes its time once.
constexpr unsigned kRest = 9;
constexpr auto kMostRest = std::chrono::seconds(1);
// What an answer may take though the time given is shorter; and the longest time, should the broker die over it.
constexpr auto kLeastPatience = std::chrono::seconds(1), kMostPatience = std::chrono::seconds(60);
// Handshakes that were half-open when a listener was displaced end there. The kernel repeats its part of one after 1 s
// and 3 s; so this is two losses in a row, and the client's answer to the second repetition.
constexpr auto kHandshake = std::chrono::seconds(4);
// A socket that has just been closed is listed a moment longer than the kernel shows it.
constexpr unsigned kUnseen = 10;

struct Socket {
        std::uint64_t cookie = 0;
        Protocol protocol = Protocol::kTcp;
        int address_family = AF_INET;
        std::string bound, unit, state;
        std::size_t flows = 0;  // of UDP that still go to it
};

std::optional<Socket> socket_of(const Json& row) {
        const std::optional<Protocol> protocol = parse_protocol(cell(row, "protocol"));
        if (!protocol) {
                return std::nullopt;
        }
        return Socket{.cookie = std::strtoull(cell(row, "cookie").c_str(), nullptr, 16),
                      .protocol = *protocol,
                      .address_family = cell(row, "family") == "ipv4" ? AF_INET : AF_INET6,
                      .bound = cell(row, "bound"),
                      .unit = cell(row, "unit", ""),
                      .state = cell(row, "state"),
                      .flows = std::strtoull(cell(row, "flows").c_str(), nullptr, 10)};
}

// Where the service stands, as far as the waiting goes: nothing left to wait for, or what is missing, in words.
using Missing = std::optional<std::string>;

class Wait {
public:
        Wait(const Options& options, std::string service) : options_(options), service_(std::move(service)) {}

        int run();

private:
        [[nodiscard]] Result<void> ask(std::string_view request, Clock::duration patience,
                                       const std::function<void(const Json& row)>& on_row) const;
        [[nodiscard]] Result<std::vector<Socket>> look(Clock::duration patience) const;
        // False: no policy has such a service; an error: nobody knows now.
        [[nodiscard]] Result<bool> known(Clock::duration patience) const;
        [[nodiscard]] Result<Missing> live(const std::vector<Socket>& sockets) const;
        [[nodiscard]] Result<Missing> drained(const std::vector<Socket>& sockets);

        struct Displaced {
                Socket socket;
                Clock::time_point first;  // when it was seen displaced
                bool listed = false;      // now; else it is closed, or lost its place while its owner has it still
                unsigned unseen = 0;
        };

        void note(const std::vector<Socket>& sockets);

        const Options& options_;
        std::string service_;
        std::optional<std::string> unit_;               // decided by the first look; empty: the sockets of all
        std::map<std::uint64_t, Displaced> displaced_;  // by cookie
};

// Each row of the answer that is of this service.
Result<void> Wait::ask(std::string_view request, Clock::duration patience,
                       const std::function<void(const Json& row)>& on_row) const {
        Result<ControlClient> client = try_connect(options_);
        if (!client) {
                return std::unexpected(client.error());
        }
        client->set_timeout(std::chrono::duration_cast<std::chrono::milliseconds>(
                std::clamp<Clock::duration>(patience, kLeastPatience, kMostPatience)));
        const auto answer = client->call(request, {}, [&](std::string_view line) {
                const std::optional<Json> row = parse_row(line);
                if (row && cell(*row, "service") == service_) {
                        on_row(*row);
                }
        });
        if (!answer) {
                return std::unexpected(answer.error());
        }
        if (answer->result != "ok") {
                return fail(fmt::format("{}: {}", answer->result, answer->message));
        }
        return {};
}

Result<std::vector<Socket>> Wait::look(Clock::duration patience) const {
        std::vector<Socket> sockets;
        const auto asked = ask("VERB=list\n", patience, [&](const Json& row) {
                if (std::optional<Socket> one = socket_of(row)) {
                        sockets.push_back(std::move(*one));
                }
        });
        if (!asked) {
                return std::unexpected(asked.error());
        }
        return sockets;
}

Result<bool> Wait::known(Clock::duration patience) const {
        bool named = false;
        const auto asked = ask("VERB=status\n", patience, [&](const Json&) { named = true; });
        if (!asked) {
                return std::unexpected(asked.error());
        }
        return named;
}

Result<Missing> Wait::live(const std::vector<Socket>& sockets) const {
        const bool any = std::ranges::any_of(sockets, [](const Socket& one) { return one.state == "live"; });
        return any ? Missing() : fmt::format("service {} has no live socket", service_);
}

// The unit of the caller, if it has registered some of them.
std::string own_unit(const std::vector<Socket>& sockets) {
        char* name = nullptr;
        if (sd_pid_get_unit(0, &name) < 0) {
                return "";
        }
        const std::unique_ptr<char, decltype(&std::free)> owned(name, std::free);
        return std::ranges::any_of(sockets, [&](const Socket& one) { return one.unit == name; }) ? name : "";
}

void Wait::note(const std::vector<Socket>& sockets) {
        if (!unit_) {
                unit_ = own_unit(sockets);
        }
        for (auto& [cookie, one] : displaced_) {
                one.listed = false;
        }
        for (const Socket& one : sockets) {
                if (one.state != "draining") {
                        displaced_.erase(one.cookie);  // it serves again
                } else if (unit_->empty() || one.unit == *unit_) {
                        Displaced& entry =
                                displaced_.try_emplace(one.cookie, Displaced{.socket = one, .first = Clock::now()})
                                        .first->second;
                        entry.listed = true;
                        entry.socket.flows = one.flows;
                }
        }
}

Result<Missing> Wait::drained(const std::vector<Socket>& sockets) {
        note(sockets);
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
                        missing =
                                fmt::format("socket {} of service {} has {} in its queue", socket.bound, service_,
                                            socket.protocol == Protocol::kTcp ? count(queue->second.depth, "connection")
                                                                              : count(queue->second.depth, "byte"));
                } else if (entry.listed && socket.flows > 0) {
                        missing = fmt::format("socket {} of service {} has {}", socket.bound, service_,
                                              count(socket.flows, "flow"));
                } else if (socket.protocol == Protocol::kTcp && Clock::now() - entry.first < kHandshake) {
                        missing = fmt::format("socket {} of service {} may have half-open handshakes", socket.bound,
                                              service_);
                }
                ++at;
        }
        return missing;
}

int Wait::run() {
        const auto start = Clock::now();
        const auto left = [&]() -> Clock::duration {
                return options_.timeout == kForever ? Clock::duration::max()
                                                    : options_.timeout - (Clock::now() - start);
        };
        for (bool is_known = false;;) {
                const auto asked = Clock::now();
                Result<std::vector<Socket>> sockets = look(left());
                // A service without a socket may be a typing mistake: asked about once, since a policy that loses it
                // later takes its sockets away as well.
                if (sockets && sockets->empty() && !is_known) {
                        const Result<bool> found = known(left());
                        if (!found) {
                                sockets = std::unexpected(found.error());
                        } else if (!*found) {
                                complain(fmt::format(
                                        "{}: unknown-service: no policy in force has a section [Service {}]; "
                                        "check the name against sockbrokerctl status, or reload",
                                        service_, service_));
                                return kExitFailed;
                        }
                }
                is_known = is_known || sockets.has_value();
                Result<Missing> missing;
                if (sockets) {
                        missing = options_.wait_for == "live" ? live(*sockets) : drained(*sockets);
                        if (!missing) {
                                complain(missing.error().text());
                                return kExitFailed;
                        }
                        if (!*missing) {
                                return kExitOk;
                        }
                }
                if (left() <= Clock::duration::zero()) {
                        complain(
                                fmt::format("timed out: {}", sockets ? missing->value_or("") : sockets.error().text()));
                        return sockets ? kExitTimedOut : kExitUnreachable;
                }
                const auto rest = std::clamp<Clock::duration>(kRest * (Clock::now() - asked), kPeriod, kMostRest);
                std::this_thread::sleep_for(std::min(rest, left()));
        }
}

}  // namespace

int wait_for_service(const Options& options) {
        const std::string& service = options.arguments.front();
        if (const auto checked = hand_out({}, service); !checked || service.empty()) {
                complain(checked ? "the name of the service is empty" : checked.error().text());
                return kExitUsage;
        }
        if (options.wait_for.empty()) {
                complain("wait for what? write --for=live or --for=drained");
                return kExitUsage;
        }
        return Wait(options, service).run();
}

}  // namespace sockbroker::ctl
