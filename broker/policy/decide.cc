// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/policy/decide.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "broker/policy/values.h"

namespace sockbroker {

namespace {

template <class Matches>
const Matcher* first_match(const std::vector<Matcher>& matchers, Matches matches) {
        const auto found = std::find_if(matchers.begin(), matchers.end(),
                                        [&](const Matcher& matcher) { return matches(matcher.value); });
        return found == matchers.end() ? nullptr : &*found;
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
        return lookup && lookup(account).id() == id;
}

const Matcher* matching_unit(const Service& service, const Peer& peer) {
        return first_match(service.units, [&](const auto& value) { return unit_matches(value, peer.unit); });
}

const Matcher* matching_user(const Service& service, const Peer& peer, const Accounts& accounts) {
        return first_match(service.users,
                           [&](const auto& value) { return account_matches(value, peer.uid, accounts.user); });
}

const Matcher* matching_group(const Service& service, const Peer& peer, const Accounts& accounts) {
        return first_match(service.groups,
                           [&](const auto& value) { return account_matches(value, peer.gid, accounts.group); });
}

AccountHash name_of(const Matcher* matcher) {
        return matcher == nullptr || account_number(matcher->value) ? 0 : account_hash(matcher->value);
}

struct Verdict {
        const Matcher* decides = nullptr;  // none: the peer is not admitted
        AccountHash user = 0;
        AccountHash group = 0;
};

// Of Unit=, User= and Group= all that are given must match, one value of each suffices, and one must be given; the
// first of them decides.
Verdict judge(const Service& service, const Peer& peer, const Accounts& accounts) {
        const auto* unit = matching_unit(service, peer);
        if (unit == nullptr && !service.units.empty()) {
                return {};
        }
        const auto* user = matching_user(service, peer, accounts);
        if (user == nullptr && !service.users.empty()) {
                return {};
        }
        const auto* group = matching_group(service, peer, accounts);
        if (group == nullptr && !service.groups.empty()) {
                return {};
        }
        return {unit != nullptr ? unit : user != nullptr ? user : group, name_of(user), name_of(group)};
}

// Names of these matchers, unless a number among them admits already.
template <class Id>
void add_names(AccountKind kind, const std::vector<Matcher>& matchers, Id id, std::vector<AccountName>& names) {
        if (is_overflow_id(id) ||
            first_match(matchers, [&](const auto& value) { return account_number(value) == id; })) {
                return;
        }
        for (const auto& matcher : matchers) {
                if (!account_number(matcher.value)) {
                        names.push_back({kind, matcher.value});
                }
        }
}

template <class Lookup>
std::string unanswered(const std::vector<Matcher>& matchers, const Lookup& lookup) {
        constexpr std::size_t kShown = 5;
        std::string names;
        std::size_t count = 0;
        for (const auto& matcher : matchers) {
                if (!account_number(matcher.value) && lookup && !lookup(matcher.value).answered() && count++ < kShown) {
                        names += fmt::format("{}{}", names.empty() ? "" : " ", matcher.value);
                }
        }
        return names.empty() ? names
                             : fmt::format(" (the host's directory does not answer for {}{} just now, try again)",
                                           names, count > kShown ? " ..." : "");
}

std::string values_of(const std::vector<Matcher>& matchers) {
        constexpr std::size_t kShown = 5;
        std::vector<std::string_view> shown;
        for (const auto& matcher : matchers) {
                if (shown.size() == kShown) {
                        shown.emplace_back("...");
                        break;
                }
                shown.push_back(matcher.value);
        }
        return fmt::format("{}", fmt::join(shown, " "));
}

std::string why_not(const Policy& policy, const Service& service, const Peer& peer, const Accounts& accounts) {
        std::string why;
        const auto look = [&](std::string_view key, const std::vector<Matcher>& matchers, const Matcher* match,
                              const std::string& sender, const std::string& more = {}) {
                if (!matchers.empty() && match == nullptr) {
                        why += fmt::format("{}{}={} at {} does not match, the sender {}{}", why.empty() ? "" : "; ",
                                           key, values_of(matchers), policy.location(matchers.front().where), sender,
                                           more);
                }
        };
        look("Unit", service.units, matching_unit(service, peer),
             peer.unit.empty() ? "runs in no system unit" : "runs in " + peer.unit);
        look("User", service.users, matching_user(service, peer, accounts), fmt::format("has uid {}", peer.uid),
             unanswered(service.users, accounts.user));
        look("Group", service.groups, matching_group(service, peer, accounts), fmt::format("has gid {}", peer.gid),
             unanswered(service.groups, accounts.group));
        return why.empty() ? "it has no Unit=, User= or Group= and admits nobody" : why;
}

Refusal not_permitted(const Policy& policy, const Service& service, const Peer& peer, const Accounts& accounts) {
        return {ResultCode::kNotPermitted,
                fmt::format("not admitted to service {}: {}", service.name, why_not(policy, service, peer, accounts)),
                policy.location(service.where)};
}

// Whether the service is named as the unit: web for web.service and web@1.service.
bool is_named_as(const Service& service, std::string_view unit) {
        return unit.substr(0, unit.find_first_of(".@")) == service.name;
}

// Of those that do not admit the peer the one that it probably means; null: none is nearer than the others.
const Service* nearest_service(const Policy& policy, const Peer& peer, const Accounts& accounts) {
        const Service* best = policy.services.size() == 1 ? &policy.services.front() : nullptr;
        int most = 0;
        for (const auto& service : policy.services) {
                const int fits = (matching_unit(service, peer) != nullptr ? 8 : 0) +
                                 (is_named_as(service, peer.unit) ? 4 : 0) +
                                 (matching_user(service, peer, accounts) != nullptr ? 2 : 0) +
                                 (matching_group(service, peer, accounts) != nullptr ? 1 : 0);
                if (fits > most) {
                        most = fits;
                        best = &service;
                }
        }
        return best;
}

std::expected<Admission, Refusal> find_service(const Policy& policy, const Peer& peer, const Accounts& accounts) {
        constexpr std::size_t kShown = 5;
        Admission admission;
        std::vector<std::string_view> names;
        for (const auto& service : policy.services) {
                const auto verdict = judge(service, peer, accounts);
                if (verdict.decides == nullptr) {
                        continue;
                }
                if (names.size() == kShown) {
                        names.emplace_back("...");
                        break;
                }
                names.push_back(service.name);
                admission = {&service, policy.location(verdict.decides->where), verdict.user, verdict.group};
        }
        if (names.empty()) {
                const auto* near = nearest_service(policy, peer, accounts);
                const auto hint = near == nullptr ? ", name one with FDNAME= to be told what does not match"
                                                  : fmt::format("; the nearest is {}: {}", near->name,
                                                                why_not(policy, *near, peer, accounts));
                return std::unexpected(
                        Refusal{ResultCode::kNotPermitted,
                                fmt::format("no service admits a sender with uid {}, gid {}, {}{}", peer.uid, peer.gid,
                                            peer.unit.empty() ? "in no system unit" : "in unit " + peer.unit, hint),
                                near == nullptr ? std::string() : policy.location(near->where)});
        }
        if (names.size() > 1) {
                return std::unexpected(
                        Refusal{ResultCode::kAmbiguous,
                                fmt::format("several services admit the sender ({}), name one with FDNAME=",
                                            fmt::join(names, " ")),
                                {}});
        }
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
        const auto verdict = judge(*found, peer, accounts);
        if (verdict.decides == nullptr) {
                return std::unexpected(not_permitted(policy, *found, peer, accounts));
        }
        return Admission{found, policy.location(verdict.decides->where), verdict.user, verdict.group};
}

bool admits(const Service& service, const Peer& peer, const Accounts& accounts) {
        return judge(service, peer, accounts).decides != nullptr;
}

bool may_admit(const Service& service, const Peer& peer) {
        const auto may = [](const std::vector<Matcher>& matchers, auto id) {
                return matchers.empty() || (!is_overflow_id(id) && first_match(matchers, [&](const auto& value) {
                                                                           const auto number = account_number(value);
                                                                           return !number || *number == id;
                                                                   }) != nullptr);
        };
        const bool any = !service.units.empty() || !service.users.empty() || !service.groups.empty();
        return any && (service.units.empty() || matching_unit(service, peer) != nullptr) &&
               may(service.users, peer.uid) && may(service.groups, peer.gid);
}

std::vector<AccountName> names_that_matter(const Policy& policy, const Peer& peer, std::string_view service) {
        std::vector<AccountName> names;
        const auto add = [&](const Service& one) {
                if (one.units.empty() || matching_unit(one, peer) != nullptr) {
                        add_names(AccountKind::kUser, one.users, peer.uid, names);
                        add_names(AccountKind::kGroup, one.groups, peer.gid, names);
                }
        };
        if (service.empty()) {
                std::ranges::for_each(policy.services, add);
        } else if (const auto* found = policy.find(service)) {
                add(*found);
        }
        return names;
}

std::vector<AccountName> account_names(const Policy& policy) {
        std::set<AccountName> names;
        const auto add = [&](AccountKind kind, const std::vector<Matcher>& matchers) {
                for (const auto& matcher : matchers) {
                        if (!account_number(matcher.value)) {
                                names.insert({kind, matcher.value});
                        }
                }
        };
        for (const auto& service : policy.services) {
                add(AccountKind::kUser, service.users);
                add(AccountKind::kGroup, service.groups);
        }
        return {names.begin(), names.end()};
}

}  // namespace sockbroker
