// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/holds/holdable.h"

#include <fmt/format.h>

namespace sockbroker {

// PID 1 itself keeps what its .socket units opened. What a service of such a unit hands over is told apart later.
bool may_be_held(const Service& service, const Registration& registration) {
        // Where the kernel chooses within a group it would choose the held one too, while others could serve.
        const bool chosen_by_kernel = service.reuse_port && service.handover == Handover::kShare;
        return service.hold_usec > 0 && !chosen_by_kernel && !registration.registrant.unit.ends_with(".socket");
}

std::string_view end_of_hold(const Service& service, const Registration& registration, std::int64_t now_usec) {
        if (service.hold_usec == 0) {
                return "HoldSec= is 0 now";
        }
        if (!may_be_held(service, registration)) {
                return "Handover=share with ReusePort=yes holds none";
        }
        const bool over = registration.hold_until_usec == 0 && registration.gone_usec + service.hold_usec <= now_usec;
        return over ? "it has waited for as long as HoldSec= is now" : "";
}

Held held_of(const Service& service, const Registration& registration) {
        return {.key = {service.name, registration.cookie},
                .protocol = registration.protocol,
                .bound = registration.bound,
                .unit = registration.registrant.unit,
                .registered_usec = registration.registered_usec,
                .gone_usec = registration.gone_usec,
                .hold_usec = service.hold_usec,
                .until_usec = registration.hold_until_usec};
}

std::string seconds(std::int64_t usec) {
        return usec % kUsec == 0 ? fmt::format("{} s", usec / kUsec)
                                 : fmt::format("{:.3f} s", static_cast<double>(usec) / static_cast<double>(kUsec));
}

}  // namespace sockbroker
