// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What services do, and what becomes of their sockets.
#include "broker/daemon/held_sockets.h"

#include <algorithm>
#include <iterator>

#include <fmt/format.h>

#include "broker/daemon/entries.h"
#include "broker/holds/holdable.h"
#include "broker/peer/on_behalf.h"

namespace sockbroker {

HeldSockets::HeldSockets(sd_event* event, hands::Crew& crew, bool has_store, Registry& registry,
                         const PolicyInForce& policy, Refusals& refusals, ServiceEntries& entries, Audit& audit)
        : registry_(registry),
          policy_(policy),
          refusals_(refusals),
          entries_(entries),
          audit_(audit),
          holds_(event, crew, has_store,
                 {.gone = [this](const Held& held) { return on_gone(held); },
                  .there = [this](const Held& held) { on_there(held); },
                  .ended = [this](const Held& held, HoldEnd why) { on_end(held, why); }}) {}

const Registration* HeldSockets::find(const std::string& service, std::uint64_t cookie) const {
        const auto all = registry_.registrations(service);
        const auto found = std::ranges::find(all, cookie, &Registration::cookie);
        return found == all.end() ? nullptr : &*found;
}

void HeldSockets::hold(const Service& service, const std::vector<CommitResult>& handed, const Incoming& message) {
        std::size_t unstored = 0;
        std::size_t no_holder = 0;
        std::size_t late = 0;
        const Serving serving(registry_.registrations(service.name), registry_.distribution(service.name));
        for (const auto& [added, displaced, narrowed, inherited] : handed) {
                // Its owner accepts what is left and closes it: handshakes that come later must not end in a queue that
                // is nobody's.
                for (const auto& old : displaced) {
                        holds_.release({service.name, old.cookie});
                }
                const HoldKey key{service.name, added.cookie};
                late_.erase(key);
                if (!may_be_held(service, added) || (inherited && !serving.is_live(added))) {
                        holds_.release(key);
                        continue;
                }
                if (!holds_.is_in_holder(key)) {
                        if (message.in_holder) {
                                no_holder++;
                        } else {
                                late++;
                                late_.insert(key);
                        }
                        continue;
                }
                Process process{.pidfd = process_of(message, added.registrant)};
                if (!process.pidfd) {
                        process = open_process(added.registrant.pid, added.registered_usec);
                }
                unstored += holds_.keep(held_of(service, added), std::move(process)) ? 0 : 1;
        }
        if (no_holder > 0) {
                entries_.note(
                        service.name, 4,
                        fmt::format(
                                "{} of the sockets that {} has registered now are not held: the broker holds those of "
                                "{} services at most (HoldSec=)",
                                no_holder, service.name, hands::Crew::kMaxHolders));
        }
        if (late > 0) {
                entries_.note(
                        service.name, 4,
                        fmt::format(
                                "{} of the sockets that {} has registered now are not held (HoldSec=): they came on "
                                "notify before this host had answered for the name of User= or Group= that admits "
                                "their sender; register them again, or by control, which waits for the answer",
                                late, service.name));
        }
        if (unstored > 0) {
                entries_.note(
                        service.name, 4,
                        fmt::format(
                                "{} of the sockets that {} has registered now found no place in the store of systemd, "
                                "which takes {} of the broker (FileDescriptorStoreMax=): should the broker end, they "
                                "are not held any more",
                                unstored, service.name, holds_.store_capacity()));
        }
        drop_departed(service.name);
}

void HeldSockets::drop_departed(const std::string& service) {
        for (const auto& key : holds_.keys_of(service)) {
                if (find(service, key.cookie) == nullptr) {
                        holds_.release(key);
                }
        }
        for (auto at = late_.lower_bound({service, 0}); at != late_.end() && at->service == service;) {
                at = find(service, at->cookie) == nullptr ? late_.erase(at) : std::next(at);
        }
}

void HeldSockets::follow_policy() {
        for (const auto& service : policy_->services) {
                for (const auto& key : holds_.keys_of(service.name)) {
                        const auto* one = find(service.name, key.cookie);
                        if (one == nullptr || !may_be_held(service, *one)) {
                                if (one != nullptr) {
                                        end_hold(*holds_.find(key),
                                                 std::string(end_of_hold(service, *one, steady_usec())));
                                }
                                holds_.release(key);
                        } else {
                                holds_.set_span(key, service.hold_usec);
                        }
                }
        }
}

bool HeldSockets::on_gone(const Held& held) {
        const auto* one = find(held.key.service, held.key.cookie);
        if (one == nullptr ||
            !is_live(registry_.registrations(held.key.service), registry_.distribution(held.key.service), *one)) {
                return false;  // displaced
        }
        if (const auto done = registry_.set_gone(held.key.service, held.key.cookie, held.gone_usec); !done) {
                audit_.note(3, "cannot note that a service is gone: " + done.error().text());
        }
        one = find(held.key.service, held.key.cookie);
        Entry entry = entry_of(Action::kHold, held.key.service, *one);
        entry.message = fmt::format(
                "{} is gone{}, its {} waits {} for the next instance", held.key.service,
                held.alone ? fmt::format(" (the process that registered it has ended, {} goes on)", held.unit) : "",
                socket_name(*one),
                seconds(held.until_usec != 0 ? (held.until_usec - held.gone_usec) / kUsec * kUsec : held.hold_usec));
        entries_.write(std::move(entry));
        return true;
}

void HeldSockets::on_there(const Held& held) {
        (void)registry_.set_gone(held.key.service, held.key.cookie, 0);
        entries_.note(
                held.key.service, 6,
                held.alone
                        ? fmt::format("others than the process that registered it read a socket of {}, it is not held",
                                      held.key.service)
                        : fmt::format("{} is there, its socket is not held", held.key.service));
}

void HeldSockets::on_end(const Held& held, HoldEnd why) {
        switch (why) {
        case HoldEnd::kExpired:
                return end_hold(held, fmt::format("nobody came for it within {}", seconds(held.hold_usec)));
        case HoldEnd::kSpanOver:
                return end_hold(held, "nobody came for it within the time that sockbrokerctl hold gave");
        case HoldEnd::kUnread: {
                const auto* one = find(held.key.service, held.key.cookie);
                if (one == nullptr) {
                        return;
                }
                Entry entry = entry_of(Action::kExpire, held.key.service, *one);
                entry.message = fmt::format(
                        "what came on the {} of {} has waited {} and nobody reads it: the broker keeps it no more, who "
                        "has it still goes on",
                        socket_name(*one), held.key.service, seconds(held.hold_usec));
                entry.priority = 4;
                entries_.write(std::move(entry));
                return;
        }
        case HoldEnd::kStopped:
                return end_hold(held, fmt::format("{} was stopped", held.unit));
        case HoldEnd::kActivated:
                if (held.gone_usec != 0) {
                        (void)registry_.set_gone(held.key.service, held.key.cookie, 0);
                }
        }
}

// The descriptor is given up. Whether that was the last one is the kernel's to say: a socket that somebody else has
// goes on.
void HeldSockets::end_hold(const Held& held, const std::string& why) {
        const auto* one = find(held.key.service, held.key.cookie);
        if (one == nullptr) {
                return;
        }
        if (one->held()) {
                Entry entry = entry_of(Action::kExpire, held.key.service, *one);
                entry.message =
                        fmt::format("the {} of {} is not held any more: {}", socket_name(*one), held.key.service, why);
                entry.priority = 5;
                entries_.write(std::move(entry));
                (void)registry_.set_gone(held.key.service, held.key.cookie, 0);
        }
}

}  // namespace sockbroker
