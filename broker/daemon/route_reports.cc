// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the kernel has of the routes, by what sockbroker-routes says of it: who waits for that, and who is told.
#include <algorithm>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "broker/daemon/routes.h"

namespace sockbroker {

namespace {

constexpr std::int64_t kWaitUsec = 4'000'000;  // for sockbroker-routes

std::string count_prefixes(std::size_t number) {
        return fmt::format("{} prefix{}", number, number == 1 ? "" : "es");
}

std::string describe_refused(const routes::Report& report, std::uint32_t table) {
        if (report.refused == 0) {
                return {};
        }
        const auto where = report.kind == routes::Kind::kLocal ? std::string("a local route")
                                                               : fmt::format("a route in table {}", table);
        std::string why;
        switch (report.reason) {
        case routes::Reason::kConnected:
                why = "an interface is connected to that network, or to one in it";
                break;
        case routes::Reason::kUnroutable:
                why = routes::why_unroutable(report.example);
                break;
        default:
                why = fmt::format("the kernel refuses: {}", std::strerror(static_cast<int>(report.errnum)));
        }
        return fmt::format("{} cannot have {}: {}{}", report.example.to_string(), where, why,
                           report.refused == 1 ? "" : fmt::format(" (and {} more)", report.refused - 1));
}

}  // namespace

void Routes::reported(const routes::Report& report) {
        auto& state = kind(report.kind);
        if (!std::exchange(lost_, std::string()).empty()) {
                audit_.note(5, fmt::format("{} is there", options_.socket_path));
        }
        const bool repaired = report.number == state.acknowledged && state.acknowledged != 0;
        if (repaired && report.added + report.removed > 0) {
                audit_.note(
                        4,
                        fmt::format(
                                "somebody has changed {} routes of the broker, or they may not be where they were: {} "
                                "made again, {} removed",
                                to_string(report.kind), report.added, report.removed));
        }
        tell_of_refused(report, state);
        state.report = report;
        if (report.number != state.number || repaired) {
                return;
        }
        state.acknowledged = report.number;
        if (report.kind == routes::Kind::kAnnounce) {
                tell_of_services(report);
        }
        finish_waiting(false);
        const auto nothing = [](const OfKind& one) {
                return one.told != nullptr && one.told->empty() && one.acknowledged == one.number;
        };
        // Nothing is to stand and nothing does: sockbroker-routes may end, and the next broker need not ask.
        if (plan_ != nullptr && plan_->empty() && std::ranges::all_of(kinds_, nothing)) {
                if (const auto written = memory_.set_may_stand(false); !written) {
                        audit_.note(3, written.error().text());
                }
                link_.leave();
                kinds_ = {};
                told_any_ = false;
        }
}

void Routes::tell_of_refused(const routes::Report& report, OfKind& state) {
        auto said = describe_refused(report, options_.table);
        if (!said.empty() && said != state.refused) {
                audit_.note(4, said);
        }
        state.refused = std::move(said);
}

// Entries for those that the kernel has, or has no more, by the list that it was told.
void Routes::tell_of_services(const routes::Report& report) {
        const bool first = !std::exchange(standing_known_, true);
        const auto before = std::exchange(standing_, announced_);
        // Those of the broker before this one stood all the while.
        const bool unchanged = first && report.added == 0;
        for (const auto& name : standing_) {
                const auto found = plan_->announcing.find(name);
                if (!before.contains(name) && !unchanged && found != plan_->announcing.end()) {
                        entries_.write({.action = Action::kAnnounce,
                                        .priority = 5,
                                        .message = fmt::format("{} is announced: {} in table {}", name,
                                                               count_prefixes(found->second.prefixes), options_.table),
                                        .service = name});
                }
        }
        for (const auto& name : before) {
                if (standing_.contains(name)) {
                        continue;
                }
                const auto found = services_.find(name);
                const std::string why = withdrawn_                        ? "dispatch is taken away"
                                        : found == services_.end()        ? "policy does not announce it any more"
                                        : found->second.damping.drained() ? "it is drained"
                                                                          : found->second.why;
                entries_.write({.action = Action::kWithdraw,
                                .priority = 5,
                                .message = fmt::format("{} is not announced any more: {}", name, why),
                                .service = name});
        }
}

void Routes::finish_waiting(bool all) {
        const auto acknowledged = kind(routes::Kind::kAnnounce).acknowledged;
        const auto now = steady_usec();
        std::vector<std::pair<Done, bool>> finished;
        std::erase_if(waiting_, [&](Waiting& one) {
                const bool in_kernel = acknowledged >= one.number;
                if (!in_kernel && !all && now < one.until_usec) {
                        return false;
                }
                finished.emplace_back(std::move(one.done), in_kernel);
                return true;
        });
        for (const auto& [done, in_kernel] : finished) {
                done(in_kernel);
        }
}

void Routes::when_in_kernel(Done done) {
        const auto& state = kind(routes::Kind::kAnnounce);
        if (state.told == nullptr ? !memory_.may_stand() : state.acknowledged == state.number) {
                return done(true);
        }
        if (!lost_.empty()) {
                return done(false);
        }
        // The first list of a broker that has just been started may not be told yet.
        const auto number = state.told == nullptr ? state.number + 1 : state.number;
        waiting_.push_back({.number = number, .until_usec = steady_usec() + kWaitUsec, .done = std::move(done)});
        schedule(steady_usec() + kWaitUsec);
}

RouteSum Routes::sum() const {
        const auto& local = kind(routes::Kind::kLocal).report;
        const auto& announce = kind(routes::Kind::kAnnounce).report;
        return {.local = local ? local->standing : 0,
                .announced = announce ? announce->standing : 0,
                .refused = (local ? local->refused : 0) + (announce ? announce->refused : 0)};
}

std::vector<std::string> Routes::warnings() const {
        std::vector<std::string> result;
        if (!memory_.unread().empty()) {
                result.push_back(
                        fmt::format("which services were drained is lost, and they are announced while they are up: "
                                    "drain them again, or undrain one if none was, to have it on record anew ({}: {})",
                                    options_.memory_path, memory_.unread()));
        }
        for (const auto& state : kinds_) {
                if (!state.refused.empty()) {
                        result.push_back(state.refused);
                }
        }
        if (!lost_.empty()) {
                result.push_back(fmt::format(
                        "nobody makes the routes that policy asks for, those that stand stay: {}: {} (systemctl enable "
                        "--now sockbroker-routes.socket)",
                        options_.socket_path, lost_));
        }
        return result;
}

}  // namespace sockbroker
