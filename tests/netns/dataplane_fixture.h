// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A pin directory of its own for each test, real sockets, and questions to the loaded program by BPF_PROG_TEST_RUN.
// main() in dataplane_main.cc has made the network namespace, the mount namespace and the bpffs.
#pragma once

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "broker/base/owned_fd.h"
#include "broker/dataplane/dataplane.h"
#include "tests/support/lookup.h"
#include "tests/support/oracle.h"

namespace sockbroker {

extern std::string bpffs;  // where main() mounted it

struct TestSocket {
        OwnedFd fd;
        std::uint64_t cookie = 0;
        Protocol protocol = Protocol::kTcp;
        Family family = Family::kIpv4;
};

inline TestSocket make_socket(Protocol protocol, Family family) {
        const bool v4 = family == Family::kIpv4;
        TestSocket result;
        result.protocol = protocol;
        result.family = family;
        result.fd.reset(socket(v4 ? AF_INET : AF_INET6,
                               (protocol == Protocol::kTcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0));
        sockaddr_in a4{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
        sockaddr_in6 a6{.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
        const auto* address = v4 ? reinterpret_cast<sockaddr*>(&a4) : reinterpret_cast<sockaddr*>(&a6);
        EXPECT_EQ(bind(result.fd.get(), address, v4 ? sizeof a4 : sizeof a6), 0) << strerror(errno);
        if (protocol == Protocol::kTcp) {
                EXPECT_EQ(listen(result.fd.get(), 64), 0) << strerror(errno);
        }
        socklen_t length = sizeof result.cookie;
        EXPECT_EQ(getsockopt(result.fd.get(), SOL_SOCKET, SO_COOKIE, &result.cookie, &length), 0);
        return result;
}

// What the program said (the last time, if it was to repeat): cookie of the socket that it chose, 0 for none.
struct Reply {
        bool passed = false;  // SK_PASS
        std::uint64_t cookie = 0;
};

inline Reply run(int program, const oracle::Packet& packet, int repeat = 1, std::uint16_t from_port = 40000) {
        bpf_sk_lookup in = context_of(packet);
        bpf_sk_lookup out{};
        in.remote_port = htons(from_port);
        // The kernel takes no ingress_ifindex here (EINVAL): interfaces are tested by real packets.
        LIBBPF_OPTS(bpf_test_run_opts, options, .ctx_in = &in, .ctx_out = &out, .ctx_size_in = sizeof in,
                    .ctx_size_out = sizeof out, .repeat = repeat);
        EXPECT_EQ(bpf_prog_test_run_opts(program, &options), 0) << strerror(errno);
        return {options.retval == 1, out.cookie};
}

class DataplaneTest : public testing::Test {
protected:
        static constexpr Capacity kSmall{.bindings = 2000, .services = 16, .sockets = 32};

        void SetUp() override {
                pins_ = bpffs + "/" + testing::UnitTest::GetInstance()->current_test_info()->name();
                ASSERT_EQ(mkdir(pins_.c_str(), 0700), 0) << strerror(errno);
        }
        void TearDown() override {
                dataplane_.reset();
                const auto unloaded = Dataplane::unload(pins_);
                EXPECT_TRUE(unloaded) << unloaded.error().text();
                EXPECT_EQ(rmdir(pins_.c_str()), 0) << strerror(errno);
        }

        void open(const Capacity& capacity = kSmall) {
                program_.reset();
                dataplane_.reset();  // as after a crash: nothing is put in order on the way out
                auto opened = Dataplane::open(pins_, capacity);
                ASSERT_TRUE(opened) << opened.error().text();
                dataplane_ = std::move(*opened);
                program_ = pinned("program");
        }

        // What was loaded before, without capabilities.
        void adopt() {
                program_.reset();
                dataplane_.reset();
                auto opened = Dataplane::adopt(pins_);
                ASSERT_TRUE(opened) << opened.error().text();
                dataplane_ = std::move(*opened);
                program_ = pinned("program");
        }

        [[nodiscard]] OwnedFd pinned(const std::string& name) const {
                OwnedFd fd(bpf_obj_get((pins_ + "/" + name).c_str()));
                EXPECT_TRUE(fd.valid()) << name << ": " << strerror(errno);
                return fd;
        }

        ServiceId add(std::string_view name) {
                const auto id = dataplane_->add_service(name);
                EXPECT_TRUE(id) << id.error().text();
                return id.value_or(0);
        }

        Slot install(const TestSocket& socket, ServiceId service) {
                const auto slot = dataplane_->install(
                        socket.fd.get(), {.service = service, .cookie = socket.cookie, .protocol = socket.protocol});
                EXPECT_TRUE(slot) << slot.error().text();
                return slot.value_or(0);
        }

        static Slot& first(Targets& targets, Protocol protocol, Family family) {
                auto& slots = targets.slots[static_cast<std::size_t>(protocol)][static_cast<std::size_t>(family)];
                if (slots.empty()) {
                        slots.push_back(0);
                }
                return slots[0];
        }

        void serve(ServiceId service, const TestSocket& socket) {
                Targets targets = dataplane_->targets(service);
                first(targets, socket.protocol, socket.family) = install(socket, service);
                const auto set = dataplane_->set_targets(service, targets);
                ASSERT_TRUE(set) << set.error().text();
        }

        void rules(const std::vector<Rule>& rules) {
                const auto set = dataplane_->set_rules(rules);
                ASSERT_TRUE(set) << set.error().text();
        }

        [[nodiscard]] Reply ask(const oracle::Packet& packet) const { return run(program_.get(), packet); }
        [[nodiscard]] Reply ask_often(const oracle::Packet& packet, int repeat) const {
                return run(program_.get(), packet, repeat);
        }

        std::string pins_;
        std::unique_ptr<Dataplane> dataplane_;
        OwnedFd program_;
};

}  // namespace sockbroker
