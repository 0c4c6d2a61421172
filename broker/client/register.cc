// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/client/register.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include "broker/protocol/request.h"

namespace sockbroker {

namespace {

constexpr int kAttachReuseportEbpf = 52;  // SO_ATTACH_REUSEPORT_EBPF of linux/socket.h; libc lacks it in places

int option(int fd, int name) {
        int value = 0;
        socklen_t size = sizeof value;
        return getsockopt(fd, SOL_SOCKET, name, &value, &size) == 0 ? value : -1;
}

// A datagram that waits stays where it is, whatever program the group has.
bool may_migrate(int fd) {
        return option(fd, SO_PROTOCOL) == IPPROTO_TCP && option(fd, SO_REUSEPORT) == 1;
}

}  // namespace

ControlRequest RegisterOperation::next() {
        const Request request{.verb = Verb::kStore,
                              .service = service_,
                              .pid = how_.pid,
                              .migrate = how_.migrate,
                              .inherit = how_.inherit,
                              .family = how_.family};
        return {.request = format_request(request), .fds = fds_};
}

Result<Operation::Course> RegisterOperation::take(ControlAnswer& answer, std::vector<OwnedFd> received) {
        if (answer.result == "malformed" && (how_.inherit || how_.family)) {
                how_.inherit = false;
                how_.family.reset();
                return Course{.over = false};
        }
        if (answer.result == "malformed" && how_.migrate) {
                how_.migrate = false;
                return Course{.over = false};
        }
        if (received.size() != 1) {
                return Course{};
        }
        const int program = received.front().get();
        for (const int fd : fds_) {
                if (may_migrate(fd) &&
                    setsockopt(fd, SOL_SOCKET, kAttachReuseportEbpf, &program, sizeof program) != 0) {
                        answer.warnings.push_back(
                                fmt::format("cannot attach the migration program to a listener: {}; connections that "
                                            "wait in it when it closes are reset unless net.ipv4.tcp_migrate_req=1",
                                            std::strerror(errno)));
                }
        }
        return Course{};
}

Result<ControlClient::Answer> register_sockets(ControlClient& client, const std::string& service,
                                               const std::vector<int>& fds, HowToRegister how) {
        RegisterOperation registration(service, fds, how);
        return run(client, registration);
}

}  // namespace sockbroker
