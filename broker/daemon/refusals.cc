// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/refusals.h"

#include <utility>

#include <fmt/format.h>

#include "broker/base/event.h"
#include "broker/daemon/entries.h"

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

void Refusals::tell_left_out() {
        for (const auto& [unit, first_uid, last_uid, count] : log_.take_left_out(steady_usec())) {
                const auto uids = first_uid == last_uid ? fmt::format("uid {}", first_uid)
                                                        : fmt::format("uids {} to {}", first_uid, last_uid);
                audit_.write(
                        {.action = Action::kRefuse,
                         .priority = 4,
                         .message = fmt::format("{} refusals of {}{}{} were not written one by one", count,
                                                unit.empty() ? "" : "unit ", unit.empty() ? "" : unit + ", ", uids),
                         .unit = unit});
        }
}

}  // namespace sockbroker
