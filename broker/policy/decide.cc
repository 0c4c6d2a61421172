// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/policy/decide.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "broker/policy/values.h"

namespace sockbroker {

namespace {

template <class Matches>
const Claim* first_match(const std::vector<Claim>& claims, Matches matches) {
        const auto found =
                std::find_if(claims.begin(), claims.end(), [&](const Claim& claim) { return matches(claim.value); });
        return found == claims.end() ? nullptr : &*found;
}

// A name that means the overflow id (nobody, nogroup) means nobody in particular.
template <class Id, class Lookup>
bool account_matches(const std::string& account, Id id, const Lookup& lookup) {
        if (is_overflow_id(id)) {
                return false;
        }
        if (const auto number = account_number(account)) {
                return *number == id;
        }
        return lookup && lookup(account) == id;
}

const Claim* matching_unit(const Service& service, const Peer& peer) {
        return first_match(service.units, [&](const auto& value) { return unit_matches(value, peer.unit); });
}

const Claim* matching_user(const Service& service, const Peer& peer, const Accounts& accounts) {
        return first_match(service.users,
                           [&](const auto& value) { return account_matches(value, peer.uid, accounts.user); });
}

const Claim* matching_group(const Service& service, const Peer& peer, const Accounts& accounts) {
        return first_match(service.groups,
                           [&](const auto& value) { return account_matches(value, peer.gid, accounts.group); });
}

// Of Unit=, User= and Group= all that are given must match, one value of each suffices, and one must be given. Returns
// the first that admits; none: the peer is not admitted. Names of accounts, which may be slow to look up, come last: a
// message without FDNAME= goes through all services.
const Claim* deciding_claim(const Service& service, const Peer& peer, const Accounts& accounts) {
        const auto* unit = matching_unit(service, peer);
        if (unit == nullptr && !service.units.empty()) {
                return nullptr;
        }
        const auto* user = matching_user(service, peer, accounts);
        if (user == nullptr && !service.users.empty()) {
                return nullptr;
        }
        const auto* group = matching_group(service, peer, accounts);
        if (group == nullptr && !service.groups.empty()) {
                return nullptr;
        }
        return unit != nullptr ? unit : user != nullptr ? user : group;
}

std::string values_of(const std::vector<Claim>& claims) {
        constexpr std::size_t kShown = 5;
        std::vector<std::string_view> shown;
        for (const auto& claim : claims) {
                if (shown.size() == kShown) {
                        shown.emplace_back("...");
                        break;
                }
                shown.push_back(claim.value);
        }
        return fmt::format("{}", fmt::join(shown, " "));
}

Refusal not_permitted(const Policy& policy, const Service& service, const Peer& peer, const Accounts& accounts) {
        std::string why;
        const auto look = [&](std::string_view key, const std::vector<Claim>& claims, const Claim* match,
                              const std::string& sender) {
                if (!claims.empty() && match == nullptr) {
                        why += fmt::format("{}{}={} at {} does not match, the sender {}", why.empty() ? "" : "; ", key,
                                           values_of(claims), policy.place(claims.front().where), sender);
                }
        };
        look("Unit", service.units, matching_unit(service, peer),
             peer.unit.empty() ? "runs in no system unit" : "runs in " + peer.unit);
        look("User", service.users, matching_user(service, peer, accounts), fmt::format("has uid {}", peer.uid));
        look("Group", service.groups, matching_group(service, peer, accounts), fmt::format("has gid {}", peer.gid));
        if (why.empty()) {
                why = "it has no Unit=, User= or Group= and admits nobody";
        }
        return {ResultCode::kNotPermitted, fmt::format("not admitted to service {}: {}", service.name, why),
                policy.place(service.where)};
}

std::expected<Admission, Refusal> find_service(const Policy& policy, const Peer& peer, const Accounts& accounts) {
        constexpr std::size_t kShown = 5;
        Admission admission;
        const Claim* decides = nullptr;
        std::vector<std::string_view> names;
        for (const auto& service : policy.services) {
                const auto* claim = deciding_claim(service, peer, accounts);
                if (claim == nullptr) {
                        continue;
                }
                if (names.size() == kShown) {
                        names.emplace_back("...");
                        break;
                }
                names.push_back(service.name);
                admission.service = &service;
                decides = claim;
        }
        if (names.empty()) {
                return std::unexpected(Refusal{
                        ResultCode::kNotPermitted,
                        fmt::format(
                                "no service admits a sender with uid {}, gid {}, {}, name one with FDNAME= to be told "
                                "what does not match",
                                peer.uid, peer.gid, peer.unit.empty() ? "in no system unit" : "in unit " + peer.unit),
                        {}});
        }
        if (names.size() > 1) {
                return std::unexpected(
                        Refusal{ResultCode::kAmbiguous,
                                fmt::format("several services admit the sender ({}), name one with FDNAME=",
                                            fmt::join(names, " ")),
                                {}});
        }
        admission.rule = policy.place(decides->where);
        return admission;
}

}  // namespace

std::expected<Admission, Refusal> admit(const Policy& policy, const Peer& peer, std::string_view service,
                                        const Accounts& accounts) {
        if (service.empty()) {
                return find_service(policy, peer, accounts);
        }
        const auto* found = policy.find(service);
        if (found == nullptr) {
                return std::unexpected(
                        Refusal{ResultCode::kUnknownService,
                                fmt::format("no policy has a section [Service {}], check FDNAME= or add one and reload",
                                            service),
                                {}});
        }
        const auto* claim = deciding_claim(*found, peer, accounts);
        if (claim == nullptr) {
                return std::unexpected(not_permitted(policy, *found, peer, accounts));
        }
        return Admission{found, policy.place(claim->where)};
}

}  // namespace sockbroker
