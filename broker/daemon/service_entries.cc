// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/service_entries.h"

#include <functional>
#include <utility>

#include <fmt/format.h>

#include "broker/base/event.h"

namespace sockbroker {

void ServiceEntries::write(Entry entry) {
        const auto* service = policy_->find(entry.service);
        const auto burst = ServiceLog::burst(service == nullptr ? 0 : service->max_sockets);
        switch (log_.count(entry.service, entry.action, burst, steady_usec())) {
        case ServiceLog::Verdict::kWritten:
                return audit_.write(std::move(entry));
        case ServiceLog::Verdict::kFirstLeftOut:
                return audit_.write(
                        {.action = entry.action,
                         .priority = 4,
                         .message = fmt::format("{} has {} entries of kind \"{}\" in less than {} s, more of them are "
                                                "counted and not written one by one",
                                                entry.service, burst, action_name(entry.action),
                                                ServiceLog::kWindowUsec / 1'000'000),
                         .service = entry.service});
        case ServiceLog::Verdict::kLeftOut:
                return;
        }
}

void ServiceEntries::note(const std::string& service, int priority, std::string message) {
        write({.action = Action::kDiagnostic, .priority = priority, .message = std::move(message), .service = service});
}

bool ServiceEntries::is_news(const std::string& service, std::span<const std::uint64_t> cookies,
                             const std::string& warning) {
        constexpr std::size_t kMaxSaid = 65'536;
        constexpr std::uint64_t kSpread = 0x9E3779B97F4A7C15;  // 2^64 by the golden ratio: neighbours come far apart
        if (said_under_.lock() != policy_.shared() || said_.size() + cookies.size() > kMaxSaid) {
                said_.clear();
                said_under_ = policy_.shared();
        }
        const std::uint64_t what = std::hash<std::string>{}(service + ' ' + warning);
        bool news = false;
        for (const auto cookie : cookies) {
                news |= said_.insert(what ^ (cookie * kSpread)).second;
        }
        return news;
}

void ServiceEntries::tell_left_out() {
        for (const auto& [service, action, count] : log_.take_left_out(steady_usec())) {
                audit_.write({.action = action,
                              .priority = 4,
                              .message = fmt::format("{} entries of {} of kind \"{}\" were not written one by one",
                                                     count, service, action_name(action)),
                              .service = service});
        }
}

}  // namespace sockbroker
