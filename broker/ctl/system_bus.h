// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Owner of a connection to the system bus.
#pragma once

#include <systemd/sd-bus.h>

#include <memory>

namespace sockbroker::ctl {

struct CloseBus {
        void operator()(sd_bus* bus) const { sd_bus_flush_close_unref(bus); }
};
using SystemBus = std::unique_ptr<sd_bus, CloseBus>;

}  // namespace sockbroker::ctl
