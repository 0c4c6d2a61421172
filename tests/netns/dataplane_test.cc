// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Lives of the kernel's half: made, left behind, taken up, taken away; and what becomes of sockets.
#include "broker/dataplane/dataplane.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <poll.h>
#include <sched.h>
#include <sys/wait.h>

#include <csignal>
#include <fstream>
#include <random>

#include "bpf/layout.h"
#include "tests/netns/dataplane_life.h"

namespace sockbroker {
namespace {

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

}  // namespace
}  // namespace sockbroker
