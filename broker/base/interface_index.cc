// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/base/interface_index.h"

#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cstring>

#include "broker/base/owned_fd.h"

namespace sockbroker {

std::uint32_t interface_index(const std::string& name) {
        if (name.empty() || name.size() >= IFNAMSIZ) {
                return 0;
        }
        const OwnedFd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        ifreq request{};
        name.copy(request.ifr_name, IFNAMSIZ - 1);
        if (!fd || ioctl(fd.get(), SIOCGIFINDEX, &request) != 0) {
                return 0;
        }
        const int index = request.ifr_ifindex;
        // The kernel finds other names too, and says the first one of an index.
        if (ioctl(fd.get(), SIOCGIFNAME, &request) != 0 || name != request.ifr_name) {
                return 0;
        }
        return index > 0 ? static_cast<std::uint32_t>(index) : 0;
}

}  // namespace sockbroker
