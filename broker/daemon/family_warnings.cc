// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/family_warnings.h"

#include <algorithm>
#include <optional>

#include <fmt/format.h>

#include "broker/base/event.h"
#include "broker/daemon/entries.h"
#include "broker/policy/warnings.h"

namespace sockbroker {

namespace {

constexpr std::int64_t kAfterUsec = 5'000'000;

struct FirstChoices {
        const Registration* ipv4;
        const Registration* ipv6;

        [[nodiscard]] Served served() const { return {ipv4 != nullptr, ipv6 != nullptr}; }
};

FirstChoices first_choices(const Registry& registry, const std::string& service, Protocol protocol) {
        const auto all = registry.registrations(service);
        return {.ipv4 = first_choice(all, protocol, Family::kIpv4), .ipv6 = first_choice(all, protocol, Family::kIpv6)};
}

}  // namespace

std::vector<std::string> FamilyWarnings::look_at(const Admission& admission, std::span<const SocketFacts> sockets) {
        const Service& service = *admission.service;
        std::vector<std::string> warnings;
        for (const auto protocol : {Protocol::kTcp, Protocol::kUdp}) {
                const auto one = std::ranges::find(sockets, protocol, &SocketFacts::protocol);
                if (one == sockets.end()) {
                        continue;
                }
                auto warning = family_warning(service, protocol, one->bound,
                                              first_choices(registry_, service.name, protocol).served());
                const auto key = std::pair(service.name, protocol);
                if (!warning) {
                        missing_.erase(key);
                        continue;
                }
                // Where one registers again and again the time is that of the first.
                missing_.try_emplace(key, Missing{.due_usec = steady_usec() + kAfterUsec, .rule = admission.rule});
                warnings.push_back(std::move(*warning));
        }
        return warnings;
}

void FamilyWarnings::tell_due() {
        const auto now = steady_usec();
        for (auto one = missing_.begin(); one != missing_.end();) {
                if (one->second.due_usec > now) {
                        ++one;
                        continue;
                }
                const auto due = missing_.extract(one++);
                tell(due.key().first, due.key().second, due.mapped().rule);
        }
}

void FamilyWarnings::tell(const std::string& name, Protocol protocol, const std::string& rule) {
        const Service* service = policy_->find(name);
        const auto now = first_choices(registry_, name, protocol);
        const Registration* one = now.ipv4 != nullptr ? now.ipv4 : now.ipv6;
        if (service == nullptr || one == nullptr) {
                return;
        }
        const auto warning = family_warning(*service, protocol, one->bound, now.served());
        if (!warning || !entries_.is_news(name, std::span(&one->cookie, 1), *warning)) {
                return;
        }
        Entry entry = entry_of(Action::kWarn, name, *one);
        entry.priority = 4;
        entry.result = to_string(ResultCode::kOk);
        entry.rule = rule;
        entry.message = fmt::format("{} was registered by {}: {}", name, one->registrant.to_string(), *warning);
        entries_.write(std::move(entry));
}

}  // namespace sockbroker
