// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A policy on trial (reload --confirm=): the one before comes back, by the way of a reload, unless it is kept.
#include <utility>

#include "broker/base/interface_index.h"
#include "broker/daemon/change.h"

namespace sockbroker {

// The policy that a trial goes back to is the last one that was kept, however many follow each other on trial.
void Reloads::begin_trial(Change& change) {
        if (change.confirm_usec == 0) {
                trial_.reset();
                return;
        }
        Trial trial{.before = policy_.shared(),
                    .digest_before = status_.digest,
                    .files = change.loaded.supported ? std::move(change.loaded.files) : std::vector<PolicyFile>(),
                    .until_usec = steady_usec() + change.confirm_usec};
        if (trial_) {
                trial.before = std::move(trial_->before);
                trial.digest_before = std::move(trial_->digest_before);
        }
        trial_ = std::move(trial);
}

void Reloads::keep(const Reply& reply) {
        if (!trial_) {
                return reply(
                        Answer{.code = ResultCode::kNotHeld,
                               .message = "no policy is on trial: it was kept already, or the one before is back"});
        }
        const auto files = std::move(trial_->files);
        trial_.reset();
        const auto written = files.empty() ? Result<void>() : source_.write_copy(files);
        status_.degrade(written ? std::string() : written.error().text());
        audit_.write({.action = Action::kReload, .message = "the policy in force is kept", .result = "ok"});
        if (on_status_) {
                on_status_();
        }
        reply(Answer{.message = "the policy in force is kept"});
}

void Reloads::go_back_if_not_kept() {
        if (!trial_ || changing_ || steady_usec() < trial_->until_usec) {
                return;
        }
        auto change = std::make_shared<Change>();
        change->kind = Change::Kind::kBack;
        change->loaded.digest = trial_->digest_before;
        change->policy = trial_->before;
        change->interfaces = find_interfaces(*change->policy, interfaces_now());
        change->names = account_names(*change->policy);
        trial_.reset();  // where something of that throws it is tried again
        begin(change, &Reloads::ask_names);
}

void Reloads::finish_back(Change& change, const std::vector<Departure>& departures) {
        (void)guarded([&] {
                status_.refuse(std::exchange(status_.digest, change.loaded.digest));
                take(change.policy, std::move(change.interfaces), departures);
                routes_.take(std::move(change.routes));
                names_.keep_only(change.names);
                status_.degrade(
                        "the policy on disk was not kept in time (reload --confirm=), the one before it is in force "
                        "again");
                audit_.write(
                        {.action = Action::kReloadFailed, .priority = 4, .message = status_.degraded, .result = "ok"});
        });
}

}  // namespace sockbroker
