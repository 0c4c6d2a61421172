// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a reload would do (VERB=diff). It goes the way of one as far as it changes nothing.
#include <utility>

#include "broker/daemon/change.h"
#include "broker/daemon/revocation.h"

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

void Reloads::diff(Reply reply) {
        waiting_diffs_.push_back(std::move(reply));
        begin_what_waits();
}

void Reloads::begin_diff() {
        auto change = std::make_shared<Change>();
        change->kind = Change::Kind::kDiff;
        change->replies = std::exchange(waiting_diffs_, {});
        change->before = policy_.shared();
        begin(change, &Reloads::read);
}

// With the names of the new policy known.
void Reloads::compare(const ChangePtr& change) {
        change->tell();
        if (change->policy == nullptr) {
                return refuse(*change, {});
        }
        in_worker(change, &Reloads::compare_job, &Reloads::finish_diff);
}

void Reloads::compare_job(Change& change) const {
        change.differences = std::make_shared<const PolicyChanges>(changes_between(*change.before, *change.policy));
}

void Reloads::finish_diff(const ChangePtr& change) {
        auto gone = rows_of_revoked(*change->policy, registry_, names_.last_known(), gone_socket_line);
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
        end(*change);
}

}  // namespace sockbroker
