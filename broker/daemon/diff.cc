// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a reload would do (VERB=diff), and a policy on trial (a reload that is taken back unless it is kept). Both go
// the way of a reload, reload.cc: reading and comparing are the worker's, names are asked outside the loop.
#include <chrono>
#include <utility>

#include <fmt/format.h>

#include "broker/base/interface_index.h"
#include "broker/daemon/broker.h"
#include "broker/daemon/change.h"
#include "broker/daemon/event.h"
#include "broker/daemon/worker.h"

namespace sockbroker {

namespace {

std::string change_line(const Policy& before, const Policy& after, const BindingChange& change) {
        const bool removed = change.kind == BindingChange::Kind::kRemoved;
        const Policy& policy = removed ? before : after;
        const auto& at = removed ? change.before : change.after;
        const Service& service = policy.services[at.service];
        const Binding& binding = service.bindings[at.binding];
        const auto match = client_filter_at(service, binding.prefix.address.family, at.client);
        const bool moved = change.kind == BindingChange::Kind::kMoved;
        return changed_binding_line(moved     ? "moved"
                                    : removed ? "removed"
                                              : "added",
                                    moved ? before.services[change.before.service].name : "", change.both_families,
                                    policy, service, binding, match);
}

}  // namespace

std::int64_t wall_usec() {
        using namespace std::chrono;
        return duration_cast<microseconds>(system_clock::now().time_since_epoch()).count();
}

void Broker::note_refused(const std::string& digest) {
        refused_digest_ = digest;
        refused_since_usec_ = wall_usec();
}

void Broker::diff(Reply reply) {
        waiting_diffs_.push_back(std::move(reply));
        if (!changing_) {
                begin_diff();
        }
}

void Broker::begin_diff() {
        auto change = std::make_shared<Change>();
        change->kind = Change::Kind::kDiff;
        change->replies = std::exchange(waiting_diffs_, {});
        change->before = policy_;
        changing_ = true;
        try {
                in_worker(change, &Broker::read_change, &Broker::ask_names);
        } catch (const std::exception& error) {
                refuse_change(change, error.what());
        }
}

// The names of that policy are known.
std::string Broker::sockets_lost_to(const Policy& policy) const {
        const auto accounts = names_.last_known();
        std::string gone;
        for (const auto& service : registry_.services()) {
                const auto* found = policy.find(service);
                const auto registrations = registry_.registrations(service);
                for (const auto& one : registrations) {
                        const bool unused =
                                found != nullptr && std::ranges::none_of(found->bindings, [&](const Binding& binding) {
                                        return one.serves_in(binding.protocol, binding.prefix.address.family);
                                });
                        const std::string_view why =
                                found == nullptr ? "policy has no such service any more"
                                : !stays_admitted(*found, one.registrant, accounts)
                                        ? "policy does not admit it any more"
                                : unused ? "the service has no binding of its protocol and family any more"
                                         : "";
                        if (!why.empty()) {
                                gone += gone_socket_line(service, one,
                                                         is_live(registrations, registry_.distribution(service), one),
                                                         why);
                        }
                }
        }
        return gone;
}

// With the names of the new policy known; the worker has nothing in hand.
void Broker::finish_diff(const std::shared_ptr<Change>& change) {
        change->told = std::make_shared<const std::vector<Diagnostic>>(std::exchange(change->loaded.diagnostics, {}));
        if (change->policy == nullptr) {
                return refuse_change(change, {});
        }
        if (change->differences == nullptr) {
                return in_worker(change, &Broker::compare, &Broker::finish_diff);
        }
        auto gone = sockets_lost_to(*change->policy);
        const bool any = change->differences->any() || !gone.empty();
        for (const auto& reply : std::exchange(change->replies, {})) {
                reply_with(reply, [&] {
                        return Answer{.message = any ? "a reload would change this" : "a reload would change nothing",
                                      .rows = [before = change->before, after = change->policy,
                                               differences = change->differences, gone, next = std::size_t{0},
                                               settings = std::size_t{0}]() mutable -> std::optional<std::string> {
                                              if (next < differences->bindings.size()) {
                                                      return change_line(*before, *after,
                                                                         differences->bindings[next++]);
                                              }
                                              if (settings < differences->settings.size()) {
                                                      const auto& one = differences->settings[settings++];
                                                      return changed_settings_line(one.service, one.keys);
                                              }
                                              return gone.empty() ? std::nullopt
                                                                  : std::optional(std::exchange(gone, std::string()));
                                      }};
                });
        }
        end_change();
}

void Broker::compare(Change& change) const {
        change.differences = std::make_shared<const PolicyChanges>(changes_between(*change.before, *change.policy));
}

// The policy that a trial goes back to is the last one that was kept, however many follow each other on trial.
void Broker::begin_trial(Change& change) {
        if (change.confirm_usec == 0) {
                trial_.reset();
                return;
        }
        Trial trial{.before = policy_,
                    .digest_before = policy_digest_,
                    .files = change.loaded.supported ? std::move(change.loaded.files) : std::vector<PolicyFile>(),
                    .until_usec = steady_usec() + change.confirm_usec};
        if (trial_) {
                trial.before = std::move(trial_->before);
                trial.digest_before = std::move(trial_->digest_before);
        }
        trial_ = std::move(trial);
}

void Broker::keep(const Reply& reply) {
        if (!trial_) {
                return reply(
                        Answer{.code = ResultCode::kNotHeld,
                               .message = "no policy is on trial: it was kept already, or the one before is back"});
        }
        const auto files = std::move(trial_->files);
        trial_.reset();
        const auto written = files.empty() ? Result<void>() : write_policy_copy(options_.policy_copy(), files);
        degrade(written ? std::string() : written.error().text());
        audit_.write({.action = Action::kReload, .message = "the policy in force is kept", .result = "ok"});
        if (on_status_) {
                on_status_();
        }
        reply(Answer{.message = "the policy in force is kept"});
}

void Broker::go_back_if_not_kept() {
        if (!trial_ || changing_ || steady_usec() < trial_->until_usec) {
                return;
        }
        auto change = std::make_shared<Change>();
        change->kind = Change::Kind::kBack;
        change->loaded.digest = trial_->digest_before;
        change->policy = std::move(trial_->before);
        trial_.reset();
        change->interfaces = find_interfaces(*change->policy, interfaces_now());
        change->names = account_names(*change->policy);
        changing_ = true;
        try {
                ask_names(change);
        } catch (const std::exception& error) {
                refuse_change(change, error.what());
        }
}

void Broker::finish_back(const std::shared_ptr<Change>& change, const std::vector<Departure>& departures) {
        (void)guarded([&] {
                note_refused(std::exchange(policy_digest_, change->loaded.digest));
                take(change->policy, std::move(change->interfaces), departures);
                take_routes(std::move(change->routes));
                names_.keep_only(change->names);
                degrade("the policy on disk was not kept in time (reload --confirm=), the one before it is in force "
                        "again");
                audit_.write({.action = Action::kReloadFailed, .priority = 4, .message = degraded_, .result = "ok"});
        });
        end_change();
}

}  // namespace sockbroker
