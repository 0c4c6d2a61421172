// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/ctl/units.h"

#include <systemd/sd-bus.h>
#include <systemd/sd-daemon.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <system_error>

#include "broker/base/system_bus.h"
#include "broker/ctl/system_bus.h"

namespace sockbroker::ctl {

namespace {

struct FreeMessage {
        void operator()(sd_bus_message* message) const { sd_bus_message_unref(message); }
};
using BusMessage = std::unique_ptr<sd_bus_message, FreeMessage>;

BusMessage ask_manager(sd_bus* bus, const char* method) {
        sd_bus_message* reply = nullptr;
        (void)sd_bus_call_method(bus, "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
                                 "org.freedesktop.systemd1.Manager", method, nullptr, &reply, "");
        return BusMessage(reply);
}

}  // namespace

std::optional<Units> units_that_exist() {
        sd_bus* raw = nullptr;
        const int opened = sd_booted() > 0 ? open_system_bus(&raw) : -ENOENT;
        const SystemBus bus(raw);
        if (opened < 0) {
                return std::nullopt;
        }
        (void)sd_bus_set_method_call_timeout(bus.get(), 2'000'000);
        Units units;
        const auto files = ask_manager(bus.get(), "ListUnitFiles");
        if (!files || sd_bus_message_enter_container(files.get(), 'a', "(ss)") < 0) {
                return std::nullopt;
        }
        const char* path = nullptr;
        const char* state = nullptr;
        while (sd_bus_message_read(files.get(), "(ss)", &path, &state) > 0) {
                const std::filesystem::path whole = path;
                if (std::strcmp(state, "alias") != 0) {
                        units.names.push_back(whole.filename());
                        continue;
                }
                std::error_code unreadable;
                const auto target = std::filesystem::canonical(whole, unreadable).filename();
                if (!unreadable && target != whole.filename()) {
                        units.aliases.try_emplace(whole.filename(), target);
                }
        }
        const auto loaded = ask_manager(bus.get(), "ListUnits");
        if (!loaded || sd_bus_message_enter_container(loaded.get(), 'a', "(ssssssouso)") < 0) {
                return std::nullopt;
        }
        const char* name = nullptr;
        const char* load = nullptr;
        const char* other = nullptr;
        std::uint32_t job = 0;
        while (sd_bus_message_read(loaded.get(), "(ssssssouso)", &name, &other, &load, &other, &other, &other, &other,
                                   &job, &other, &other) > 0) {
                if (std::strcmp(load, "not-found") != 0) {
                        units.names.emplace_back(name);
                }
        }
        return units;
}

}  // namespace sockbroker::ctl
