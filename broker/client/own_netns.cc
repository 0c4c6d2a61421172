// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See own_netns.h.
#include "broker/client/own_netns.h"

#include <sys/stat.h>

#include <filesystem>
#include <system_error>

#include <fmt/format.h>

namespace sockbroker {

std::string own_netns_name() {
        struct stat own {};
        if (stat("/proc/self/ns/net", &own) != 0) {
                return {};
        }
        std::error_code failed;
        for (const auto& entry : std::filesystem::directory_iterator("/run/netns", failed)) {
                struct stat named {};
                if (stat(entry.path().c_str(), &named) == 0 && named.st_ino == own.st_ino &&
                    named.st_dev == own.st_dev) {
                        return entry.path().filename().string();
                }
        }
        return {};
}

std::string foreign_netns_hint() {
        const auto name = own_netns_name();
        return name.empty() ? name
                            : fmt::format(
                                      "this runs in network namespace {0}, whose broker is sockbrokerd@{0}.service: "
                                      "sockbrokerctl --netns={0}, sockbroker-run "
                                      "--runtime-dir=/run/sockbroker/netns/{0}",
                                      name);
}

}  // namespace sockbroker
