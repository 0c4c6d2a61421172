// SPDX-License-Identifier: LGPL-2.1-or-later
//
// How a change ends: what follows rules that are in force, or who is told that they are not, and that the next one
// begins.
#include <algorithm>
#include <chrono>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "broker/base/interface_index.h"
#include "broker/daemon/answer.h"
#include "broker/daemon/change.h"
#include "broker/daemon/diagnostics.h"
#include "broker/daemon/revocation.h"

namespace sockbroker {

namespace {

constexpr std::string_view kNoSuchService = "policy has no such service any more";

std::string name_changes(const Interfaces& before, const Interfaces& after) {
        std::string changes;
        for (const auto& [name, index] : after) {
                const auto old = before.find(name);
                if (old == before.end() || old->second != index) {
                        changes += fmt::format("{}{} {}", changes.empty() ? "" : ", ", name,
                                               index == 0 ? "is gone" : fmt::format("has index {}", index));
                }
        }
        return changes;
}

// Does it or, where memory does not suffice, notes that; what is to be done beside it is done all the same.
template <class Act>
void do_or_note(Removal& removal, const Act& act) noexcept {
        if (!succeeds(act)) {
                removal.blame(no_memory());
        }
}

}  // namespace

void Reloads::finish(const ChangePtr& change) {
        if (!change->installed) {
                auto& loaded = change->loaded;
                if (!loaded.add_errors(std::move(change->blamed))) {
                        return refuse(*change, change->installed.error().text());
                }
                tell_diagnostics(audit_, loaded.diagnostics, loaded.errors);
                loaded.diagnostics.insert(loaded.diagnostics.begin(), change->told->begin(), change->told->end());
                change->tell();
                return refuse(*change, {});
        }
        if (change->kind == Change::Kind::kReload) {
                (void)guarded([&] {
                        change->lost =
                                rows_of_revoked(*change->policy, registry_, names_.last_known(), lost_socket_line);
                });
        }
        // The kernel has the rules: whatever memory there is, nothing from here on may look as if they had been
        // refused.
        Removal removal;
        (void)registry_.finish_change(change->numbers, *change->policy, 0, removal);
        if (change->kind == Change::Kind::kBack) {
                finish_back(*change, std::move(removal));
        } else if (change->kind == Change::Kind::kInterfaces) {
                finish_interfaces(*change, removal);
        } else {
                finish_reload(*change, std::move(removal));
        }
        finish_others(change);
}

// Services without sockets, in turns with everything else.
void Reloads::finish_others(const ChangePtr& change) {
        Removal removal;
        while (!registry_.finish_change(change->numbers, *change->policy, kServicesPerTurn, removal)) {
                degrade_for(removal);
                if (succeeds([&] { in_worker(change, &Reloads::no_job, &Reloads::finish_others); })) {
                        return;
                }
        }
        degrade_for(removal);
        end(*change);
}

void Reloads::follow(Removal& removal) noexcept {
        do_or_note(removal, [&] { departures_.tell(removal, Action::kRevoke, kNoSuchService); });
        do_or_note(removal, [&] {
                if (auto error = revoke_unadmitted()) {
                        removal.blame(std::move(*error));
                }
        });
        do_or_note(removal, [&] { held_.follow_policy(); });
}

void Reloads::follow(Removal& removal, Change& change) noexcept {
        follow(removal);
        do_or_note(removal, [&] { routes_.take(std::move(change.routes)); });
        do_or_note(removal, [&] { names_.keep_only(change.names); });
}

// The next reload does what was not done.
void Reloads::degrade_for(const Removal& removal) noexcept {
        if (removal.error && !succeeds([&] {
                    status_.degrade(
                            fmt::format("{}{}not all of the policy in force was carried out, reload it again ({})",
                                        status_.degraded, status_.degraded.empty() ? "" : "; ", removal.error->text()));
            })) {
                status_.degrade(no_memory().message);
        }
}

// Takes away what is not admitted any more, by what is known of names.
std::optional<Error> Reloads::revoke_unadmitted() {
        Removal removal;
        do_or_note(removal, [&] {
                Revocation revocation(*policy_, names_.last_known());
                removal = registry_.remove_all([&](const std::string& service, const Registration& registration) {
                        return !revocation.why(service, registration).empty();
                });
                departures_.tell(removal, Action::kRevoke, "policy does not admit it any more");
        });
        do_or_note(removal, [&] { replies_.follow_policy(names_.last_known()); });
        return removal.error;
}

void Reloads::finish_interfaces(Change& change, const Removal& removal) noexcept {
        std::string changes;
        (void)guarded([&] { changes = name_changes(policy_.interfaces(), change.interfaces); });
        policy_.set_interfaces(std::move(change.interfaces));
        const auto took = std::chrono::steady_clock::now() - change.began;
        interfaces_took_usec_ =
                static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(took).count());
        (void)guarded([&] { audit_.note(6, "rules follow a change of interfaces: " + changes); });
        (void)guarded([&] { departures_.tell(removal, Action::kRevoke, kNoSuchService); });
        degrade_for(removal);
}

void Reloads::finish_reload(Change& change, Removal removal) noexcept {
        status_.reloads_taken++;
        begin_trial(change, std::exchange(status_.digest, std::move(change.loaded.digest)));
        policy_.replace(change.policy, std::move(change.interfaces));
        follow(removal, change);
        status_.degrade({});
        std::string message;
        (void)guarded([&] { status_.degrade(change.not_written(), trial_.has_value()); });
        degrade_for(removal);
        (void)guarded([&] {
                message = fmt::format("policy taken: {}", status_text());
                if (change.confirm_usec != 0) {
                        message += ", and the one before comes back unless this one is kept in time";
                }
                audit_.write({.action = Action::kReload, .message = message, .result = "ok"});
        });
        change.answer(ResultCode::kOk, message);
}

// Where memory does not suffice for the rest, the result at least: it is what the kernel has.
void Reloads::Change::answer(ResultCode code, const std::string& message) noexcept {
        for (const auto& reply : std::exchange(replies, {})) {
                const bool whole = succeeds([&] {
                        auto rows = diagnostic_rows(told, lost);
                        std::vector<std::string> warnings;
                        if (code == ResultCode::kOk && !copied) {
                                warnings.push_back(
                                        fmt::format("{}; until a reload can write it, a start with a policy "
                                                    "on disk that is refused goes back to an older one",
                                                    copied.error().text()));
                        }
                        if (code == ResultCode::kOk && !recorded) {
                                warnings.push_back(recorded.error().text());
                        }
                        reply(Answer{.code = code,
                                     .message = message,
                                     .warnings = std::move(warnings),
                                     .rows = std::move(rows)});
                });
                if (!whole) {
                        (void)guarded([&] { reply(Answer{.code = code, .message = {}}); });
                }
        }
}

// Without `why`: for what the diagnostics say. Whatever memory there is for telling it, the next reload can begin.
void Reloads::refuse(Change& change, const std::string& why) {
        if (change.kind == Change::Kind::kCopy) {
                change.fail_record();
                change.fail_copy("out of memory");  // it can be nothing else
                return end_copy(change);
        }
        if (change.kind == Change::Kind::kBack) {
                go_on_with_trial(change);
        }
        registry_.abandon_change(change.numbers);
        if (!change.recorded) {
                (void)guarded([&] { audit_.note(3, change.recorded.error().text()); });
        }
        std::string message;
        (void)guarded([&] { message = tell_refused(change, why); });
        change.answer(ResultCode::kMalformed, message);
        end(change);
}

// What to answer; the reason of `degraded` has the first error too.
std::string Reloads::tell_refused(const Change& change, const std::string& why) {
        if (change.kind == Change::Kind::kDiff) {  // nothing was to change
                return why.empty() ? "a reload would refuse the policy" : why;
        }
        if (change.kind == Change::Kind::kBack) {
                status_.degrade(
                        fmt::format("the policy before the one in force cannot come back, which is tried again: {}",
                                    why),
                        true);
                audit_.note(3, status_.degraded);
                return {};
        }
        if (change.kind == Change::Kind::kInterfaces) {
                audit_.note(3, fmt::format("cannot follow a change of interfaces ({}): {}",
                                           name_changes(policy_.interfaces(), change.interfaces), why));
                return {};
        }
        status_.reloads_refused++;
        status_.refuse(change.loaded.digest);
        // Whoever asked gets each error beside it; `status` and systemd have no other line than this.
        auto message = why.empty() ? fmt::format("policy refused, {}, the running policy stays",
                                                 count_errors(change.loaded.errors))
                                   : fmt::format("policy refused, the running policy stays: {}", why);
        status_.degrade(message + (why.empty() && change.told != nullptr ? first_error(*change.told) : ""));
        audit_.write(
                {.action = Action::kReloadFailed, .priority = 3, .message = status_.degraded, .result = "malformed"});
        return message;
}

void Reloads::end(Change& change) {
        change.over = true;
        changing_ = false;
        call(on_status_);
        begin_what_waits();
}

// What memory does not suffice for waits for the next time that this is called.
void Reloads::begin_what_waits() noexcept {
        if (!changing_) {
                (void)guarded([this] { begin_next(); });
        }
}

void Reloads::begin_next() {
        if (!waiting_keeps_.empty()) {
                begin_copy();
        } else if (!waiting_.empty()) {
                begin_reload();
        } else if (!waiting_diffs_.empty()) {
                begin_diff();
        } else if (interfaces_changed_) {
                (void)refresh_interfaces();
        }
}

}  // namespace sockbroker
