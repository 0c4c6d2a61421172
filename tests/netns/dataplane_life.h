// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Lives of the kernel's half: all that a broker does with it, in a process that may have less privilege than the test.
#pragma once

#include <sys/capability.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "tests/netns/dataplane_fixture.h"

namespace sockbroker {

inline void set_capabilities(const std::vector<cap_value_t>& wanted) {
        const std::unique_ptr<_cap_struct, int (*)(void*)> caps(cap_init(), cap_free);
        for (const cap_flag_t flag : {CAP_PERMITTED, CAP_EFFECTIVE}) {
                cap_set_flag(caps.get(), flag, static_cast<int>(wanted.size()), wanted.data(), CAP_SET);
        }
        ASSERT_EQ(cap_set_proc(caps.get()), 0) << strerror(errno);
}

// Runs in a child, since capabilities do not come back.
inline void in_child(const std::function<void()>& body) {
        const pid_t child = fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
                body();
                std::fflush(stdout);
                _exit(testing::Test::HasFailure() ? 1 : 0);
        }
        int status = 0;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "status " << status;
}

class Life : public DataplaneTest {
protected:
        // Everything the broker does after open(), once.
        void exercise() {
                const auto socket = make_socket(Protocol::kUdp, Family::kIpv4);
                const ServiceId id = add("all");
                const Slot slot = install(socket, id);
                Targets targets{};
                first(targets, Protocol::kUdp, Family::kIpv4) = slot;
                ASSERT_TRUE(dataplane_->set_targets(id, targets));
                rules({rule(Protocol::kUdp, "1.0.0.0/24", {53, 53}, id)});
                EXPECT_EQ(ask(packet(Protocol::kUdp, "1.0.0.1", 53)).cookie, socket.cookie);
                EXPECT_EQ(dataplane_->cookie(slot), socket.cookie);
                EXPECT_EQ(dataplane_->registrants().size(), 1U);
                EXPECT_EQ(dataplane_->counters(id).assigned, 1U);
                for (unsigned i = 0; i < 3 * kSmall.sockets; i++) {  // through the quarantine
                        const Slot again = install(socket, id);
                        dataplane_->remove(again);
                        ASSERT_TRUE(dataplane_->set_targets(id, targets));
                }
                ASSERT_TRUE(dataplane_->set_targets(id, Targets{}));
                dataplane_->remove(slot);
                rules({});
                dataplane_->remove_service(id);
                EXPECT_TRUE(dataplane_->registrants().empty());
        }
};

}  // namespace sockbroker
