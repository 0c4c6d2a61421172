// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Two UNIX sockets that are connected, of which one is the broker's.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>

#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "tests/unit/support/socket_kinds.h"

namespace sockbroker::test {

// `prepare`: what the broker does to its sockets before it reads from them.
struct PreparedPair {
        PreparedPair(int type, Result<void> (*prepare)(int fd)) {
                int fds[2];
                must(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds), "socketpair");
                broker.reset(fds[0]);
                peer.reset(fds[1]);
                const auto prepared = prepare(broker.get());
                EXPECT_TRUE(prepared) << prepared.error().text();
        }

        OwnedFd broker;
        OwnedFd peer;
};

}  // namespace sockbroker::test
