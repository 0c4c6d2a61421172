// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See triggered.h.
#include "broker/ctl/triggered.h"

#include <fmt/format.h>
#include <systemd/sd-daemon.h>

#include <cerrno>
#include <cstdlib>
#include <utility>

#include "broker/base/system_bus.h"

namespace sockbroker::ctl {

namespace {

constexpr const char* kManager = "org.freedesktop.systemd1";
constexpr const char* kUnit = "org.freedesktop.systemd1.Unit";

std::string path_of(const std::string& unit) {
        char* path = nullptr;
        if (sd_bus_path_encode("/org/freedesktop/systemd1/unit", unit.c_str(), &path) < 0) {
                return {};
        }
        const std::unique_ptr<char, decltype(&std::free)> owned(path, std::free);
        return path;
}

}  // namespace

std::string triggers_of(const Json& row) {
        const auto service = cell(row, "triggers");
        return service == "-" ? service : fmt::format("{} ({})", service, cell(row, "triggers_state", "not known"));
}

sd_bus* Triggered::bus() {
        if (!std::exchange(looked_for_bus_, true)) {
                begun_ = std::chrono::steady_clock::now();
                sd_bus* raw = nullptr;
                const int opened = sd_booted() > 0 ? open_system_bus(&raw) : -ENOENT;
                bus_.reset(raw);
                if (opened < 0) {
                        bus_.reset();
                } else {
                        (void)sd_bus_set_method_call_timeout(raw, std::chrono::microseconds(kPatience).count());
                }
        }
        return std::chrono::steady_clock::now() - begun_ < kPatience ? bus_.get() : nullptr;
}

std::string Triggered::property(const std::string& unit, const char* name) {
        char* text = nullptr;
        sd_bus* const manager = bus();
        if (manager == nullptr ||
            sd_bus_get_property_string(manager, kManager, path_of(unit).c_str(), kUnit, name, nullptr, &text) < 0) {
                return {};
        }
        const std::unique_ptr<char, decltype(&std::free)> owned(text, std::free);
        return text;
}

std::vector<std::string> Triggered::list_of(const std::string& unit, const char* name) {
        char** raw = nullptr;
        std::vector<std::string> all;
        sd_bus* const manager = bus();
        if (manager == nullptr ||
            sd_bus_get_property_strv(manager, kManager, path_of(unit).c_str(), kUnit, name, nullptr, &raw) < 0) {
                return all;
        }
        for (char** one = raw; one != nullptr && *one != nullptr; one++) {
                all.emplace_back(*one);
                std::free(*one);
        }
        std::free(static_cast<void*>(raw));
        return all;
}

// Of several the one that runs, or the first.
std::optional<Triggered::Service> Triggered::find(const std::string& unit) {
        auto sockets = unit.ends_with(".socket") ? std::vector<std::string>{unit} : list_of(unit, "TriggeredBy");
        std::optional<Service> best;
        for (const auto& socket : sockets) {
                if (!socket.ends_with(".socket")) {
                        continue;  // .path and .timer units keep no socket
                }
                for (const auto& service : list_of(socket, "Triggers")) {
                        if (service == unit) {
                                continue;  // the one-shot itself
                        }
                        Service one{.name = service, .state = property(service, "ActiveState")};
                        if (!best || (best->state != "active" && one.state == "active")) {
                                best = std::move(one);
                        }
                }
        }
        return best;
}

void Triggered::add_to(Json& row) {
        const auto unit = cell(row, "unit", "");
        if (!unit.ends_with(".socket") && !unit.ends_with(".service")) {
                return;
        }
        const auto [at, fresh] = known_.try_emplace(unit);
        if (fresh) {
                at->second = find(unit);
        }
        if (const auto& service = at->second) {
                row["triggers"] = service->name;
                row["triggers_state"] = service->state.empty() ? Json(nullptr) : Json(service->state);
        }
}

}  // namespace sockbroker::ctl
