// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A policy on trial (reload --confirm=): the one before comes back, by the way of a reload, unless it is kept. What the
// next broker has to know of it is on record in the state directory (trial_record.h); that one goes on with it as
// trial_at_start.cc says.
#include <exception>
#include <utility>

#include <fmt/format.h>

#include "broker/base/interface_index.h"
#include "broker/base/thrown.h"
#include "broker/daemon/change.h"

namespace sockbroker {

TrialRecord Reloads::record_of(const std::string& policy, const std::string& before, std::int64_t until_usec) const {
        return {.policy = policy, .before = before, .boot = source_.boot(), .until_usec = until_usec};
}

// To be called while the policy before is the one in force still.
void Reloads::plan_record(Change& change) const {
        if (change.kind == Change::Kind::kReload && change.confirm_usec != 0) {
                change.record = record_of(change.loaded.digest, trial_ ? trial_->digest_before : status_.digest,
                                          steady_usec() + change.confirm_usec);
        }
}

// Not as if the policy had been refused, whatever is thrown.
void Reloads::put_record(Change& change) const noexcept {
        if (!succeeds([&] { change.recorded = source_.put_trial(change.record); })) {
                change.fail_record();
        }
}

// On record before its rules are in force, or a broker that dies in between would leave them there for good. And once
// more after that, when its time begins. Where it does not come into force, what was on trial before still is.
void Reloads::install_on_trial(Change& change) const {
        auto former = source_.read_trial();
        put_record(change);
        const auto put_back = [&] {
                change.record = former ? std::move(*former) : std::nullopt;
                put_record(change);
        };
        try {
                change.installed = registry_.install(change.numbers, *change.policy, change.interfaces);
        } catch (const std::exception&) {
                put_back();
                throw;
        }
        if (!change.installed) {
                return put_back();
        }
        if (change.record) {
                change.record->until_usec = steady_usec() + change.confirm_usec;
        }
        put_record(change);
}

// The policy that a trial goes back to is the last one that was kept, however many follow each other on trial. To be
// called while the policy before is the one in force still.
void Reloads::begin_trial(Change& change, std::string digest_before) noexcept {
        if (!change.record) {
                trial_.reset();
                if (change.loaded.supported) {
                        kept_.clear();  // the copy is a newer one now
                }
                return;
        }
        Trial trial{.before = policy_.shared(),
                    .digest_before = std::move(digest_before),
                    .files = change.loaded.supported ? std::move(change.loaded.files) : std::vector<PolicyFile>(),
                    .until_usec = change.record->until_usec};
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
        if (status_.degraded_by_trial) {  // and not for what is on disk now, say
                status_.degrade({});
        }
        (void)guarded([&] {
                audit_.write({.action = Action::kReload, .message = "the policy in force is kept", .result = "ok"});
        });
        call(on_status_);
        begin_what_waits();
}

void Reloads::begin_copy() {
        const auto change = std::make_shared<Change>();
        change->kind = Change::Kind::kCopy;
        if (trial_) {  // of a reload that was on its way; it goes back to what is kept here
                change->record = record_of(status_.digest, trial_->digest_before, trial_->until_usec);
        }
        change->replies.swap(waiting_keeps_);
        change->loaded.files.swap(kept_);
        begin(change, &Reloads::copy);
}

void Reloads::copy(const ChangePtr& change) {
        in_worker(change, &Reloads::copy_job, &Reloads::finish_copy);
}

void Reloads::Change::fail_record() noexcept {
        recorded = std::unexpected(no_memory());
        (void)guarded([&] {
                recorded =
                        fail("cannot change the record of the trial (out of memory), which a reload does, and which "
                             "is what a restart of the broker goes by");
        });
}

std::string Reloads::Change::not_written() const {
        return fmt::format("{}{}{}", copied ? "" : copied.error().text(), copied || recorded ? "" : "; ",
                           recorded ? "" : recorded.error().text());
}

void Reloads::Change::fail_copy(const char* why) noexcept {
        copied = std::unexpected(no_memory());
        (void)guarded(
                [&] { copied = fail(fmt::format("cannot keep a copy of the policy ({}), a reload writes one", why)); });
}

// In this order: a broker that dies in between leaves a policy that is in force for good, and is on disk.
void Reloads::copy_job(Change& change) const {
        put_record(change);
        if (!change.loaded.files.empty()) {
                write_copy(change);
        }
}

// Not as if the policy had been refused, whatever is thrown.
void Reloads::write_copy(Change& change) const {
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
        if (!change.copied || !change.recorded) {
                (void)guarded([&] {
                        status_.degrade(change.not_written());
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
        trial_ = std::move(change.trial);
        if (trial_) {
                trial_->until_usec = steady_usec() + kGoBackAgainUsec;
        }
}

void Reloads::finish_back(Change& change, Removal removal) noexcept {
        status_.refuse(std::exchange(status_.digest, std::move(change.loaded.digest)));
        policy_.replace(change.policy, std::move(change.interfaces));
        follow(removal, change);
        (void)guarded([&] {
                const bool on_disk = change.on_disk == status_.digest;
                std::string message = fmt::format(
                        "the policy on {} was not kept in time (reload --confirm=), the one before it is "
                        "in force again{}",
                        on_disk ? "trial" : "disk", on_disk ? ", as it is on disk" : "");
                if (!on_disk) {
                        status_.degrade(message);
                }
                audit_.write({.action = Action::kReloadFailed,
                              .priority = 4,
                              .message = std::move(message),
                              .result = "ok"});
        });
        degrade_for(removal);
}

}  // namespace sockbroker
