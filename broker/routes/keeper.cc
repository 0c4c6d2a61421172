// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/routes/keeper.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace sockbroker::routes {

namespace {

std::vector<Prefix> difference(const std::vector<Prefix>& one, const std::vector<Prefix>& other) {
        std::vector<Prefix> result;
        std::ranges::set_difference(one, other, std::back_inserter(result));
        return result;
}

void note_refused(Report& report, const Prefix& prefix, Reason reason, int errnum = 0) {
        if (report.refused++ == 0) {
                report.reason = reason;
                report.errnum = static_cast<std::uint32_t>(errnum);
                report.example = prefix;
        }
}

}  // namespace

bool is_connected(const Prefix& prefix, Kind kind, const std::vector<Prefix>& networks) {
        // Sorted by address, then length: the first that can lie in the prefix.
        const auto at = std::ranges::lower_bound(networks, prefix);
        if (at == networks.end() || !prefix.contains(at->address)) {
                return false;
        }
        return kind == Kind::kLocal || *at == prefix;
}

Keeper::Taken Keeper::take(Order order) {
        switch (order.step) {
        case Step::kBegin:
                unfinished_ = Unfinished{.kind = order.kind, .prefixes = {}};
                return {};
        case Step::kPrefixes: {
                if (!unfinished_ || unfinished_->kind != order.kind) {
                        return {.good = false};
                }
                auto& list = unfinished_->prefixes;
                if (order.prefixes.size() > most_ - list.size()) {
                        return {.good = false};
                }
                const auto from = list.size();
                std::ranges::copy(order.prefixes, std::back_inserter(list));
                // Sorted, and each once.
                for (std::size_t i = std::max<std::size_t>(from, 1); i < list.size(); i++) {
                        if (list[i] <= list[i - 1]) {
                                return {.good = false};
                        }
                }
                return {};
        }
        case Step::kEnd: {
                if (!unfinished_ || unfinished_->kind != order.kind) {
                        return {.good = false};
                }
                auto& state = kinds_.at(static_cast<std::size_t>(order.kind));
                state.wanted = std::move(unfinished_->prefixes);
                state.number = order.number;
                unfinished_.reset();
                return {.good = true, .report = apply(order.kind)};
        }
        }
        return {.good = false};
}

std::vector<Report> Keeper::follow(RouteEvents::Seen seen) {
        std::vector<Report> reports;
        networks_known_ = networks_known_ && !seen.addresses;
        for (const auto kind : {Kind::kLocal, Kind::kAnnounce}) {
                auto& state = kinds_.at(static_cast<std::size_t>(kind));
                state.known = state.known && !seen.routes;
                if (!state.wanted) {
                        continue;
                }
                const bool retried = std::exchange(state.retry, false);
                const auto report = apply(kind);
                if (report.added > 0 || report.removed > 0 || retried != state.retry) {
                        reports.push_back(report);
                }
        }
        return reports;
}

bool Keeper::is_idle() const {
        return std::ranges::all_of(kinds_, [](const OfKind& state) { return !state.wanted || state.wanted->empty(); });
}

bool Keeper::wants_to_retry() const {
        return std::ranges::any_of(kinds_, &OfKind::retry);
}

Report Keeper::apply(Kind kind) {
        auto& state = kinds_.at(static_cast<std::size_t>(kind));
        Report report{.kind = kind, .number = state.number};
        failure_.reset();
        make_it_so(kind, state, report);
        if (failure_) {
                state.known = false;
                state.retry = true;
                report.reason = Reason::kKernel;
                report.errnum = static_cast<std::uint32_t>(failure_->errnum);
                report.refused = std::max<std::uint32_t>(report.refused, 1);
        }
        report.standing = static_cast<std::uint32_t>(state.standing.size());
        return report;
}

void Keeper::make_it_so(Kind kind, OfKind& state, Report& report) {
        if (!state.known) {
                auto standing = kernel_.list(kind);
                if (!standing) {
                        failure_ = standing.error();
                        return;
                }
                state.standing = std::move(*standing);
                state.known = true;
        }
        if (!networks_known_) {
                auto networks = kernel_.connected_networks();
                if (!networks) {
                        failure_ = networks.error();
                        return;
                }
                networks_ = std::move(*networks);
                networks_known_ = true;
        }
        // Only where a list has come. NOLINTNEXTLINE(bugprone-unchecked-optional-access)
        const auto target = allowed(kind, *state.wanted, report);
        const auto surplus = difference(state.standing, target);
        const auto missing = difference(target, state.standing);
        std::vector<Prefix> still_there, not_added;
        const auto removed = kernel_.remove(kind, surplus, [&](const Prefix& prefix, int errnum) {
                still_there.push_back(prefix);
                note_refused(report, prefix, Reason::kKernel, errnum);
                state.retry = true;
        });
        const auto added = kernel_.add(kind, missing, [&](const Prefix& prefix, int errnum) {
                not_added.push_back(prefix);
                if (errnum == EEXIST) {
                        report.others++;
                } else {
                        note_refused(report, prefix, Reason::kKernel, errnum);
                        state.retry = true;
                }
        });
        for (const auto* done : {&removed, &added}) {
                if (!*done) {
                        failure_ = done->error();
                }
        }
        report.removed = static_cast<std::uint32_t>(surplus.size() - still_there.size());
        report.added = static_cast<std::uint32_t>(missing.size() - not_added.size());
        // Both come in the order of what was sent, which is sorted.
        state.standing = difference(target, not_added);
        if (!still_there.empty()) {
                std::ranges::copy(still_there, std::back_inserter(state.standing));
                std::ranges::sort(state.standing);
        }
}

std::vector<Prefix> Keeper::allowed(Kind kind, const std::vector<Prefix>& wanted, Report& report) const {
        std::vector<Prefix> target;
        target.reserve(wanted.size());
        for (const auto& prefix : wanted) {
                if (!why_unroutable(prefix).empty()) {
                        note_refused(report, prefix, Reason::kUnroutable);
                } else if (is_connected(prefix, kind, networks_)) {
                        note_refused(report, prefix, Reason::kConnected);
                } else {
                        target.push_back(prefix);
                }
        }
        return target;
}

}  // namespace sockbroker::routes
