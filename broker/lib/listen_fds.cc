// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The C face, third part: sockets that systemd passed, sd_listen_fds(3).
#include <systemd/sd-daemon.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "broker/lib/arrays.h"
#include "broker/lib/client.h"

namespace sockbroker {
namespace {

// Those of that name, or all, appended to `fds`; 0 or a negative errno. The environment stays, since others may ask
// too.
int passed(const char* name, std::vector<int>& fds) {
        char** names = nullptr;
        const int number = ::sd_listen_fds_with_names(0, &names);
        if (number <= 0) {
                return number;
        }
        fds.reserve(static_cast<std::size_t>(number));
        for (int i = 0; i < number; i++) {
                if (name == nullptr || std::strcmp(name, names[i]) == 0) {
                        fds.push_back(SD_LISTEN_FDS_START + i);
                }
                std::free(names[i]);
        }
        std::free(static_cast<void*>(names));
        return 0;
}

}  // namespace
}  // namespace sockbroker

int sockbroker_listen_fds(const char* name, int** ret_fds) {
        if (ret_fds == nullptr) {
                return -EINVAL;
        }
        return sockbroker::guarded([&] {
                std::vector<int> fds;
                const int read = sockbroker::passed(name, fds);
                return read < 0 ? read : sockbroker::give_array(fds, ret_fds);
        });
}

int sockbroker_register_listen_fds(sockbroker_client* broker, const char* service) {
        if (const int bad = sockbroker::usable(broker); bad < 0) {
                return bad;
        }
        if (service == nullptr) {
                return -EINVAL;
        }
        std::vector<int> fds;
        const int read = sockbroker::guarded([&] {
                const int done = sockbroker::passed(service, fds);
                return done < 0 ? sockbroker::refuse(*broker, -done,
                                                     "cannot take the sockets that were passed (LISTEN_FDS)")
                                : done;
        });
        if (read < 0 || fds.empty()) {
                return read;
        }
        const int done = sockbroker_register(broker, service, fds.data(), static_cast<unsigned>(fds.size()));
        return done < 0 ? done : static_cast<int>(fds.size());
}
