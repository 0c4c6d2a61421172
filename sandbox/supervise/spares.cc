// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/supervise/spares.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <tuple>

#include "sandbox/supervise/end_socket.h"

namespace sockbroker::supervise {

namespace {

bool fits(const Spare& spare, const std::string& service, const Asked& asked, std::span<const std::uint16_t> ports) {
        const auto& facts = spare.facts;
        if (spare.service != service || facts.protocol != asked.protocol || (facts.domain == AF_INET6) != asked.ipv6) {
                return false;
        }
        // One of IPv6 alone is better than none for a program that wanted both; never the other way round, and never
        // for one that asked at a v4-mapped address.
        const bool dual = facts.family == SocketFamily::kDual;
        if (asked.ipv6 && !asked.dual && dual != (asked.at.address.family == Family::kIpv4)) {
                return false;
        }
        if (asked.protocol == Protocol::kUdp) {
                return facts.bound.port == asked.at.port;
        }
        return facts.listening && (!spare.held || std::ranges::find(ports, facts.bound.port) != ports.end());
}

}  // namespace

std::optional<std::size_t> choose(std::span<const Spare> spares, const std::string& service, const Asked& asked,
                                  std::span<const std::uint16_t> ports) {
        std::optional<std::size_t> best;
        const auto rank = [&](const Spare& spare) {
                const bool both = spare.facts.family == SocketFamily::kDual;
                return std::tuple(spare.held, asked.dual && !both, spare.facts.bound.port != asked.at.port, spare.used);
        };
        for (std::size_t i = 0; i < spares.size(); i++) {
                if (fits(spares[i], service, asked, ports) && (!best || rank(spares[i]) < rank(spares[*best]))) {
                        best = i;
                }
        }
        return best;
}

void Spares::add(const std::string& service, OwnedFd fd) {
        add(Spare{.service = service}, std::move(fd));
}

void Spares::add_held(const std::string& service, OwnedFd fd, Time drop_at) {
        add(Spare{.service = service, .held = true, .drop_at = drop_at}, std::move(fd));
}

void Spares::add(Spare spare, OwnedFd fd) {
        const auto facts = probe_socket(fd.get());
        const auto same = [&](const Spare& other) { return other.held && other.facts.cookie == facts->cookie; };
        if (!facts || (spare.held && std::ranges::any_of(spares_, same))) {
                return;
        }
        spare.facts = *facts;
        spares_.push_back(std::move(spare));
        fds_.push_back(std::move(fd));
}

Given Spares::take(const std::string& service, const Asked& asked, std::span<const std::uint16_t> ports) {
        const auto found = choose(spares_, service, asked, ports);
        if (!found) {
                return {};
        }
        const auto at = static_cast<std::ptrdiff_t>(*found);
        if (!spares_[*found].held) {
                const bool before = spares_[*found].used++ > 0;
                return {.fd = OwnedFd(::fcntl(fds_[*found].get(), F_DUPFD_CLOEXEC, 3)), .before = before};
        }
        OwnedFd fd = std::move(fds_[*found]);
        spares_.erase(spares_.begin() + at);
        fds_.erase(fds_.begin() + at);
        return {.fd = std::move(fd)};
}

void Spares::drop_held(Time now) {
        for (std::size_t i = spares_.size(); i-- > 0;) {
                if (spares_[i].held && spares_[i].drop_at <= now) {
                        end_socket(fds_[i].get(), spares_[i].facts);
                        spares_.erase(spares_.begin() + static_cast<std::ptrdiff_t>(i));
                        fds_.erase(fds_.begin() + static_cast<std::ptrdiff_t>(i));
                }
        }
}

Time Spares::next_drop() const {
        Time next = Time::max();
        for (const Spare& spare : spares_) {
                next = std::min(next, spare.drop_at);
        }
        return next;
}

}  // namespace sockbroker::supervise
