// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/client/descriptors.h"

#include <fcntl.h>
#include <sys/resource.h>

#include <algorithm>
#include <climits>

namespace sockbroker {

std::size_t free_descriptors(std::size_t enough) {
        rlimit limit{};
        if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
                return enough;  // the caller's sandbox does not let it ask
        }
        const int end = static_cast<int>(std::min<rlim_t>(limit.rlim_cur, INT_MAX));
        std::size_t found = 0;
        for (int fd = 0; fd < end && found < enough; ++fd) {
                found += fcntl(fd, F_GETFD) < 0 ? 1U : 0U;
        }
        return found;
}

}  // namespace sockbroker
