// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See running.h. PID 1 is asked over the system bus; where there is no bus, what PID 1 leaves for journald in
// /run/systemd/units tells the same: a link for each unit that runs.
#include "broker/ctl/running.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>

#include "broker/base/system_bus.h"
#include "broker/ctl/system_bus.h"

namespace sockbroker::ctl {

namespace {

constexpr std::uint64_t kPatienceUsec = 2'000'000;
constexpr auto kPoll = std::chrono::milliseconds(10);

// kUnknown: systemd does not run it, or nobody could be asked.
enum class State : std::uint8_t { kUnknown, kUp, kStarting, kEnding, kDown };

using Owned = std::unique_ptr<char, decltype(&std::free)>;

class BrokerUnit {
public:
        explicit BrokerUnit(const Options& options) : name_(unit_of_broker(options)) {
                const bool own_place =
                        options.runtime_dir !=
                        (options.netns.empty() ? Options{}.runtime_dir : "/run/sockbroker/netns/" + options.netns);
                of_systemd_ = !own_place && sd_booted() > 0;
                sd_bus* raw = nullptr;
                if (of_systemd_ && open_system_bus(&raw) >= 0) {
                        (void)sd_bus_set_method_call_timeout(raw, kPatienceUsec);
                        bus_.reset(raw);
                } else {
                        sd_bus_unref(raw);
                }
        }

        State state() const {
                if (!of_systemd_) {
                        return State::kUnknown;
                }
                if (const auto told = state_of_manager(); told != State::kUnknown) {
                        return told;
                }
                // The link leads nowhere: what it names is the invocation.
                struct stat link {};
                return access("/run/systemd/units", X_OK) != 0 ? State::kUnknown
                       : lstat(("/run/systemd/units/invocation:" + name_).c_str(), &link) == 0 || errno != ENOENT
                               ? State::kUp
                               : State::kDown;
        }

        // The state once it is no longer kEnding, or kEnding after so long.
        State settled(std::chrono::milliseconds patience) const {
                const auto end = std::chrono::steady_clock::now() + patience;
                auto now = state();
                while (now == State::kEnding && std::chrono::steady_clock::now() < end) {
                        std::this_thread::sleep_for(kPoll);
                        now = state();
                }
                return now;
        }

private:
        State state_of_manager() const {
                char* raw = nullptr;
                if (!bus_ || sd_bus_path_encode("/org/freedesktop/systemd1/unit", name_.c_str(), &raw) < 0) {
                        return State::kUnknown;
                }
                const Owned path(raw, std::free);
                const auto active = text(path.get(), "Unit", "ActiveState");
                if (active.empty()) {
                        return State::kUnknown;
                }
                const bool down = active == "inactive" || active == "failed";
                if (active == "activating") {
                        return State::kStarting;
                }
                if (!down && active != "deactivating") {
                        return State::kUp;
                }
                return starts(path.get()) ? State::kStarting : down ? State::kDown : State::kEnding;
        }

        // Whether a job of the unit ends with its start, as the second half of a restart.
        bool starts(const char* path) const {
                sd_bus_message* raw = nullptr;
                if (sd_bus_get_property(bus_.get(), kManager, path, "org.freedesktop.systemd1.Unit", "Job", nullptr,
                                        &raw, "(uo)") < 0) {
                        return false;
                }
                const std::unique_ptr<sd_bus_message, decltype(&sd_bus_message_unref)> job(raw, sd_bus_message_unref);
                std::uint32_t id = 0;
                const char* job_path = nullptr;
                if (sd_bus_message_read(job.get(), "(uo)", &id, &job_path) < 0 || id == 0) {
                        return false;
                }
                const auto type = text(job_path, "Job", "JobType");
                return type == "start" || type == "restart";
        }

        std::string text(const char* path, const char* interface, const char* property) const {
                char* raw = nullptr;
                if (sd_bus_get_property_string(bus_.get(), kManager, path,
                                               fmt::format("{}.{}", kManager, interface).c_str(), property, nullptr,
                                               &raw) < 0) {
                        return {};
                }
                const Owned owned(raw, std::free);
                return raw;
        }

        static constexpr const char* kManager = "org.freedesktop.systemd1";

        std::string name_;
        bool of_systemd_ = false;
        SystemBus bus_;
};

}  // namespace

std::string unit_of_broker(const Options& options) {
        return options.netns.empty() ? "sockbrokerd.service" : fmt::format("sockbrokerd@{}.service", options.netns);
}

bool is_not_up_by_systemd(const Options& options) {
        return BrokerUnit(options).state() == State::kStarting;
}

bool is_down_by_systemd(const Options& options, std::chrono::milliseconds patience) {
        const auto state = BrokerUnit(options).settled(patience);
        return state == State::kDown || state == State::kEnding;
}

void await_end_by_systemd(const Options& options, std::chrono::milliseconds patience) {
        const BrokerUnit unit(options);
        const auto end = std::chrono::steady_clock::now() + patience;
        for (auto now = unit.state(); now != State::kUnknown && now != State::kDown; now = unit.state()) {
                if (std::chrono::steady_clock::now() >= end) {
                        return;
                }
                std::this_thread::sleep_for(kPoll);
        }
}

}  // namespace sockbroker::ctl
