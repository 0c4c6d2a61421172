// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/supervise/chosen_ports.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>

#include "sandbox/supervise/supervisor.h"
#include "sandbox/supervise/target.h"

namespace sockbroker::supervise {

namespace {

std::uint16_t port_of(int fd) {
        sockaddr_in6 name{};  // IPv4 has its port at the same place
        socklen_t size = sizeof name;
        return ::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size) == 0 ? ntohs(name.sin6_port) : 0;
}

}  // namespace

void ChosenPorts::note(pid_t pid, int number, int fd, Protocol protocol) {
        if (chosen_.size() == kMost) {
                chosen_.pop_front();
        }
        chosen_.push_back(
                {.cookie = cookie_of(fd), .pid = pid, .number = number, .protocol = protocol, .port = port_of(fd)});
}

bool ChosenPorts::has(Protocol protocol, std::uint16_t port) const {
        return std::ranges::any_of(chosen_, [&](const Chosen& one) {
                if (one.protocol != protocol || one.port != port) {
                        return false;
                }
                const auto target = Target::open(one.pid);
                const auto fd = target ? target->descriptor(one.number) : fail("it is gone");
                return fd && cookie_of(fd->get()) == one.cookie && port_of(fd->get()) == port;
        });
}

}  // namespace sockbroker::supervise
