// SPDX-License-Identifier: LGPL-2.1-or-later
//
// HoldSec=: what a start makes of the sockets that PID 1 has kept, and what becomes of those whose holder is lost.
#include <fcntl.h>
#include <sys/socket.h>

#include <map>

#include <fmt/format.h>

#include "broker/base/printable.h"
#include "broker/daemon/entries.h"
#include "broker/daemon/held_sockets.h"
#include "broker/holds/holdable.h"
#include "broker/peer/on_behalf.h"

namespace sockbroker {

namespace {

// 0: it is no socket.
std::uint64_t cookie_of(int fd) {
        std::uint64_t cookie = 0;
        socklen_t size = sizeof cookie;
        return getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) == 0 ? cookie : 0;
}

// As long as no policy says how long a client may wait.
constexpr std::int64_t kHoldWithoutPolicyUsec = 30 * kUsec;

}  // namespace

// Those alone that serve or are held: a displaced one was about to be given up. What they are is known by their
// cookies, which to ask for takes no lock of theirs; all else is the holders'.
void HeldSockets::take_up(std::vector<StoredFd> stored) {
        std::multimap<std::uint64_t, std::string> services_of;  // by cookie
        for (const auto& service : registry_.services()) {
                for (const auto& one : registry_.registrations(service)) {
                        services_of.emplace(one.cookie, service);
                }
        }
        // PID 1 was given what it has because a policy wanted it held; the next one in force will set its time.
        Service unknown{.hold_usec = kHoldWithoutPolicyUsec};
        std::map<std::string, Adoption> adopted;
        for (auto& [name, fd] : stored) {
                const std::uint64_t cookie = cookie_of(fd.get());
                const auto [first, last] = services_of.equal_range(cookie);
                bool is_held = false;
                for (auto at = first; at != last; at++) {
                        const std::string& service = at->second;
                        unknown.name = service;
                        const Service* policy = policy_.none() ? &unknown : policy_->find(service);
                        const auto* one = find(service, cookie);
                        if (policy == nullptr || one == nullptr || !may_be_held(*policy, *one) ||
                            !(one->held() ||
                              is_live(registry_.registrations(service), registry_.distribution(service), *one))) {
                                continue;
                        }
                        is_held = true;
                        (void)holds_.keep(held_of(*policy, *one),
                                          open_process(one->registrant.pid, one->registered_usec), name);
                        Adoption& adoption = adopted[service];
                        adoption.charge = {.uid = one->registrant.uid, .unit = one->registrant.unit, .admitted = true};
                        adoption.cookies.push_back(cookie);
                        adoption.sockets.emplace_back(fcntl(fd.get(), F_DUPFD_CLOEXEC, 3));
                        if (adoption.cookies.size() == kMaxMessageFds) {
                                adopt(service, std::exchange(adoption, {}));
                        }
                }
                if (is_held) {
                        fd.reset();  // not the last one: PID 1 has it
                } else {
                        holds_.forget_stored(name, std::move(fd));
                }
        }
        for (auto& [service, adoption] : adopted) {
                if (!adoption.cookies.empty()) {
                        adopt(service, std::move(adoption));
                }
        }
        for (const auto& service : registry_.services()) {
                for (const auto& one :
                     std::vector(registry_.registrations(service).begin(), registry_.registrations(service).end())) {
                        if (one.held() && holds_.find({service, one.cookie}) == nullptr) {
                                entries_.note(service, 4,
                                              fmt::format("the {} of {} was held and its descriptor is lost",
                                                          socket_name(one), service));
                                (void)registry_.set_gone(service, one.cookie, 0);
                        }
                }
        }
}

void HeldSockets::adopt(const std::string& service, Adoption adoption) {
        holds_.adopt(service, std::move(adoption.cookies), std::move(adoption.sockets), std::move(adoption.charge),
                     [this, service](const std::vector<std::uint64_t>& lost) { on_lost(service, lost); });
}

// PID 1 has them still, but as long as this broker runs it gives none back: nobody is to queue in them.
void HeldSockets::on_lost(const std::string& service, const std::vector<std::uint64_t>& cookies) {
        std::size_t lost = 0;
        for (const auto cookie : cookies) {
                const HoldKey key{service, cookie};
                const Held* const held = holds_.find(key);
                if (held == nullptr) {
                        continue;
                }
                lost++;
                end_hold(Held(*held), "the process that kept it has ended, or waits for what its owner has made of it");
                holds_.release(key);
        }
        if (lost > 0) {
                entries_.note(
                        service, 4,
                        fmt::format("{} sockets of {} are not held any more: the process that kept them has ended, or "
                                    "waits for what their owners have made of them; whoever has them still goes on",
                                    lost, service));
        }
}

// Whoever stored them: an older or newer version, an administrator by hand. Names that a socket of the broker has as
// well are left with PID 1.
void HeldSockets::drop_strangers(std::vector<StoredFd> strangers) {
        constexpr std::size_t kTold = 10;
        for (std::size_t i = 0; i < strangers.size(); i++) {
                if (i < kTold) {
                        audit_.note(
                                4,
                                fmt::format(
                                        "systemd passed a descriptor named {} that is nothing of the broker's; it is "
                                        "closed",
                                        printable(strangers[i].name)));
                }
                holds_.forget_stored(strangers[i].name, std::move(strangers[i].fd));
        }
        if (strangers.size() > kTold) {
                audit_.note(4, fmt::format("{} more such descriptors are closed", strangers.size() - kTold));
        }
}

}  // namespace sockbroker
