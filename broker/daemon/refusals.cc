// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/refusals.h"

#include <optional>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "broker/base/event.h"
#include "broker/daemon/entries.h"
#include "broker/hands/ledger.h"

namespace sockbroker {

namespace {

// Whose unit was not looked up yet, and who has none: both without one.
std::string name_of(const Peer& peer) {
        if (peer.pid == 0) {
                return "a sender without credentials";
        }
        const auto who = fmt::format("pid {}, uid {}", peer.pid, peer.uid);
        return peer.unit.empty() ? who : fmt::format("unit {}, {}", peer.unit, who);
}

std::string_view why(hands::DoorRefusal refusal) {
        switch (refusal) {
        case hands::DoorRefusal::kTooMany:
                return "it has as many as a user may, and there is no room for more that wait";
        case hands::DoorRefusal::kTooManyClosing:
                return "too many of its connections wait to be closed, with descriptors that it has sent";
        case hands::DoorRefusal::kBarred:
                break;
        }
        return "descriptors that it has sent keep processes of the broker waiting";
}

// "3 connections of uid 1000 to control were refused, unread"
std::string refused_connections(std::uint64_t count, std::string_view which, const std::string& whose) {
        return fmt::format("{} {}{} of {} to control {} refused, unread", count, which, count == 1 ? "" : "s", whose,
                           count == 1 ? "was" : "were");
}

std::string name_of(const RefusalLog::LeftOut& left_out) {
        if (left_out.last_uid == hands::kNobody) {
                return "several users";
        }
        return left_out.first_uid == left_out.last_uid
                       ? fmt::format("uid {}", left_out.first_uid)
                       : fmt::format("uids {} to {}", left_out.first_uid, left_out.last_uid);
}

Entry of_connections(std::string message, std::optional<uid_t> uid) {
        Entry entry{.action = Action::kTurnAway, .priority = 4, .message = std::move(message)};
        entry.result = to_string(ResultCode::kRateLimited);
        entry.has_peer = uid.has_value();
        entry.uid = uid.value_or(0);
        return entry;
}

}  // namespace

Answer Refusals::refuse(const Refusal& refusal, const Peer& peer, const std::string& service) {
        counts_[static_cast<std::size_t>(refusal.code)]++;
        if (const auto suppressed = log_.count(peer.unit, peer.uid, steady_usec())) {
                std::string message = fmt::format("{} was refused: {}", name_of(peer), refusal.message);
                if (*suppressed > 0) {
                        message += fmt::format(
                                " ({} more refusals of this sender, or of others of its unit and range "
                                "of uids, were not written)",
                                *suppressed);
                }
                Entry entry = entry_by(peer, Action::kRefuse, 4, service, std::move(message));
                entry.result = to_string(refusal.code);
                entry.rule = refusal.rule;
                audit_.write(std::move(entry));
        }
        return Answer{.code = refusal.code, .message = refusal.message};
}

Answer Refusals::refuse_unknown(const std::string& service, const Peer& peer) {
        return refuse({ResultCode::kUnknownService, fmt::format("no policy names a service \"{}\"", service), {}}, peer,
                      service);
}

void Refusals::count_connections(const hands::RefusedReport& report) {
        const auto suppressed = connections_.count("", report.uid, steady_usec(), report.count);
        if (!suppressed) {
                return;
        }
        const bool of_many = report.uid == hands::kNobody;
        const auto whose = of_many ? "several users" : fmt::format("uid {}", report.uid);
        auto message = fmt::format("{}: {}", refused_connections(report.count, "connection", whose), why(report.why));
        if (*suppressed > 0) {
                message += fmt::format(" ({} more before, of it or of others of its range of uids, were not written)",
                                       *suppressed);
        }
        audit_.write(of_connections(std::move(message), of_many ? std::nullopt : std::optional(report.uid)));
}

void Refusals::tell_left_out() {
        for (const auto& one : log_.take_left_out(steady_usec())) {
                audit_.write({.action = Action::kRefuse,
                              .priority = 4,
                              .message = fmt::format("{} refusals of {}{} were not written one by one", one.count,
                                                     one.unit.empty() ? "" : fmt::format("unit {}, ", one.unit),
                                                     name_of(one)),
                              .unit = one.unit});
        }
        for (const auto& one : connections_.take_left_out(steady_usec())) {
                const bool of_one = one.first_uid == one.last_uid && one.last_uid != hands::kNobody;
                audit_.write(of_connections(
                        fmt::format("{}, within {} s", refused_connections(one.count, "more connection", name_of(one)),
                                    RefusalLog::kWindowUsec / 1'000'000),
                        of_one ? std::optional(one.first_uid) : std::nullopt));
        }
}

}  // namespace sockbroker
