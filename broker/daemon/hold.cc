// SPDX-License-Identifier: LGPL-2.1-or-later
//
// HoldSec=: what the broker does when a service goes, comes back, or does not. Clocks are Holds' matter, descriptors
// the holders', places in the kernel the registry's; here they are kept in step.
#include <fcntl.h>

#include <algorithm>

#include <fmt/format.h>

#include "broker/daemon/broker.h"
#include "broker/daemon/holdable.h"
#include "broker/daemon/holds.h"
#include "broker/peer/on_behalf.h"

namespace sockbroker {

namespace {

constexpr std::int64_t kUsec = 1'000'000;

std::string seconds(std::int64_t usec) {
        return usec % kUsec == 0 ? fmt::format("{} s", usec / kUsec)
                                 : fmt::format("{:.3f} s", static_cast<double>(usec) / static_cast<double>(kUsec));
}

// As every first instance hears it: no refusal, and no entry in the journal.
Answer not_held(const std::string& service) {
        return Answer{.code = ResultCode::kNotHeld,
                      .message = fmt::format("no socket of {} waits for its next instance", service)};
}

}  // namespace

const Registration* Broker::find_registration(const std::string& service, std::uint64_t cookie) const {
        const auto all = registry_.registrations(service);
        const auto found = std::ranges::find(all, cookie, &Registration::cookie);
        return found == all.end() ? nullptr : &*found;
}

void Broker::hold(const Service& service, const std::vector<CommitResult>& handed, const Message& message) {
        if (holds_ == nullptr) {
                return;
        }
        std::size_t unstored = 0;
        std::size_t not_here = 0;
        for (const auto& [added, displaced] : handed) {
                // Its owner accepts what is left and closes it: handshakes that come later must not end in a queue that
                // is nobody's.
                for (const auto& old : displaced) {
                        holds_->release({service.name, old.cookie});
                }
                if (!may_be_held(service, added)) {
                        holds_->release({service.name, added.cookie});
                        continue;
                }
                if (!holds_->is_in_holder({service.name, added.cookie})) {
                        not_here++;
                        continue;
                }
                Process process{.pidfd = process_of(message, added.registrant)};
                if (!process.pidfd) {
                        process = open_process(added.registrant.pid, added.registered_usec);
                }
                unstored += holds_->keep(held_of(service, added), std::move(process)) ? 0 : 1;
        }
        if (not_here > 0) {
                note(4,
                     fmt::format("{} of the sockets that {} has registered now are not held: that policy admits their "
                                 "sender was not known yet when they came; register them again",
                                 not_here, service.name));
        }
        if (unstored > 0) {
                note(4,
                     fmt::format("{} of the sockets that {} has registered now found no place in the store of systemd, "
                                 "which takes {} of the broker (FileDescriptorStoreMax=): should the broker end, they "
                                 "are not held any more",
                                 unstored, service.name, holds_->store_capacity()));
        }
        drop_lost_holds(service.name);
}

// Of sockets that are not registered any more, for whatever reason.
void Broker::drop_lost_holds(const std::string& service) {
        if (holds_ == nullptr) {
                return;
        }
        for (const auto& key : holds_->keys_of(service)) {
                if (find_registration(service, key.cookie) == nullptr) {
                        holds_->release(key);
                }
        }
}

void Broker::follow_holds() {
        if (holds_ == nullptr) {
                return;
        }
        for (const auto& service : policy_->services) {
                for (const auto& key : holds_->keys_of(service.name)) {
                        const auto* one = find_registration(service.name, key.cookie);
                        if (one == nullptr || !may_be_held(service, *one)) {
                                end_hold(*holds_->find(key), "HoldSec= is 0 now");
                                holds_->release(key);
                        } else {
                                holds_->set_span(key, service.hold_usec);
                        }
                }
        }
}

void Broker::on_gone(const Held& held) {
        const auto* one = find_registration(held.key.service, held.key.cookie);
        if (one == nullptr ||
            !is_live(registry_.registrations(held.key.service), registry_.distribution(held.key.service), *one)) {
                holds_->release(held.key);  // displaced: nobody would be waiting for the next instance
                return;
        }
        if (const auto done = registry_.set_gone(held.key.service, held.key.cookie, held.gone_usec); !done) {
                note(3, "cannot note that a service is gone: " + done.error().text());
        }
        one = find_registration(held.key.service, held.key.cookie);
        Entry entry = entry_of(Action::kHold, held.key.service, *one);
        entry.message = fmt::format(
                "{} is gone{}, its {} socket {} waits {} for the next instance", held.key.service,
                held.alone ? fmt::format(" (the process that registered it has ended, {} goes on)", held.unit) : "",
                to_string(one->protocol), one->bound.to_string(),
                seconds(held.until_usec != 0 ? (held.until_usec - held.gone_usec) / kUsec * kUsec : held.hold_usec));
        audit_.write(std::move(entry));
}

void Broker::on_there(const Held& held) {
        (void)registry_.set_gone(held.key.service, held.key.cookie, 0);
        note(6, held.alone
                        ? fmt::format("others than the process that registered it read a socket of {}, it is not held",
                                      held.key.service)
                        : fmt::format("{} is there, its socket is not held", held.key.service));
}

void Broker::on_hold_end(const Held& held, HoldEnd why) {
        switch (why) {
        case HoldEnd::kExpired:
                return end_hold(held, fmt::format("nobody came for it within {}", seconds(held.hold_usec)));
        case HoldEnd::kSpanOver:
                return end_hold(held, "nobody came for it within the time that sockbrokerctl hold gave");
        case HoldEnd::kUnread: {
                const auto* one = find_registration(held.key.service, held.key.cookie);
                if (one == nullptr) {
                        return;
                }
                Entry entry = entry_of(Action::kExpire, held.key.service, *one);
                entry.message = fmt::format(
                        "what came on the {} socket {} of {} has waited {} and nobody reads it: the broker keeps it no "
                        "more, who has it still goes on",
                        to_string(one->protocol), one->bound.to_string(), held.key.service, seconds(held.hold_usec));
                entry.priority = 4;
                audit_.write(std::move(entry));
                return;
        }
        case HoldEnd::kStopped:
                return end_hold(held, fmt::format("{} was stopped", held.unit));
        case HoldEnd::kActivated:
                // PID 1 keeps the sockets of a .socket unit. Others of such a service are not told apart.
                if (held.gone_usec != 0) {
                        (void)registry_.set_gone(held.key.service, held.key.cookie, 0);
                }
        }
}

// The descriptor is given up. Whether that was the last one is the kernel's to say: a socket that somebody else has
// goes on.
void Broker::end_hold(const Held& held, const std::string& why) {
        const auto* one = find_registration(held.key.service, held.key.cookie);
        if (one == nullptr) {
                return;
        }
        if (one->held()) {
                Entry entry = entry_of(Action::kExpire, held.key.service, *one);
                entry.message = fmt::format("the {} socket {} of {} is not held any more: {}", to_string(one->protocol),
                                            one->bound.to_string(), held.key.service, why);
                entry.priority = 5;
                audit_.write(std::move(entry));
                (void)registry_.set_gone(held.key.service, held.key.cookie, 0);
        }
}

Answer Broker::hold_over_stop(const Request& request, const Peer& peer) {
        const std::string& service = request.service;
        if (policy_->find(service) == nullptr) {
                return refuse(
                        {ResultCode::kUnknownService, fmt::format("no policy names a service \"{}\"", service), {}},
                        peer, service);
        }
        std::size_t kept = 0;
        std::vector<std::uint64_t> concerned;
        for (const auto& one : registry_.registrations(service)) {
                if (holds_ == nullptr || holds_->find({service, one.cookie}) == nullptr) {
                        continue;
                }
                kept++;
                if (peer.uid == 0 || is_owner(peer, one)) {
                        concerned.push_back(one.cookie);
                }
        }
        if (kept == 0) {
                return refuse(
                        {ResultCode::kNotHeld,
                         fmt::format("the broker keeps no socket of {}: it has none, the policy says no HoldSec= for "
                                     "it, or PID 1 keeps those of its .socket unit",
                                     service),
                         {}},
                        peer, service);
        }
        if (concerned.empty()) {
                return refuse(
                        {ResultCode::kNotPermitted,
                         fmt::format("the sockets of {} were registered by others, only root may ask that they be "
                                     "held over a stop",
                                     service),
                         {}},
                        peer, service);
        }
        const auto span = static_cast<std::int64_t>(request.timeout_usec);
        const auto until = span == 0 ? 0 : steady_usec() + span;
        for (const auto cookie : concerned) {
                if (const auto done = registry_.set_hold_until(service, cookie, until); !done) {
                        return refuse({ResultCode::kInternal, done.error().text(), {}}, peer, service);
                }
                holds_->set_until({service, cookie}, until);
        }
        std::string message =
                span == 0 ? fmt::format("a stop of {} ends the hold of its sockets at once, as usual", service)
                          : fmt::format("a stop of {} counts as a crash for {}: {} socket{} will wait so long", service,
                                        seconds(span), concerned.size(), concerned.size() == 1 ? "" : "s");
        audit_.write({.action = Action::kKeep,
                      .priority = 5,
                      .message = fmt::format("{}, asked by {}", message, peer.to_string()),
                      .service = service,
                      .result = std::string(to_string(ResultCode::kOk)),
                      .unit = peer.unit,
                      .has_peer = true,
                      .uid = peer.uid,
                      .pid = peer.pid});
        return Answer{.message = std::move(message)};
}

void Broker::retrieve(const Request& request, const Peer& peer, const Message& message, const Reply& reply) {
        auto process = std::make_shared<OwnedFd>(process_of(message, peer));
        when_admitted(request.service, peer, 0, reply,
                      [this, process](const Admission& admission, const Peer& admitted, const Reply& answered) {
                              const auto service = admission.service->name;
                              if (holds_ == nullptr) {
                                      return answered(not_held(service));
                              }
                              holds_->settle(service, [this, service, admitted, process, answered] {
                                      bool judged = false;
                                      (void)guarded([&] {
                                              // By the policy of now.
                                              when_admitted(service, admitted, 0, answered,
                                                            [this, process](const Admission& now, const Peer& who,
                                                                            const Reply& last) {
                                                                    reply_with(last, [&] {
                                                                            return give_back(now, who, *process);
                                                                    });
                                                            });
                                              judged = true;
                                      });
                                      if (!judged) {
                                              reply_with(answered, [] {
                                                      return Answer{.code = ResultCode::kInternal, .message = {}};
                                              });
                                      }
                              });
                      });
}

Answer Broker::give_back(const Admission& admission, const Peer& peer, const OwnedFd& process) {
        const auto& service = admission.service->name;
        Answer result;
        std::string lines;
        std::vector<HoldKey> given;
        for (const auto& one :
             std::vector(registry_.registrations(service).begin(), registry_.registrations(service).end())) {
                if (!one.held() || given.size() == kMaxMessageFds) {
                        continue;
                }
                if (!holds_->is_in_holder({service, one.cookie}) || !registry_.give_back(service, one.cookie, peer)) {
                        continue;  // it stays held, and can be asked for again
                }
                result.held.cookies.push_back(one.cookie);
                given.push_back({service, one.cookie});
                const auto* now = find_registration(service, one.cookie);
                Process watched = process ? Process{.pidfd = OwnedFd(fcntl(process.get(), F_DUPFD_CLOEXEC, 3))}
                                          : open_process(peer.pid, now->registered_usec);
                lines += list_line(service, *now, true);
                Entry entry = entry_of(Action::kRetrieve, service, *now);
                entry.rule = admission.rule;
                entry.result = to_string(ResultCode::kOk);
                entry.message = fmt::format("{} has the {} socket {} of {} back", peer.to_string(),
                                            to_string(now->protocol), now->bound.to_string(), service);
                audit_.write(std::move(entry));
                holds_->pass_on({service, one.cookie}, peer, now->registered_usec, std::move(watched));
        }
        if (given.empty()) {
                return not_held(service);
        }
        result.message = fmt::format("{} socket{} of {}", given.size(), given.size() == 1 ? "" : "s", service);
        result.rows = rows_of_lines(std::move(lines));
        result.held.service = service;
        // Nobody has them: the clock goes on as if they had not been asked for.
        result.undelivered = [this, given] {
                for (const auto& key : given) {
                        holds_->take_back(key);
                }
        };
        return result;
}

std::vector<std::string> Broker::warnings() const {
        const bool wanted =
                std::ranges::any_of(policy_->services, [](const Service& one) { return one.hold_usec > 0; });
        std::vector<std::string> result;
        if (const auto silent = names_.silent(); !silent.names.empty()) {
                result.push_back(describe(silent));
        }
        if (!wanted || holds_ == nullptr) {
                return result;
        }
        if (const auto unstored = holds_->unstored(); unstored > 0) {
                result.push_back(
                        fmt::format("{} sockets with HoldSec= found no place in the store of systemd, which takes {} "
                                    "of the broker: "
                                    "should the broker end, they are not held any more (FileDescriptorStoreMax=)",
                                    unstored, holds_->store_capacity()));
        }
        if (!holds_->has_store()) {
                result.emplace_back(
                        "the broker was not started by systemd: sockets that are held end with it (HoldSec=)");
        } else if (holds_->manager_version() != 0) {
                // From 254 on it could be told not to (FileDescriptorStorePreserve=). But then, with no broker to watch
                // the clock, clients of a service that goes would wait for as long as the broker is away.
                result.push_back(fmt::format(
                        "systemd {} empties its store of descriptors when sockbrokerd.service is stopped, and sockets "
                        "that are held end (HoldSec=): restart it instead, that keeps them",
                        holds_->manager_version()));
        }
        return result;
}

}  // namespace sockbroker
