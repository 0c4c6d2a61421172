// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/policy/takers.h"

#include <algorithm>
#include <optional>
#include <span>
#include <tuple>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "broker/policy/decide.h"

namespace sockbroker {

namespace {

bool is_unspecified(const Address& address) {
        return std::ranges::all_of(address.bytes, [](auto byte) { return byte == 0; });
}

// Such packets never come to the dispatch.
bool is_for_many(const Address& address) {
        return is_multicast(address) || is_broadcast(address);
}

// What is compared, smaller is better.
using Fit = std::tuple<unsigned, unsigned>;

std::optional<Fit> fit(const Service& service, const Binding& binding, const WantedBind& bind) {
        if (binding.protocol != bind.protocol || binding.prefix.address.family != bind.at.address.family ||
            !binding.ports.contains(bind.at.port) || !has_clients(service, bind.at.address.family)) {
                return std::nullopt;
        }
        if (is_unspecified(bind.at.address)) {
                return Fit{binding.ports.width(), binding.prefix.length == 0 ? 0 : 1};
        }
        if (is_for_many(bind.at.address) || !covers(binding.prefix, bind.at.address)) {
                return std::nullopt;
        }
        return Fit{address_bits(bind.at.address.family) - binding.prefix.length, binding.ports.width()};
}

// "tcp 192.0.2.0/24:80"; for ports alone one of their two families.
std::string text_of(const Service& service, const Binding& binding) {
        const auto protocol = to_string(binding.protocol);
        const auto ports = binding.ports.to_string();
        const bool ipv6 = binding.prefix.address.family == Family::kIpv6;
        if (!binding.bare) {
                return fmt::format("{} {}{}{}/{}:{}", protocol, ipv6 ? "[" : "", binding.prefix.address.to_string(),
                                   ipv6 ? "]" : "", binding.prefix.length, ports);
        }
        const bool both = has_clients(service, ipv6 ? Family::kIpv4 : Family::kIpv6);
        return fmt::format("{} {}{}", protocol, ports,
                           both   ? ""
                           : ipv6 ? " for clients of IPv6 alone"
                                  : " for clients of IPv4 alone");
}

// "tcp 192.0.2.0/24:80, tcp 443 and more": first those of the protocol and the family that are asked for.
std::string bindings_of(const Service& service, const WantedBind& bind) {
        constexpr std::size_t kLookedAt = 256;  // a service may have a million
        constexpr std::size_t kShown = 3;
        std::vector<std::string> alike, others;
        const auto looked_at = std::min(service.bindings.size(), kLookedAt);
        for (const auto& binding : std::span(service.bindings).first(looked_at)) {
                const auto family = binding.prefix.address.family;
                const bool fits = binding.protocol == bind.protocol && family == bind.at.address.family;
                const bool told =
                        binding.bare && !fits && family == Family::kIpv6 && has_clients(service, Family::kIpv4);
                auto& list = fits ? alike : others;
                if (list.size() <= kShown && !told && has_clients(service, family)) {
                        list.push_back(text_of(service, binding));
                }
        }
        auto& list = alike.empty() ? others : alike;
        const bool more = list.size() > kShown || looked_at < service.bindings.size();
        list.resize(std::min(list.size(), kShown));
        return list.empty() ? "no binding" : fmt::format("{}{}", fmt::join(list, ", "), more ? " and more" : "");
}

}  // namespace

std::vector<Taker> takers(const Policy& policy, const WantedBind& bind, const Peer& peer) {
        std::vector<std::pair<Fit, Taker>> found;
        const auto look_at = [&](const Service& service) {
                if (!may_admit(service, peer)) {
                        return;
                }
                std::optional<Fit> best;
                Taker taker{.service = &service};
                for (const auto& binding : service.bindings) {
                        const auto one = fit(service, binding, bind);
                        if (one && (!best || *one < *best)) {
                                best = one;
                                taker.binding = &binding;
                        }
                }
                if (best) {
                        found.emplace_back(*best, taker);
                }
        };
        if (bind.services.empty()) {
                std::ranges::for_each(policy.services, look_at);
        } else {
                auto names = bind.services;
                std::ranges::sort(names);
                names.erase(std::ranges::unique(names).begin(), names.end());
                for (const auto& name : names) {
                        if (const auto* service = policy.find(name)) {
                                look_at(*service);
                        }
                }
        }
        std::ranges::stable_sort(found, {}, &std::pair<Fit, Taker>::first);
        std::vector<Taker> sorted;
        sorted.reserve(found.size());
        for (std::size_t i = 0; i < found.size(); i++) {
                Taker taker = found[i].second;
                taker.rank = i == 0 ? 0 : sorted.back().rank + (found[i].first == found[i - 1].first ? 0 : 1);
                sorted.push_back(taker);
        }
        return sorted;
}

const Service* find_binder(const Policy& policy, const WantedBind& bind) {
        constexpr std::size_t kMostLookedAt = 20'000;
        std::size_t looked_at = 0;
        for (const auto& service : policy.services) {
                for (const auto& binding : service.bindings) {
                        if (fit(service, binding, bind)) {
                                return &service;
                        }
                        if (++looked_at == kMostLookedAt) {
                                return nullptr;
                        }
                }
        }
        return nullptr;
}

std::string describe(const WantedBind& bind) {
        return fmt::format("{} {}", to_string(bind.protocol), bind.at.to_string());
}

std::optional<Refusal> unknown_names(const Policy& policy, const WantedBind& bind) {
        for (const auto& name : bind.services) {
                if (policy.find(name) == nullptr) {
                        return Refusal{
                                ResultCode::kUnknownService,
                                fmt::format("no policy has a section [Service {}], check FDNAME= or add one and reload",
                                            name),
                                {}};
                }
        }
        return std::nullopt;
}

std::string what_is_admitted(const Policy& policy, const WantedBind& bind, const Peer& peer, const Accounts& accounts) {
        constexpr std::size_t kServicesShown = 3;
        std::vector<std::string> shown;
        const auto look_at = [&](const Service& service) {
                if (shown.size() < kServicesShown && may_admit(service, peer) && admits(service, peer, accounts)) {
                        shown.push_back(fmt::format("{}, which admits the sender, has {}", service.name,
                                                    bindings_of(service, bind)));
                }
        };
        if (bind.services.empty()) {
                std::ranges::for_each(policy.services, look_at);
        } else {
                for (const auto& name : bind.services) {
                        if (const auto* service = policy.find(name)) {
                                look_at(*service);
                        }
                }
        }
        return fmt::format("{}", fmt::join(shown, "; "));
}

Refusal no_taker(const WantedBind& bind, const std::string& instead, const std::string& turned_away) {
        const auto of = bind.services.empty() ? "no service that admits the sender"
                                              : fmt::format("none of {}", fmt::join(bind.services, " "));
        std::string why = is_for_many(bind.at.address)
                                  ? "multicast and broadcasts never reach the dispatch, let the program bind to it "
                                    "itself (sockbroker-run: leave its port out of --bind=)"
                                  : instead;
        if (!turned_away.empty()) {
                why += fmt::format("{}{}", why.empty() ? "" : "; ", turned_away);
        }
        return {ResultCode::kNotPermitted,
                fmt::format("{} takes a socket bound to {}: {}", of, describe(bind),
                            why.empty() ? "no service has a binding that covers it, or admits the sender" : why),
                {}};
}

Refusal too_many_takers(const WantedBind& bind, const std::vector<std::string>& names) {
        return {ResultCode::kAmbiguous,
                fmt::format("several services that admit the sender take a socket bound to {} ({}), name one with "
                            "FDNAME= (sockbroker-run: --service=)",
                            describe(bind), fmt::join(names, " ")),
                {}};
}

}  // namespace sockbroker
