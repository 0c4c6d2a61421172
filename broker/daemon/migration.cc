// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/migration.h"

#include <fcntl.h>

#include <utility>

namespace sockbroker {

Reply with_migration(Reply reply, int program) {
        return [reply = std::move(reply), program](Answer answer) {
                if (answer.code == ResultCode::kOk) {
                        OwnedFd copy(fcntl(program, F_DUPFD_CLOEXEC, 3));
                        if (copy) {
                                answer.fds.push_back(std::move(copy));
                        } else {
                                answer.warnings.emplace_back(
                                        "the broker has no free descriptor for the migration program (MIGRATE=1): "
                                        "register again to get it");
                        }
                }
                reply(std::move(answer));
        };
}

}  // namespace sockbroker
