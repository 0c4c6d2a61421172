// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See passed.h.
#include "broker/ctl/passed.h"

#include <fmt/format.h>

#include <algorithm>

#include "broker/protocol/service_name.h"

namespace sockbroker::ctl {

Result<std::vector<Handout>> hand_out(const std::vector<PassedFd>& passed, std::string_view service) {
        if (!service.empty() && !valid_service_name(service)) {
                return fail(fmt::format("\"{}\" cannot be a service, names are 1 to 40 of A-Z a-z 0-9 . _ -", service));
        }
        std::vector<Handout> handouts;
        for (const PassedFd& socket : passed) {
                const std::string_view name = service.empty() ? socket.name : service;
                // sd_listen_fds_with_names(3) says "unknown" for a descriptor without a name.
                if (service.empty() && (name == "unknown" || !valid_service_name(name))) {
                        return fail(
                                fmt::format("a socket was passed as \"{}\", which names no service: set "
                                            "FileDescriptorName=SERVICE in its .socket unit, or name the service "
                                            "as in: sockbrokerctl register SERVICE",
                                            name));
                }
                auto at = std::ranges::find(handouts, name, &Handout::service);
                if (at == handouts.end()) {
                        at = handouts.insert(at, {.service = std::string(name), .fds = {}, .names = {}});
                }
                at->fds.push_back(socket.fd);
                if (std::ranges::find(at->names, socket.name) == at->names.end()) {
                        at->names.push_back(socket.name);
                }
        }
        return handouts;
}

std::string name_hint(std::string_view name) {
        constexpr std::string_view kWhat =
                "set FileDescriptorName=SERVICE there, or name the service: "
                "sockbrokerctl register SERVICE";
        if (name == "connection") {
                return fmt::format(
                        "\"connection\" is what systemd names each connection of a .socket unit with Accept=yes, and "
                        "only the listening socket can be registered: set Accept=no there; a listening socket of that "
                        "name comes from elsewhere, then {}",
                        kWhat);
        }
        if (name == "stored") {
                return fmt::format(
                        "\"stored\" is what systemd names a descriptor that a service has stored without FDNAME=: {}",
                        kWhat);
        }
        if (name.ends_with(".socket") || name.ends_with(".service")) {
                return fmt::format(
                        "\"{}\" looks like the name of a unit, which systemd gives to sockets of a unit without "
                        "FileDescriptorName=: {}",
                        name, kWhat);
        }
        return "";
}

}  // namespace sockbroker::ctl
