// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Lives of the kernel's half: made, used without privilege, left behind, taken up, taken away; and what becomes of
// sockets.
#include "broker/dataplane/dataplane.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <poll.h>
#include <sched.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <array>
#include <csignal>
#include <fstream>
#include <random>

#include "bpf/layout.h"
#include "broker/dataplane/kernel/grace.h"
#include "tests/netns/dataplane_fixture.h"

namespace sockbroker {
namespace {

void set_capabilities(const std::vector<cap_value_t>& wanted) {
        const std::unique_ptr<_cap_struct, int (*)(void*)> caps(cap_init(), cap_free);
        for (const cap_flag_t flag : {CAP_PERMITTED, CAP_EFFECTIVE}) {
                cap_set_flag(caps.get(), flag, static_cast<int>(wanted.size()), wanted.data(), CAP_SET);
        }
        ASSERT_EQ(cap_set_proc(caps.get()), 0) << strerror(errno);
}

// Runs in a child, since capabilities do not come back.
void in_child(const std::function<void()>& body) {
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

TEST_F(Life, the_maps_of_the_default_capacity_fit_into_16_megabytes_and_flows_into_5) {
        open(Capacity{});
        const auto bytes_of = [&](std::initializer_list<const char*> names) {
                std::uint64_t bytes = 0;
                for (const char* name : names) {
                        const OwnedFd map = pinned(name);
                        std::ifstream facts("/proc/self/fdinfo/" + std::to_string(map.get()));
                        std::string word;
                        while (facts >> word && word != "memlock:") {
                        }
                        std::uint64_t memory = 0;
                        EXPECT_TRUE(facts >> memory) << name;
                        bytes += memory;
                }
                return bytes;
        };
        const auto bytes = bytes_of({"meta", "arena", "tables", "services", "records", "counters", "sockets",
                                     "registrants", "names", "binding_counters", "counted"});
        const auto flows = bytes_of({"slots", "flows", "replies"});
        std::printf("%llu bytes, flows %llu\n", static_cast<unsigned long long>(bytes),
                    static_cast<unsigned long long>(flows));
        // The counters are there once a processor: allow for 32 of them, whatever this machine has.
        EXPECT_LT(bytes + 1025 * sizeof(sb_counters) * (32 - std::min(libbpf_num_possible_cpus(), 32)), 16U << 20);
        EXPECT_LT(flows, 5U << 20);
}

TEST_F(Life, what_was_left_is_taken_up) {
        open();
        EXPECT_FALSE(dataplane_->taken_up());
        const auto socket = make_socket(Protocol::kTcp, Family::kIpv6);
        const ServiceId id = add("web");
        const Registrant who{.service = id,
                             .cookie = socket.cookie,
                             .since_usec = 1234567890123,
                             .pid = 4321,
                             .uid = 61001,
                             .gid = 61002,
                             .protocol = Protocol::kTcp,
                             .family = 2,
                             .serves_ipv4 = false,
                             .serves_ipv6 = true,
                             .bound = *parse_endpoint("[2606:4700::1]:443"),
                             .unit = "web@" + std::string(300, 'x')};
        const Slot slot = *dataplane_->install(socket.fd.get(), who);
        Targets targets{};
        first(targets, Protocol::kTcp, Family::kIpv6) = slot;
        ASSERT_TRUE(dataplane_->set_targets(id, targets));
        rules({rule(Protocol::kTcp, "2606:4700::/32", {}, id)});
        EXPECT_EQ(ask(packet(Protocol::kTcp, "2606:4700::9", 443)).cookie, socket.cookie);

        open({.bindings = 5, .services = 5, .sockets = 5});
        EXPECT_TRUE(dataplane_->taken_up());
        EXPECT_EQ(dataplane_->capacity().bindings, kSmall.bindings) << "as the maps were made";
        EXPECT_EQ(dataplane_->service_names()[id], "web");
        EXPECT_EQ(add("web"), id);
        EXPECT_EQ(dataplane_->targets(id), targets);
        EXPECT_EQ(dataplane_->cookie(slot), socket.cookie);
        EXPECT_EQ(dataplane_->counters(id).assigned, 1U);
        EXPECT_EQ(ask(packet(Protocol::kTcp, "2606:4700::9", 443)).cookie, socket.cookie);
        const auto found = dataplane_->registrants();
        ASSERT_EQ(found.size(), 1U);
        EXPECT_EQ(found[0].first, slot);
        const Registrant& back = found[0].second;
        EXPECT_EQ(back.service, who.service);
        EXPECT_EQ(back.cookie, who.cookie);
        EXPECT_EQ(back.since_usec, who.since_usec);
        EXPECT_EQ(back.pid, who.pid);
        EXPECT_EQ(back.uid, who.uid);
        EXPECT_EQ(back.gid, who.gid);
        EXPECT_EQ(back.protocol, who.protocol);
        EXPECT_EQ(back.family, who.family);
        EXPECT_EQ(back.serves_ipv4, who.serves_ipv4);
        EXPECT_EQ(back.serves_ipv6, who.serves_ipv6);
        EXPECT_EQ(back.bound, who.bound);
        EXPECT_EQ(back.unit, who.unit.substr(0, 255));
}

TEST_F(Life, a_directory_without_a_link_was_left_half_made_and_is_made_anew) {
        open();
        add("ghost");
        dataplane_.reset();
        ASSERT_EQ(unlink((pins_ + "/link").c_str()), 0);
        ASSERT_EQ(unlink((pins_ + "/names").c_str()), 0);
        open();
        EXPECT_FALSE(dataplane_->taken_up());
        EXPECT_EQ(dataplane_->service_names()[1], "");
        exercise();
}

TEST_F(Life, an_unknown_layout_is_refused_and_left_alone) {
        open();
        const OwnedFd meta = pinned("meta");
        const std::uint32_t key = 0;
        sb_header value{};
        ASSERT_EQ(bpf_map_lookup_elem(meta.get(), &key, &value), 0);
        value.layout = 999;
        ASSERT_EQ(bpf_map_update_elem(meta.get(), &key, &value, 0), 0);
        const auto opened = Dataplane::open(pins_, kSmall);
        ASSERT_FALSE(opened);
        EXPECT_NE(opened.error().message.find("layout 999"), std::string::npos) << opened.error().message;
        EXPECT_NE(opened.error().message.find("sockbrokerctl unload"), std::string::npos);
        EXPECT_TRUE(pinned("link").valid());
}

TEST_F(Life, a_missing_map_is_explained) {
        open();
        ASSERT_EQ(unlink((pins_ + "/sockets").c_str()), 0);
        const auto opened = Dataplane::open(pins_, kSmall);
        ASSERT_FALSE(opened);
        EXPECT_NE(opened.error().message.find("/sockets"), std::string::npos) << opened.error().message;
}

TEST_F(Life, a_directory_off_a_bpffs_is_explained) {
        const auto opened = Dataplane::open("/tmp", kSmall);
        ASSERT_FALSE(opened);
        EXPECT_NE(opened.error().message.find("bpffs"), std::string::npos) << opened.error().message;
}

TEST_F(Life, a_link_of_another_network_namespace_is_refused) {
        open();
        in_child([&] {
                ASSERT_EQ(unshare(CLONE_NEWNET), 0);
                const auto opened = Dataplane::open(pins_, kSmall);
                ASSERT_FALSE(opened);
                EXPECT_NE(opened.error().message.find("another network namespace"), std::string::npos)
                        << opened.error().message;
        });
}

TEST_F(Life, a_link_whose_namespace_is_gone_is_attached_here) {
        in_child([&] {
                ASSERT_EQ(unshare(CLONE_NEWNET), 0);
                open();
        });
        // The namespace goes in the kernel's own time after its last process; the link then has no inode.
        const OwnedFd link = pinned("link");
        bpf_link_info info{};
        info.netns.netns_ino = 1;
        for (int i = 0; i < 1000 && info.netns.netns_ino != 0; i++) {
                std::uint32_t length = sizeof info;
                ASSERT_EQ(bpf_obj_get_info_by_fd(link.get(), &info, &length), 0);
                poll(nullptr, 0, 10);
        }
        ASSERT_EQ(info.netns.netns_ino, 0U);
        open();
        EXPECT_TRUE(dataplane_->taken_up());
        exercise();
}

TEST_F(Life, unload_ends_dispatch_even_while_the_broker_has_it_open) {
        open();
        const OwnedFd link = pinned("link");
        ASSERT_TRUE(Dataplane::unload(pins_));
        bpf_link_info info{};
        std::uint32_t length = sizeof info;
        ASSERT_EQ(bpf_obj_get_info_by_fd(link.get(), &info, &length), 0);
        EXPECT_EQ(info.netns.netns_ino, 0U);
        EXPECT_NE(access((pins_ + "/meta").c_str(), F_OK), 0);
}

// What each step of install() and remove() leaves when the broker is killed behind it.
TEST_F(Life, every_half_done_step_is_told_truthfully_or_cleared) {
        open();
        const auto socket = make_socket(Protocol::kTcp, Family::kIpv4);
        const ServiceId id = add("web");
        const Slot unnamed = install(socket, id);  // killed before the switch
        const Slot empty = install(socket, id);
        const Slot ownerless = install(socket, id);
        ASSERT_EQ(bpf_map_delete_elem(pinned("sockets").get(), &empty), 0);  // between the record and the socket
        const sb_registrant nobody{};
        ASSERT_EQ(bpf_map_update_elem(pinned("registrants").get(), &ownerless, &nobody, 0), 0);
        open();
        const auto found = dataplane_->registrants();
        ASSERT_EQ(found.size(), 2U);
        EXPECT_EQ(dataplane_->cookie(unnamed), socket.cookie);
        EXPECT_EQ(dataplane_->cookie(empty), std::nullopt);
        EXPECT_EQ(dataplane_->cookie(ownerless), std::nullopt) << "a socket that nobody is on record for must go";
        for (const auto& [slot, registrant] : found) {
                dataplane_->remove(slot);
        }
        exercise();
}

TEST_F(Life, killed_at_any_moment_it_leaves_a_state_that_fits_together) {
        std::mt19937 random(1);
        for (int round = 0; round < 6; round++) {
                int ready[2];
                ASSERT_EQ(pipe(ready), 0);
                const pid_t child = fork();
                if (child == 0) {
                        open();
                        // Registrations and reloads until the end.
                        const auto socket = make_socket(Protocol::kTcp, Family::kIpv4);
                        for (const auto& [slot, registrant] : dataplane_->registrants()) {
                                Targets none{};
                                (void)dataplane_->set_targets(registrant.service, none);
                                dataplane_->remove(slot);
                        }
                        EXPECT_EQ(write(ready[1], "x", 1), 1);
                        for (unsigned i = 0;; i++) {
                                const ServiceId id = add("s" + std::to_string(i % 10));
                                Targets targets = dataplane_->targets(id);
                                const Slot old = first(targets, Protocol::kTcp, Family::kIpv4);
                                serve(id, socket);
                                dataplane_->remove(old);
                                if (i % 50 == 0) {
                                        rules({rule(Protocol::kTcp, "1.0.0.0/24", {80, 80}, id)});
                                }
                                if (testing::Test::HasFailure()) {
                                        _exit(1);
                                }
                        }
                }
                char byte = 0;
                close(ready[1]);
                ASSERT_EQ(read(ready[0], &byte, 1), 1);
                close(ready[0]);
                usleep(random() % 100000);
                kill(child, SIGKILL);
                int status = 0;
                ASSERT_EQ(waitpid(child, &status, 0), child);
                ASSERT_TRUE(WIFSIGNALED(status)) << "it must have run until it was killed, status " << status;

                open();
                ASSERT_TRUE(dataplane_->taken_up());
                std::map<Slot, ServiceId> owner;
                for (const auto& [slot, registrant] : dataplane_->registrants()) {
                        owner[slot] = registrant.service;
                }
                for (ServiceId id = 1; id < dataplane_->service_names().size(); id++) {
                        Targets targets = dataplane_->targets(id);
                        const Slot slot = first(targets, Protocol::kTcp, Family::kIpv4);
                        EXPECT_TRUE(slot == 0 || owner[slot] == id) << "round " << round << ", service " << id;
                }
        }
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
