// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What peers ask of held sockets: that a stop does not end them (VERB=hold), and to have them back (VERB=retrieve).
#include <fcntl.h>

#include <algorithm>
#include <cstdint>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "broker/daemon/entries.h"
#include "broker/daemon/held_sockets.h"
#include "broker/holds/holdable.h"
#include "broker/peer/on_behalf.h"

namespace sockbroker {

namespace {

// As every first instance hears it: no refusal, and no entry in the journal.
Answer not_held(const std::string& service) {
        return Answer{.code = ResultCode::kNotHeld,
                      .message = fmt::format("no socket of {} waits for its next instance", service)};
}

}  // namespace

Answer HeldSockets::hold_over_stop(const Request& request, const Peer& peer) {
        const std::string& service = request.service;
        if (policy_->find(service) == nullptr) {
                return refusals_.refuse_unknown(service, peer);
        }
        std::size_t kept = 0;
        std::vector<std::uint64_t> concerned;
        for (const auto& one : registry_.registrations(service)) {
                if (holds_.find({service, one.cookie}) == nullptr) {
                        continue;
                }
                kept++;
                if (peer.uid == 0 || is_owner(peer, one)) {
                        concerned.push_back(one.cookie);
                }
        }
        if (kept == 0) {
                return refusals_.refuse(
                        {ResultCode::kNotHeld,
                         fmt::format("the broker keeps no socket of {}: it has none, the policy says no HoldSec= for "
                                     "it, or PID 1 keeps those of its .socket unit",
                                     service),
                         {}},
                        peer, service);
        }
        if (concerned.empty()) {
                return refusals_.refuse(
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
                        return refusals_.refuse({ResultCode::kInternal, done.error().text(), {}}, peer, service);
                }
                holds_.set_until({service, cookie}, until);
        }
        std::string message =
                span == 0 ? fmt::format("a stop of {} ends the hold of its sockets at once, as usual", service)
                          : fmt::format("a stop of {} counts as a crash for {}: {} socket{} will wait so long", service,
                                        seconds(span), concerned.size(), concerned.size() == 1 ? "" : "s");
        Entry entry =
                entry_by(peer, Action::kKeep, 5, service, fmt::format("{}, asked by {}", message, peer.to_string()));
        entry.result = to_string(ResultCode::kOk);
        entries_.write(std::move(entry));
        return Answer{.message = std::move(message)};
}

Answer HeldSockets::give_back(const Admission& admission, const Peer& peer, const OwnedFd& process) {
        const auto& service = admission.service->name;
        Answer result;
        std::string lines;
        std::vector<HoldKey> given;
        for (const auto& one :
             std::vector(registry_.registrations(service).begin(), registry_.registrations(service).end())) {
                if (!one.held() || given.size() == kMaxMessageFds) {
                        continue;
                }
                if (!holds_.is_in_holder({service, one.cookie}) || !registry_.give_back(service, one.cookie, peer)) {
                        continue;  // it stays held, and can be asked for again
                }
                result.held.cookies.push_back(one.cookie);
                given.push_back({service, one.cookie});
                const auto* now = find(service, one.cookie);
                Process watched = process ? Process{.pidfd = OwnedFd(fcntl(process.get(), F_DUPFD_CLOEXEC, 3))}
                                          : open_process(peer.pid, now->registered_usec);
                lines += list_line(service, *now, true);
                Entry entry = entry_of(Action::kRetrieve, service, *now);
                entry.rule = admission.rule;
                entry.result = to_string(ResultCode::kOk);
                entry.message = fmt::format("{} has the {} of {} back", peer.to_string(), socket_name(*now), service);
                entries_.write(std::move(entry));
                holds_.pass_on({service, one.cookie}, peer, now->registered_usec, std::move(watched));
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
                        holds_.take_back(key);
                }
        };
        return result;
}

std::string HeldSockets::warn_of_late() const {
        constexpr std::size_t kNamed = 3;
        std::size_t sockets = 0;
        std::vector<std::string> services;
        for (auto at = late_.begin(); at != late_.end(); at = late_.upper_bound({at->service, UINT64_MAX})) {
                const auto* service = policy_->find(at->service);
                const auto all = registry_.registrations(at->service);
                const Serving serving(all, registry_.distribution(at->service));
                const auto count = service == nullptr ? 0 : std::ranges::count_if(all, [&](const Registration& one) {
                        return late_.contains({service->name, one.cookie}) && may_be_held(*service, one) &&
                               serving.is_live(one);
                });
                if (count > 0) {
                        sockets += static_cast<std::size_t>(count);
                        services.push_back(services.size() < kNamed ? service->name : "others");
                        services.resize(std::min(services.size(), kNamed + 1));
                }
        }
        return sockets == 0 ? ""
                            : fmt::format(
                                      "{} sockets of {} are served and not held (HoldSec=): they came on notify "
                                      "before this host had answered for the name of User= or Group= that admits "
                                      "their sender; register them again, or by control, which waits for the "
                                      "answer",
                                      sockets, fmt::join(services, ", "));
}

std::vector<std::string> HeldSockets::warnings() const {
        const bool wanted =
                std::ranges::any_of(policy_->services, [](const Service& one) { return one.hold_usec > 0; });
        std::vector<std::string> result;
        if (!wanted) {
                return result;
        }
        if (const auto unstored = holds_.unstored(); unstored > 0) {
                result.push_back(
                        fmt::format("{} sockets with HoldSec= found no place in the store of systemd, which takes {} "
                                    "of the broker: "
                                    "should the broker end, they are not held any more (FileDescriptorStoreMax=)",
                                    unstored, holds_.store_capacity()));
        }
        const auto is_not_held = [&](const Service& service) {
                return std::ranges::any_of(registry_.registrations(service.name), [&](const Registration& one) {
                        return may_be_held(service, one) && holds_.find({service.name, one.cookie}) == nullptr;
                });
        };
        const auto count = std::ranges::count_if(policy_->services, is_not_held);
        const auto held = std::ranges::count_if(
                policy_->services, [&](const Service& service) { return !holds_.keys_of(service.name).empty(); });
        if (count > 0 && static_cast<std::size_t>(held) >= hands::Crew::kMaxHolders) {
                result.push_back(
                        fmt::format("sockets of {} services with HoldSec= are not held: the broker holds "
                                    "those of {} services at most, in a process for each",
                                    count, hands::Crew::kMaxHolders));
        }
        if (auto late = warn_of_late(); !late.empty()) {
                result.push_back(std::move(late));
        }
        if (!holds_.has_store()) {
                result.emplace_back(
                        "the broker was not started by systemd: sockets that are held end with it (HoldSec=)");
        } else if (holds_.manager_version() != 0) {
                // From 254 on it could be told not to (FileDescriptorStorePreserve=). But then, with no broker to watch
                // the clock, clients of a service that goes would wait for as long as the broker is away.
                result.push_back(fmt::format(
                        "systemd {} empties its store of descriptors when sockbrokerd.service is stopped, and sockets "
                        "that are held end (HoldSec=): restart it instead, that keeps them",
                        holds_.manager_version()));
        }
        return result;
}

}  // namespace sockbroker
