// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The door, while the hands that close connections for it do not get to them: this is the core, and the hands.
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <new>
#include <optional>

#include "broker/hands/discards.h"
#include "broker/hands/door_process.h"
#include "broker/hands/ledger.h"
#include "tests/netns/crew_fixture.h"

namespace sockbroker::hands {
namespace {

constexpr uid_t kOne = 62001;
constexpr uid_t kOther = 62002;
constexpr std::size_t kMaxFds = 8192;

class DoorAlone {
public:
        DoorAlone() {
                char place[] = "/tmp/sockbroker-door-XXXXXX";
                directory_ = mkdtemp(place);
                chmod(directory_.c_str(), 0755);
                listener_ = unix_socket(path(), SOCK_SEQPACKET, true);
                (void)prepare_for_peeking(listener_.get());
                test::must(fcntl(listener_.get(), F_SETFL, O_NONBLOCK), "O_NONBLOCK");
                auto [core, to_core] = pair();
                auto [hands, to_hands] = pair();
                core_ = std::move(core);
                hands_ = std::move(hands);
                int ends[2];
                test::must(pipe2(ends, O_CLOEXEC), "pipe");
                sent_.reset(ends[0]);
                const OwnedFd other_end(ends[1]);
                void* const memory =
                        mmap(nullptr, sizeof(ClosedByDoor), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
                auto* const closed = new (memory) ClosedByDoor;
                door_ = fork();
                if (door_ == 0) {
                        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
                        const rlimit many{.rlim_cur = kMaxFds, .rlim_max = kMaxFds};
                        (void)setrlimit(RLIMIT_NOFILE, &many);
                        int given[] = {fcntl(to_core.get(), F_DUPFD, 100), fcntl(listener_.get(), F_DUPFD, 100),
                                       fcntl(to_hands.get(), F_DUPFD, 100)};
                        close_range(3, 99, 0);
                        for (int i = 0; i < 3; i++) {
                                dup2(given[i], kAnswers + i);
                        }
                        close_range(100, ~0U, 0);
                        run_door(kMaxFds, *closed, false);
                        _exit(0);
                }
        }
        ~DoorAlone() {
                kill(door_, SIGKILL);
                waitpid(door_, nullptr, 0);
                unlink(path().c_str());
                rmdir(directory_.c_str());
        }
        DoorAlone(const DoorAlone&) = delete;
        DoorAlone& operator=(const DoorAlone&) = delete;

        // A connection of this user, with a descriptor in its queue.
        [[nodiscard]] OwnedFd connect(uid_t uid) const {
                test::must(seteuid(uid), "seteuid");
                auto connection = unix_socket(path(), SOCK_SEQPACKET, false);
                (void)send_record(connection.get(), "x", {sent_.get()});
                test::must(seteuid(0), "seteuid");
                return connection;
        }

        [[nodiscard]] int core() const { return core_.get(); }

        // The next one that the door lets in; the core gives it back at once.
        std::optional<uid_t> let_in_and_end() {
                DoorReport report;
                std::vector<OwnedFd> fds;
                if (!receive_from(core_.get(), &report, sizeof report, fds)) {
                        return std::nullopt;
                }
                fds.clear();
                struct {
                        DoorOrder order;
                        std::byte id[sizeof report.id];
                } record{};
                record.order = {.kind = DoorOrderKind::kClose, .count = 1};
                std::memcpy(record.id, &report.id, sizeof report.id);
                return send_bytes(core_.get(), as_bytes_of(record), {}, true) == 0 ? std::optional(report.uid)
                                                                                   : std::nullopt;
        }
        // The end of the connection says that the door has heard of it.
        [[nodiscard]] bool leaves_something_to_close(uid_t uid) {
                const auto connection = connect(uid);
                return let_in_and_end() == uid && next_record(connection.get()).empty();
        }

        // What a hand gets next: whose, and how many.
        std::optional<std::pair<uid_t, std::size_t>> next_to_close() {
                Discarded head;
                std::vector<OwnedFd> fds;
                if (!receive_from(hands_.get(), &head, sizeof head, fds)) {
                        return std::nullopt;
                }
                return std::pair{head.uid, fds.size()};
        }

private:
        static std::pair<OwnedFd, OwnedFd> pair() {
                int ends[2];
                test::must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), "socketpair");
                constexpr int kLeast = 1;  // as the zygote makes it
                (void)setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &kLeast, sizeof kLeast);
                return {OwnedFd(ends[0]), OwnedFd(ends[1])};
        }
        static bool receive_from(int socket, void* into, std::size_t size, std::vector<OwnedFd>& fds) {
                constexpr int kPatience = 20'000;
                pollfd readable{socket, POLLIN, 0};
                if (poll(&readable, 1, kPatience) != 1) {
                        return false;
                }
                auto message = receive(socket);
                if (!message || message->text.size() != size) {
                        return false;
                }
                std::memcpy(into, message->text.data(), size);
                fds = std::move(message->fds);
                return true;
        }
        [[nodiscard]] std::string path() const { return directory_ + "/control"; }

        std::string directory_;
        OwnedFd listener_;
        OwnedFd core_;
        OwnedFd hands_;
        OwnedFd sent_;
        pid_t door_ = -1;
};

TEST(Discards, HoweverManyWaitToBeClosedOthersGetIn) {
        DoorAlone door;
        constexpr uid_t kUsers = 20;
        for (uid_t i = 0; i < 1200; i++) {
                ASSERT_TRUE(door.leaves_something_to_close(kOne + i % kUsers)) << i;
        }
        EXPECT_TRUE(door.leaves_something_to_close(kOne + kUsers));
}

TEST(Discards, OfWhomTooManyWaitNoMoreIsLetInUntilTheyAreClosed) {
        DoorAlone door;
        constexpr std::size_t kMost = 2 * Discards::kMaxPerUid;
        std::string refusal;
        for (std::size_t i = 0; i < kMost && refusal.empty(); i++) {
                const auto connection = door.connect(kOne);
                pollfd both[2] = {{door.core(), POLLIN, 0}, {connection.get(), POLLIN, 0}};
                ASSERT_GE(poll(both, 2, 20'000), 1);
                if (both[0].revents != 0) {
                        ASSERT_EQ(door.let_in_and_end(), kOne);
                        ASSERT_EQ(next_record(connection.get()), "");
                } else {
                        refusal = next_record(connection.get());
                }
        }
        EXPECT_NE(refusal.find("wait to be closed"), std::string::npos) << refusal;
        EXPECT_TRUE(door.leaves_something_to_close(kOther));
        EXPECT_TRUE(door.leaves_something_to_close(0));
        for (std::size_t closed = 0; closed < Discards::kMaxPerUid;) {
                const auto next = door.next_to_close();
                ASSERT_TRUE(next);
                closed += next->first == kOne ? next->second : 0;
        }
        EXPECT_TRUE(door.leaves_something_to_close(kOne));
}

TEST(Discards, WhatOneUserHasLeftWaitsForOneTurnOfAnother) {
        DoorAlone door;
        for (std::size_t i = 0; i < Discards::kMaxPerUid - 10; i++) {
                ASSERT_TRUE(door.leaves_something_to_close(kOne));
        }
        ASSERT_TRUE(door.leaves_something_to_close(kOther));
        std::size_t of_one = 0;
        std::optional<std::pair<uid_t, std::size_t>> next;
        while ((next = door.next_to_close()) && next->first == kOne) {
                of_one += next->second;
        }
        ASSERT_TRUE(next);
        EXPECT_EQ(next->first, kOther);
        EXPECT_LT(of_one, Discards::kMaxPerUid - 10) << "it had to wait for all of the first one's";
}

}  // namespace
}  // namespace sockbroker::hands
