// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/lib/arrays.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "broker/lib/client.h"
#include "broker/lib/sockbroker.h"

namespace sockbroker {
namespace {

int* room_for(std::size_t n) {
        return static_cast<int*>(std::calloc(n, sizeof(int)));
}

}  // namespace

int give_array(const std::vector<int>& fds, int** ret_fds) noexcept {
        if (fds.empty()) {
                *ret_fds = nullptr;
                return 0;
        }
        int* array = room_for(fds.size());
        if (array == nullptr) {
                return -ENOMEM;
        }
        for (std::size_t i = 0; i < fds.size(); i++) {
                array[i] = fds[i];
        }
        *ret_fds = array;
        return static_cast<int>(fds.size());
}

int give_away(std::vector<OwnedFd>& fds, int** ret_fds) noexcept {
        if (fds.empty()) {
                *ret_fds = nullptr;
                return 0;
        }
        int* array = room_for(fds.size());
        if (array == nullptr) {
                return -ENOMEM;
        }
        const auto n = static_cast<int>(fds.size());
        for (std::size_t i = 0; i < fds.size(); i++) {
                array[i] = fds[i].release();
        }
        fds.clear();
        *ret_fds = array;
        return n;
}

}  // namespace sockbroker

int* sockbroker_close_fds(int* fds, int n) {
        const sockbroker::Uncancelled all_the_while;
        for (int i = 0; fds != nullptr && i < n; i++) {
                (void)::close(fds[i]);  // that is all that can be done with it
        }
        std::free(fds);
        return nullptr;
}
