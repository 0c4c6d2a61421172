// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Real senders: children with other uids, in units that are real cgroups. Each case runs with the pidfd that the kernel
// gave and without it, as on a kernel before 6.5.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>

#include "broker/base/owned_fd.h"
#include "broker/peer/peer.h"
#include "broker/protocol/message.h"
#include "broker/protocol/socket_options.h"
#include "tests/unit/support/child.h"
#include "tests/unit/support/socket_kinds.h"

namespace sockbroker {

inline constexpr uid_t kServiceUid = 61001;

// A unit as sd_pid_get_unit() sees one: a cgroup below a slice, in the hierarchy that systemd uses.
class Unit {
public:
        explicit Unit(std::string name, const Unit* parent = nullptr, const std::string& slice = "/system.slice")
                : name_(std::move(name)), slice_((parent != nullptr ? parent->path() : root()) + slice) {
                do {  // another run of this test may take the slice away between the two
                        made_slice_ = mkdir(slice_.c_str(), 0755) == 0 || made_slice_;
                        errno = 0;
                } while (mkdir(path().c_str(), 0755) < 0 && errno == ENOENT &&
                         access(parent_path().c_str(), F_OK) == 0);
                if (errno != 0 && errno != EEXIST) {
                        throw std::runtime_error("cannot make " + path() + ": " + std::strerror(errno));
                }
        }
        Unit(const Unit&) = delete;
        Unit& operator=(const Unit&) = delete;
        ~Unit() {
                rmdir(path().c_str());
                if (made_slice_) {
                        rmdir(slice_.c_str());
                }
        }

        static std::string root() {
                struct statfs facts {};
                const bool unified = statfs("/sys/fs/cgroup", &facts) == 0 && facts.f_type == 0x63677270;
                return unified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/unified";
        }

        [[nodiscard]] const std::string& name() const { return name_; }
        [[nodiscard]] std::string parent_path() const { return slice_.substr(0, slice_.rfind('/')); }
        [[nodiscard]] std::string path() const { return slice_ + "/" + name_; }

        // Moves the caller into it.
        [[nodiscard]] bool enter() const {
                std::ofstream file(path() + "/cgroup.procs");
                file << "0" << std::flush;
                return file.good();
        }

private:
        std::string name_;
        std::string slice_;
        bool made_slice_ = false;
};

inline std::string unit_name() {
        return "sockbroker-test-" + std::to_string(getpid()) + ".service";
}

class PeerTest : public testing::TestWithParam<bool> {
protected:
        void SetUp() override {
                if (geteuid() != 0 || access((Unit::root() + "/cgroup.procs").c_str(), W_OK) < 0) {
                        GTEST_SKIP() << "needs root and a writable cgroup2 hierarchy";
                }
                int fds[2];
                test::must(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds), "socketpair");
                broker_.reset(fds[0]);
                peer_.reset(fds[1]);
                ASSERT_TRUE(prepare_receiver(broker_.get()));
                int on = 0;
                socklen_t size = sizeof on;
                if (GetParam() && getsockopt(broker_.get(), SOL_SOCKET, SO_PASSPIDFD, &on, &size) < 0) {
                        GTEST_SKIP() << "kernel before 6.5 has no SCM_PIDFD";
                }
                int pipe_fds[2];
                test::must(pipe2(pipe_fds, O_CLOEXEC), "pipe");
                release_read_.reset(pipe_fds[0]);
                release_write_.reset(pipe_fds[1]);
        }

        // What a child does: enter the unit, take the uid, send; then live until finish().
        int send_and_wait(const Unit* unit, uid_t uid = kServiceUid, uid_t then = kServiceUid) {
                release_write_.reset();
                if ((unit != nullptr && !unit->enter()) || setresuid(uid, uid, uid == then ? uid : 0) < 0 ||
                    !send_record(peer_.get(), "READY=1")) {
                        return 1;
                }
                if (then != uid && (setresuid(0, 0, 0) < 0 || setresuid(then, then, then) < 0 ||
                                    !send_record(peer_.get(), "changed"))) {
                        return 1;
                }
                char byte = 0;
                return static_cast<int>(read(release_read_.get(), &byte, 1));
        }

        Message next() {
                pollfd ready{.fd = broker_.get(), .events = POLLIN, .revents = 0};
                EXPECT_EQ(poll(&ready, 1, 10'000), 1) << "no message came";
                auto message = receive(broker_.get());
                EXPECT_TRUE(message) << message.error().text();
                if (!GetParam()) {
                        message->pidfd.reset();
                        message->sender_gone = false;
                }
                return std::move(*message);
        }

        void finish(test::Child& child) {
                release_write_.reset();
                EXPECT_EQ(child.wait(), 0);
        }

        OwnedFd broker_;
        OwnedFd peer_;
        OwnedFd release_read_;
        OwnedFd release_write_;
};

}  // namespace sockbroker
