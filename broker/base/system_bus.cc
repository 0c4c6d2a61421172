// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/base/system_bus.h"

#include <cstdlib>

namespace sockbroker {

int open_system_bus(sd_bus** bus) {
        const char* const said = secure_getenv("DBUS_SYSTEM_BUS_ADDRESS");
        int r = sd_bus_new(bus);
        if (r >= 0) {
                r = sd_bus_set_address(*bus, said != nullptr ? said : "unix:path=/run/dbus/system_bus_socket");
        }
        if (r >= 0) {
                r = sd_bus_set_bus_client(*bus, 1);
        }
        if (r >= 0) {
                r = sd_bus_negotiate_fds(*bus, 0);
        }
        return r < 0 ? r : sd_bus_start(*bus);
}

}  // namespace sockbroker
