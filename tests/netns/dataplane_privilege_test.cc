// SPDX-License-Identifier: LGPL-2.1-or-later
//
// With which capabilities the kernel's half is loaded and with which it is used, and what a load believes of what it
// finds.
#include <bpf/bpf.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <string>

#include "bpf/layout.h"
#include "broker/dataplane/dataplane.h"
#include "broker/dataplane/kernel/grace.h"
#include "tests/netns/dataplane_life.h"

namespace sockbroker {
namespace {

// As the daemon is when it loads the program.
void become_a_user_with_three_capabilities() {
        prctl(PR_SET_KEEPCAPS, 1);
        ASSERT_EQ(setresgid(61000, 61000, 61000), 0);
        ASSERT_EQ(setresuid(61000, 61000, 61000), 0);
        set_capabilities({CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN});
}

TEST_F(Life, opens_with_exactly_three_capabilities_and_then_needs_none) {
        ASSERT_EQ(chown(pins_.c_str(), 61000, 61000), 0);
        for (const bool again : {false, true}) {
                in_child([&] {
                        become_a_user_with_three_capabilities();
                        open();
                        ASSERT_NE(dataplane_, nullptr);
                        EXPECT_EQ(dataplane_->taken_up(), again);
                        set_capabilities({});
                        exercise();
                });
        }
}

// As sockbrokerd-load.service and the broker do: two processes of one user, of which the second has never had a
// capability.
TEST_F(Life, what_one_process_has_loaded_another_without_any_capability_adopts_and_serves_by) {
        ASSERT_EQ(chown(pins_.c_str(), 61000, 61000), 0);
        for (const bool again : {false, true}) {
                in_child([&] {
                        become_a_user_with_three_capabilities();
                        const auto loaded = Dataplane::load(pins_, kSmall);
                        ASSERT_TRUE(loaded) << loaded.error().text();
                });
                for (const bool restarted : {false, true}) {
                        in_child([&] {
                                become_a_user_with_three_capabilities();
                                set_capabilities({});
                                adopt();
                                ASSERT_NE(dataplane_, nullptr);
                                EXPECT_EQ(dataplane_->taken_up(), again || restarted);
                                EXPECT_EQ(dataplane_->capacity(), kSmall);
                                exercise();
                        });
                }
        }
        in_child([&] {  // and ends it
                become_a_user_with_three_capabilities();
                set_capabilities({});
                adopt();
                ASSERT_NE(dataplane_, nullptr);
                ASSERT_TRUE(dataplane_->unload());
        });
        EXPECT_EQ(rmdir(pins_.c_str()), 0) << "unload has left something";
        ASSERT_EQ(mkdir(pins_.c_str(), 0700), 0);
}

TEST_F(Life, what_no_load_or_another_build_has_pinned_is_not_adopted) {
        const auto refused = [&](const char* why) {
                const auto adopted = Dataplane::adopt(pins_);
                ASSERT_FALSE(adopted);
                EXPECT_NE(adopted.error().message.find(why), std::string::npos) << adopted.error().text();
                EXPECT_NE(adopted.error().message.find("--load"), std::string::npos) << adopted.error().text();
        };
        refused("no dispatch program is loaded");
        open();
        dataplane_.reset();
        {
                const OwnedFd record = pinned("loaded");
                const std::uint32_t key = 0;
                std::array<char, 256> value{};  // more than a record has
                ASSERT_EQ(bpf_map_lookup_elem(record.get(), &key, value.data()), 0);
                value[0] ^= 1;
                ASSERT_EQ(bpf_map_update_elem(record.get(), &key, value.data(), 0), 0);
        }
        refused("another version");
        ASSERT_EQ(unlink((pins_ + "/loaded").c_str()), 0);  // a load that was killed
        refused("no dispatch program is loaded");
        open();
        ASSERT_EQ(bpf_link_detach(pinned("link").get()), 0);
        dataplane_.reset();
        refused("attached nowhere");
        open();
        exercise();
}

// The maps may be mapped and written by whoever was a broker: a load, which has capabilities, believes nothing of them.
TEST_F(Life, a_load_is_not_misled_by_what_a_broker_has_written) {
        open();
        dataplane_.reset();
        const OwnedFd meta = pinned("meta");
        const std::uint32_t key = 0;
        sb_header honest{};
        ASSERT_EQ(bpf_map_lookup_elem(meta.get(), &key, &honest), 0);
        for (const std::size_t field : {0, 1, 2, 3, 4}) {
                sb_header forged = honest;
                std::uint32_t* const fields[] = {&forged.generation, &forged.lines, &forged.bindings, &forged.services,
                                                 &forged.sockets};
                for (const std::uint32_t value : {2U, 100'000U, 1U << 31, ~0U}) {
                        *fields[field] = value;
                        ASSERT_EQ(bpf_map_update_elem(meta.get(), &key, &forged, 0), 0);
                        in_child([&] {  // whatever it says, it ends by itself
                                (void)Dataplane::load(pins_, {.bindings = 4000, .services = 32, .sockets = 64});
                        });
                }
        }
        ASSERT_TRUE(Dataplane::unload(pins_));
        open();
        exercise();
}

// Each start pays for them. Not as root: fewer capabilities are more paths to follow.
TEST_F(Life, the_verifier_follows_at_most_30000_instructions_under_exactly_the_three_capabilities) {
        ASSERT_EQ(chown(pins_.c_str(), 61000, 61000), 0);
        in_child([&] {
                become_a_user_with_three_capabilities();
                const auto start = std::chrono::steady_clock::now();
                open();
                const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
                bpf_prog_info info{};
                std::uint32_t length = sizeof info;
                ASSERT_EQ(bpf_obj_get_info_by_fd(program_.get(), &info, &length), 0);
                std::printf("%u instructions, %u followed, opened in %.0f ms\n",
                            static_cast<unsigned>(info.xlated_prog_len / 8), info.verified_insns, took.count());
                EXPECT_LE(info.verified_insns, 30000U);
        });
}

TEST_F(Life, says_which_capabilities_it_misses) {
        in_child([&] {
                set_capabilities({CAP_BPF, CAP_DAC_OVERRIDE});
                const auto opened = Dataplane::open(pins_, kSmall);
                ASSERT_FALSE(opened);
                EXPECT_NE(opened.error().message.find("CAP_NET_ADMIN"), std::string::npos) << opened.error().text();
        });
}

TEST_F(Life, grace_without_membarrier) {
        auto grace = Grace::create(false);
        ASSERT_TRUE(grace) << grace.error().text();
        in_child([&] {
                set_capabilities({});
                for (int i = 0; i < 3; i++) {
                        const auto waited = grace->wait();
                        EXPECT_TRUE(waited) << waited.error().text();
                }
        });
}

}  // namespace
}  // namespace sockbroker
