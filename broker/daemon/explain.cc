// SPDX-License-Identifier: LGPL-2.1-or-later
//
// VERB=explain: what happens to a packet, and why. The kernel's rules say what, the policy in force where that is
// written, the registry whose the socket is. Changes nothing and asks nobody else.
#include <algorithm>
#include <iterator>
#include <utility>

#include <fmt/format.h>

#include "broker/base/json_text.h"
#include "broker/base/wall_clock.h"
#include "broker/daemon/report.h"
#include "broker/policy/precedence.h"

namespace sockbroker {

namespace {

constexpr std::size_t kMostNext = 8;
// No interface has it, so no rule either: Interface= of a policy takes those up to kMaxInterfaceIndex.
constexpr std::uint32_t kOtherInterface = kMaxInterfaceIndex + 1;

// Where it comes in, for the rules: those know no interface but the policy's.
std::uint32_t index_of(const Interfaces& interfaces, const std::string& name) {
        if (name.empty()) {
                return 0;
        }
        const auto found = interfaces.find(name);
        return found == interfaces.end() || found->second == 0 ? kOtherInterface : found->second;
}

// What is wrong with the sockets that a step has tried; empty: nothing, or there was none.
std::string faults(const Explained::Step& step) {
        std::string text;
        const auto add = [&](bool fault, std::string_view words) {
                text += fault ? fmt::format("{}{}", text.empty() ? "" : ", ", words) : "";
        };
        add(step.wrong_family, "is of the other address family only");
        add(step.wrong_protocol, "is of another protocol");
        add(step.wrong_state, "was shut down or connected by its owner");
        add(step.other_error, "was refused by the kernel");
        return text;
}

std::string_view consequence(WhenAbsent when_absent) {
        switch (when_absent) {
        case WhenAbsent::kPass:
                return "the ordinary lookup decides (WhenAbsent=pass)";
        case WhenAbsent::kNext:
                return "the next binding decides (WhenAbsent=next)";
        default:
                return "the client is refused at once (WhenAbsent=refuse)";
        }
}

// Of a service whose step did not deliver.
std::string absence(const std::string& service, const Explained::Step& step, std::span<const Registration> sockets,
                    const LookUp& look_up) {
        const auto family = look_up.local.address.family;
        if (const auto wrong = faults(step); !wrong.empty()) {
                return fmt::format("a socket of {} {}", service, wrong);
        }
        if (sockets.empty()) {
                return fmt::format("{} has no socket", service);
        }
        return fmt::format("{} has no live socket for {} and {}, of {} in all", service, to_string(look_up.protocol),
                           to_string(family), sockets.size());
}

std::string delivery(const std::string& service, const Explained::Step& step, const Registration* socket,
                     std::span<const Registration> sockets, const LookUp& look_up) {
        if (socket != nullptr && socket->held()) {
                return fmt::format(
                        "{} is gone, and its socket is held for the next instance: clients wait in its queue", service);
        }
        if (step.stayed) {
                return fmt::format("{} has served this flow from this socket before (UdpFlows=stay)", service);
        }
        if (step.shared) {
                const auto serving = std::ranges::count_if(sockets, [&](const Registration& one) {
                        return one.serves_in(look_up.protocol, look_up.local.address.family);
                });
                return fmt::format("{} shares among {} sockets, the client's address and port choose this one", service,
                                   serving);
        }
        if (step.kernel_chooses) {
                return fmt::format("{} serves, and within the socket's SO_REUSEPORT group the kernel chooses", service);
        }
        const auto wrong = faults(step);
        return wrong.empty() ? fmt::format("{} serves", service)
                             : fmt::format("{} serves from a socket in reserve: a newer one {}", service, wrong);
}

std::string matchers_of(std::string_view key, const std::vector<Matcher>& matchers) {
        constexpr std::size_t kShown = 3;
        std::string text;
        for (std::size_t i = 0; i < std::min(matchers.size(), kShown); i++) {
                text += fmt::format("{}{}", text.empty() ? fmt::format("{}=", key) : " ", matchers[i].value);
        }
        return text + (matchers.size() > kShown ? " ..." : "");
}

// What starts whoever hands over a socket: a unit that policy names, not by a pattern; a service before a .socket unit.
std::string start_of(const Service& service) {
        const auto is_one = [](const Matcher& matcher) {
                const auto at = matcher.value.find("@.");
                return at == std::string::npos && matcher.value.find_first_of("*?[") == std::string::npos;
        };
        const auto find = [&](std::string_view suffix) {
                return std::ranges::find_if(service.units, [&](const Matcher& matcher) {
                        return is_one(matcher) && matcher.value.ends_with(suffix);
                });
        };
        auto unit = find(".service");
        unit = unit == service.units.end() ? find(".socket") : unit;
        return unit == service.units.end() ? "" : fmt::format(", as at: systemctl restart {}", unit->value);
}

std::string object_or_null(const std::string& line) {
        return line.empty() ? "null" : line.substr(0, line.find('\n'));
}

std::string array_of(const std::vector<std::string>& lines) {
        std::string text;
        for (const auto& line : lines) {
                text += fmt::format("{}{}", text.empty() ? "" : ",", object_or_null(line));
        }
        return "[" + text + "]";
}

std::string line_of(const Policy& policy, const MetBinding& met) {
        return met_binding_line(policy, *met.service, *met.binding, met.client);
}

}  // namespace

std::vector<std::string> Report::how_to_serve_again(const Service& service) const {
        std::vector<std::string> notes;
        if (const auto* last = departures_.last_of(service.name); last != nullptr) {
                notes.push_back(fmt::format("the last socket of {} went {} s ago: {}", service.name,
                                            (wall_usec() - last->usec) / 1'000'000, last->why));
        }
        std::string who;
        for (const auto& text : {matchers_of("Unit", service.units), matchers_of("User", service.users),
                                 matchers_of("Group", service.groups)}) {
                who += fmt::format("{}{}", who.empty() || text.empty() ? "" : " and ", text);
        }
        notes.push_back(who.empty() ? fmt::format("nobody can register for {}: it has no Unit=, User= or Group= ({})",
                                                  service.name, policy_->location(service.where))
                                    : fmt::format("{} serves when whoever policy admits ({}) registers a socket{}",
                                                  service.name, who, start_of(service)));
        return notes;
}

Answer Report::explain(const Request& request) {
        const LookUp look_up{
                .protocol = request.bind.protocol,
                .local = request.bind.at,
                .remote = request.client.from.value_or(Endpoint{.address = {.family = request.bind.at.address.family}}),
                .ifindex = index_of(policy_.interfaces(), request.client.interface),
                .no_client = !request.client.from};
        const auto explained = dataplane_.explain(look_up);
        if (!explained) {
                return {.code = ResultCode::kInternal, .message = explained.error().text()};
        }
        Packet packet{.protocol = look_up.protocol, .to = look_up.local, .from = {}, .ifindex = look_up.ifindex};
        if (request.client.from) {
                packet.from = request.client.from->address;
        }
        const auto met = bindings_met(*policy_, policy_.interfaces(), packet, explained->matched() + kMostNext);
        const auto& names = dataplane_.service_names();
        const auto name_of = [&](const Explained::Step& step) {
                return step.service < names.size() ? names[step.service] : std::string();
        };
        // Each step of the kernel is a binding of the policy, in the same order, unless another policy is in force
        // there: just now, or because there is none.
        const bool agree = explained->matched() <= met.first.size() &&
                           std::ranges::all_of(explained->steps, [&](const auto& step) {
                                   return name_of(step) == met.first[step.at].service->name;
                           });
        if (!agree && reloads_.changing()) {
                return {.code = ResultCode::kBusy, .message = "the policy is being replaced, ask again"};
        }

        std::vector<std::string> notes;
        std::string reason, service, binding, socket;
        std::size_t told = 0;
        for (const auto& step : explained->steps) {
                if (step.at > told) {
                        reason += fmt::format("{} bindings more pass it on; ", step.at - told);
                }
                told = step.at + 1;
                service = name_of(step);
                binding = agree ? line_of(*policy_, met.first[step.at]) : "";
                if (!step.delivered && registry_.registrations(service).size() <= kAskAll) {
                        departures_.gone(registry_.refresh(service));
                }
                const auto sockets = registry_.registrations(service);
                const auto found = std::ranges::find(sockets, explained->cookie, &Registration::cookie);
                const Registration* taker = found == sockets.end() ? nullptr : &*found;
                if (step.delivered) {
                        reason += delivery(service, step, taker, sockets, look_up);
                } else {
                        reason += absence(service, step, sockets, look_up);
                        if (const auto* found_service = policy_->find(service);
                            sockets.empty() && found_service != nullptr) {
                                std::ranges::move(how_to_serve_again(*found_service), std::back_inserter(notes));
                        }
                        const bool last = told == explained->matched();
                        reason += agree ? fmt::format(": {}{}", consequence(met.first[step.at].service->when_absent),
                                                      last ? "" : "; ")
                                        : "";
                }
                if (step.delivered && taker != nullptr) {
                        socket = list_line(service, *taker, is_live(sockets, registry_.distribution(service), *taker));
                }
        }
        if (explained->steps.empty()) {
                reason = "no binding covers it, the ordinary lookup decides";
        } else if (explained->cookie == 0 && !explained->refused && agree &&
                   met.first[explained->matched() - 1].service->when_absent == WhenAbsent::kNext) {
                reason += "; there is none, so the ordinary lookup decides";
        }
        if (!agree) {
                notes.emplace_back("the rules in the kernel are not those of the policy in force, see status");
        } else if (!explained->steps.empty() && !reloads_.status().degraded.empty()) {
                notes.emplace_back(
                        "files and lines are those of the policy in force, which is not the one on disk, see status");
        }
        if (attachment_.is_lost()) {
                notes.emplace_back("this is what the rules say, but nothing is dispatched, see status");
        }
        if (met.depends_on_source) {
                notes.emplace_back(
                        "there are bindings for some clients only (Source=), which were left out: say --from");
        }
        if (met.depends_on_interface) {
                notes.emplace_back(
                        "there are bindings for some interfaces only (Interface=), which were left out: say "
                        "--interface");
        }
        if (!request.client.from && std::ranges::any_of(explained->steps, &Explained::Step::shared)) {
                notes.emplace_back("another client may reach another socket: say --from");
        }
        std::vector<std::string> next;
        for (std::size_t i = explained->matched(); agree && i < met.first.size() && next.size() < kMostNext; i++) {
                next.push_back(line_of(*policy_, met.first[i]));
        }
        const bool decided = !explained->steps.empty();
        const std::string_view verdict = explained->cookie != 0 ? "socket" : explained->refused ? "refused" : "pass";
        auto rows = rows_of_lines(fmt::format(
                "{{\"verdict\":\"{}\",\"service\":{},\"binding\":{},\"cookie\":{},\"reason\":{},\"socket\":{},"
                "\"next\":{},\"notes\":{},\"netns\":\"{:x}\"}}\n",
                verdict, decided ? JsonText(service).text() : "null", object_or_null(binding),
                explained->cookie != 0 ? fmt::format("\"{:016x}\"", explained->cookie) : "null",
                JsonText(reason).text(), object_or_null(socket), array_of(next), JsonText(notes).text(),
                netns_cookie_));
        return {.message = std::string(verdict), .rows = std::move(rows)};
}

}  // namespace sockbroker
