// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See running.h. PID 1 is asked over the system bus; where there is no bus, what PID 1 leaves for journald in
// /run/systemd/units tells the same: a link for each unit that runs.
#include "broker/ctl/running.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "broker/base/system_bus.h"
#include "broker/ctl/system_bus.h"

namespace sockbroker::ctl {

namespace {

constexpr std::uint64_t kPatienceUsec = 2'000'000;

// Of a unit, as `systemctl show -P ActiveState` says it; empty: nobody could be asked.
std::string active_state(const std::string& unit) {
        sd_bus* raw = nullptr;
        const int opened = open_system_bus(&raw);
        const SystemBus bus(raw);
        if (opened < 0) {
                return {};
        }
        (void)sd_bus_set_method_call_timeout(bus.get(), kPatienceUsec);
        char* path = nullptr;
        char* state = nullptr;
        if (sd_bus_path_encode("/org/freedesktop/systemd1/unit", unit.c_str(), &path) < 0) {
                return {};
        }
        const std::unique_ptr<char, decltype(&std::free)> owned_path(path, std::free);
        if (sd_bus_get_property_string(bus.get(), "org.freedesktop.systemd1", path, "org.freedesktop.systemd1.Unit",
                                       "ActiveState", nullptr, &state) < 0) {
                return {};
        }
        const std::unique_ptr<char, decltype(&std::free)> owned_state(state, std::free);
        return state;
}

// Whether the broker that is meant is one of systemd's.
bool is_a_unit(const Options& options) {
        return options.runtime_dir ==
                       (options.netns.empty() ? Options{}.runtime_dir : "/run/sockbroker/netns/" + options.netns) &&
               sd_booted() > 0;
}

}  // namespace

std::string unit_of_broker(const Options& options) {
        return options.netns.empty() ? "sockbrokerd.service" : fmt::format("sockbrokerd@{}.service", options.netns);
}

bool is_not_up_by_systemd(const Options& options) {
        return is_a_unit(options) && active_state(unit_of_broker(options)) == "activating";
}

bool is_down_by_systemd(const Options& options) {
        if (!is_a_unit(options)) {
                return false;
        }
        const auto unit = unit_of_broker(options);
        const auto state = active_state(unit);
        if (!state.empty()) {
                return state == "inactive" || state == "failed";
        }
        // The link leads nowhere: what it names is the invocation.
        struct stat link {};
        return access("/run/systemd/units", X_OK) == 0 &&
               lstat(("/run/systemd/units/invocation:" + unit).c_str(), &link) != 0 && errno == ENOENT;
}

}  // namespace sockbroker::ctl
