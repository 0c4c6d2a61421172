// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See stopped.h.
#include "broker/ctl/stopped.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "broker/dataplane/kernel/pinned.h"
#include "broker/socket/facts.h"

namespace sockbroker::ctl {

namespace {

std::string_view state_of(const PinnedSocket& socket) {
        return socket.registrant.gone_usec != 0 ? "held" : socket.live ? "live" : "draining";
}

Json socket_row(const std::string& service, const PinnedSocket& socket) {
        const Registrant& one = socket.registrant;
        return {{"service", service},
                {"protocol", to_string(one.protocol)},
                {"family", to_string(static_cast<SocketFamily>(std::min<std::uint8_t>(one.family, 2)))},
                {"cookie", fmt::format("{:016x}", one.cookie)},
                {"bound", one.bound.to_string()},
                {"unit", one.unit.empty() ? Json(nullptr) : Json(one.unit)},
                {"uid", one.uid},
                {"pid", one.pid},
                {"state", state_of(socket)},
                {"since", one.since_usec}};
}

Json service_row(const PinnedService& service) {
        const auto count = [&](std::string_view state) {
                return static_cast<std::size_t>(std::ranges::count(service.sockets, state, state_of));
        };
        const ServiceCounters& sum = service.counters;
        return {{"service", service.name},
                {"sockets", service.sockets.size()},
                {"lookups", sum.lookups},
                {"assigned", sum.assigned},
                {"no_socket", sum.no_socket},
                {"errors",
                 {{"protocol", sum.error_protocol},
                  {"family", sum.error_family},
                  {"state", sum.error_state},
                  {"exists", sum.error_exists},
                  {"other", sum.error_other}}},
                {"live", count("live")},
                {"held", count("held")},
                {"draining", count("draining")},
                {"reply_conflicts", sum.crossed}};
}

}  // namespace

Stopped look_at_pins(const Options& options) {
        Stopped result;
        const std::string pin_dir = options.bpffs + "/dispatch";
        const auto link = look_at_link(pin_dir);
        if (!link) {
                const auto errnum = link.error().errnum;
                result.only_root = geteuid() != 0 && (errnum == EACCES || errnum == EPERM);
                result.why_unknown = link.error().text();
                return result;
        }
        result.dispatches = *link == PinnedLink::kAttached;
        result.detached = *link == PinnedLink::kDetached;
        if (!*result.dispatches) {
                return result;
        }
        const auto services = read_pins(pin_dir);
        if (!services) {
                result.why_unknown = services.error().text();
                return result;
        }
        for (const auto& service : *services) {
                result.services.push_back(service_row(service));
                for (const auto& socket : service.sockets) {
                        result.sockets.push_back(socket_row(service.name, socket));
                }
        }
        return result;
}

std::string describe(const Stopped& stopped) {
        if (!stopped.dispatches) {
                return fmt::format("whether dispatch goes on {}: {}",
                                   stopped.only_root ? "only root can see" : "is not known", stopped.why_unknown);
        }
        if (!*stopped.dispatches) {
                return stopped.detached ? "detached: nothing is dispatched until a broker starts"
                                        : "unloaded: nothing is dispatched";
        }
        return fmt::format("dispatch goes on with the last rules and sockets{}{}",
                           stopped.why_unknown.empty() ? "" : ", which cannot be read: ", stopped.why_unknown);
}

}  // namespace sockbroker::ctl
