// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A policy on trial (reload --confirm=): the one before comes back, by the way of a reload, unless it is kept.
#include <exception>
#include <utility>

#include <fmt/format.h>

#include "broker/base/interface_index.h"
#include "broker/base/thrown.h"
#include "broker/daemon/change.h"

namespace sockbroker {

// The policy that a trial goes back to is the last one that was kept, however many follow each other on trial. To be
// called while the policy before is the one in force still.
void Reloads::begin_trial(Change& change, std::string digest_before) noexcept {
        if (change.confirm_usec == 0) {
                trial_.reset();
                if (change.loaded.supported) {
                        kept_.clear();  // the copy is a newer one now
                }
                return;
        }
        Trial trial{.before = policy_.shared(),
                    .digest_before = std::move(digest_before),
                    .files = change.loaded.supported ? std::move(change.loaded.files) : std::vector<PolicyFile>(),
                    .until_usec = steady_usec() + change.confirm_usec};
        if (trial_) {
                trial.before = std::move(trial_->before);
                trial.digest_before = std::move(trial_->digest_before);
        }
        trial_ = std::move(trial);
}

// The copy is the worker's, as that of a reload. Whatever else happens until it is written, the policy that was on
// trial when this was asked is the one that is kept: a reload that is on its way goes back to that if it is on trial
// itself, and where it is not its own copy is the newer one.
void Reloads::keep(const Reply& reply) {
        if (!trial_) {
                return reply(
                        Answer{.code = ResultCode::kNotHeld,
                               .message = "no policy is on trial: it was kept already, or the one before is back"});
        }
        waiting_keeps_.push_back(reply);
        kept_ = std::move(trial_->files);
        trial_.reset();
        status_.degrade({});
        (void)guarded([&] {
                audit_.write({.action = Action::kReload, .message = "the policy in force is kept", .result = "ok"});
        });
        call(on_status_);
        begin_what_waits();
}

void Reloads::begin_copy() {
        const auto change = std::make_shared<Change>();
        change->kind = Change::Kind::kCopy;
        change->replies.swap(waiting_keeps_);
        change->loaded.files.swap(kept_);
        begin(change, &Reloads::copy);
}

void Reloads::copy(const ChangePtr& change) {
        if (change->loaded.files.empty()) {
                return end_copy(*change);
        }
        in_worker(change, &Reloads::copy_job, &Reloads::finish_copy);
}

void Reloads::Change::fail_copy(const char* why) noexcept {
        copied = std::unexpected(no_memory());
        (void)guarded(
                [&] { copied = fail(fmt::format("cannot keep a copy of the policy ({}), a reload writes one", why)); });
}

// Not as if the policy had been refused, whatever is thrown.
void Reloads::copy_job(Change& change) const {
        try {
                change.copied = source_.write_copy(change.loaded.files);
        } catch (const std::exception& error) {
                change.fail_copy(text_of(error));
        }
}

void Reloads::finish_copy(const ChangePtr& change) {
        end_copy(*change);
}

void Reloads::end_copy(Change& change) {
        if (!change.copied) {
                (void)guarded([&] {
                        status_.degrade(change.copied.error().text());
                        audit_.note(3, status_.degraded);
                });
        }
        change.answer(ResultCode::kOk, "the policy in force is kept");
        end(change);
}

void Reloads::look_at_clock() {
        begin_what_waits();
        if (!trial_ || changing_ || steady_usec() < trial_->until_usec) {
                return;
        }
        auto change = std::make_shared<Change>();
        change->kind = Change::Kind::kBack;
        change->loaded.digest = trial_->digest_before;
        change->policy = trial_->before;
        change->interfaces = find_interfaces(*change->policy, interfaces_now());
        change->names = account_names(*change->policy);
        change->trial = std::move(trial_);  // where something before throws it is tried again
        trial_.reset();
        begin(change, &Reloads::ask_names);
}

// What is on trial stays in force, and stays on trial: it may be kept still, and the way back is tried again.
void Reloads::go_on_with_trial(Change& change) noexcept {
        constexpr std::int64_t kTryAgainUsec = 5'000'000;
        trial_ = std::move(change.trial);
        if (trial_) {
                trial_->until_usec = steady_usec() + kTryAgainUsec;
        }
}

void Reloads::finish_back(Change& change, Removal removal) noexcept {
        status_.refuse(std::exchange(status_.digest, std::move(change.loaded.digest)));
        policy_.replace(change.policy, std::move(change.interfaces));
        follow(removal, change);
        (void)guarded([&] {
                status_.degrade(
                        "the policy on disk was not kept in time (reload --confirm=), the one before it is in force "
                        "again");
                audit_.write(
                        {.action = Action::kReloadFailed, .priority = 4, .message = status_.degraded, .result = "ok"});
        });
        degrade_for(removal);
}

}  // namespace sockbroker
