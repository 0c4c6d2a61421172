// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The filter of the notify socket: the kernel drops messages of a user, or of a group of them, in his own send(2).
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "broker/dataplane/kernel/notify_filter.h"
#include "broker/protocol/message.h"
#include "tests/netns/dataplane_fixture.h"
#include "tests/unit/support/socket_kinds.h"

namespace sockbroker {
namespace {

constexpr uid_t kHeard = 61001;
constexpr uid_t kUnheard = 61666;
constexpr uid_t kSubordinate = 1'900'000'000;

// Cgroups below one of the test's own, where a user of this machine would have his.
class Cgroups {
public:
        Cgroups() {
                for (const char* path : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
                        struct statfs fs {};
                        if (statfs(path, &fs) == 0 && fs.f_type == CGROUP2_SUPER_MAGIC) {
                                top_ = std::string(path) + "/sbnotify" + std::to_string(getpid()) + ".slice";
                        }
                }
                EXPECT_FALSE(top_.empty()) << "no cgroup2 is mounted";
        }
        ~Cgroups() {
                while (!made_.empty()) {
                        rmdir(made_.back().c_str());
                        made_.pop_back();
                }
        }
        Cgroups(const Cgroups&) = delete;
        Cgroups& operator=(const Cgroups&) = delete;

        // Made, with those above it.
        std::string operator[](const std::string& name) {
                std::string path = top_;
                for (const auto& part : std::filesystem::path(name)) {
                        make(path);
                        path += "/" + part.string();
                }
                make(path);
                return path;
        }

private:
        void make(const std::string& path) {
                if (mkdir(path.c_str(), 0755) == 0) {
                        made_.push_back(path);
                }
        }

        std::string top_;
        std::vector<std::string> made_;
};

class NotifyFilterTest : public DataplaneTest {
protected:
        void SetUp() override {
                DataplaneTest::SetUp();
                open();
                test::must(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends_), "socketpair");
        }
        void TearDown() override {
                close(ends_[0]);
                close(ends_[1]);
                DataplaneTest::TearDown();
        }

        NotifyFilter open_and_attach() {
                auto filter = NotifyFilter::open(pins_);
                EXPECT_TRUE(filter) << filter.error().text();
                const auto attached = filter->attach(ends_[0]);
                EXPECT_TRUE(attached) << attached.error().text();
                return std::move(*filter);
        }

        // As this user, with an end of a pipe of which nobody else has that end then. Whether it is in the queue.
        bool arrives_of(uid_t uid, const std::string& cgroup = {}, std::optional<uid_t> claimed = {}) {
                int pipe[2];
                test::must(pipe2(pipe, O_CLOEXEC), "pipe");
                const pid_t child = fork();
                if (child == 0) {
                        _exit(enter(cgroup) && send_as(uid, claimed, pipe[1]) ? 0 : 1);
                }
                close(pipe[1]);
                int status = -1;
                waitpid(child, &status, 0);
                EXPECT_EQ(status, 0) << "send(2) succeeds";
                pollfd hangup{.fd = pipe[0], .events = 0, .revents = 0};
                const bool closed = poll(&hangup, 1, 0) == 1;
                close(pipe[0]);
                const auto message = receive(ends_[0]);
                EXPECT_EQ(closed, !message.has_value()) << "what is dropped is closed by its sender";
                return message.has_value();
        }

        static bool enter(const std::string& cgroup) {
                return cgroup.empty() || (std::ofstream(cgroup + "/cgroup.procs") << "0" << std::flush).good();
        }

        // One who is root in a user namespace of his own may say that he is another one of it.
        bool send_as(uid_t uid, std::optional<uid_t> claimed, int descriptor) {
                if (!claimed) {
                        return setresuid(uid, uid, uid) == 0 && send_record(ends_[1], "X=1", {descriptor});
                }
                char byte = 'X';
                iovec vector{.iov_base = &byte, .iov_len = 1};
                alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred)) + CMSG_SPACE(sizeof(int))] = {};
                msghdr header{
                        .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
                cmsghdr* one = CMSG_FIRSTHDR(&header);
                *one = {.cmsg_len = CMSG_LEN(sizeof(ucred)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_CREDENTIALS};
                const ucred credentials{.pid = getpid(), .uid = *claimed, .gid = 0};
                std::memcpy(CMSG_DATA(one), &credentials, sizeof credentials);
                one = CMSG_NXTHDR(&header, one);
                *one = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
                std::memcpy(CMSG_DATA(one), &descriptor, sizeof descriptor);
                // CAP_SETUID is what it takes; the real uid is that of the one who sends.
                return setresuid(uid, 0, 0) == 0 && sendmsg(ends_[1], &header, 0) == 1;
        }

        int ends_[2] = {-1, -1};
};

TEST_F(NotifyFilterTest, drops_what_a_user_sends_until_he_is_heard_again) {
        auto filter = open_and_attach();
        EXPECT_TRUE(arrives_of(kUnheard));
        filter.silence(kUnheard);
        EXPECT_FALSE(arrives_of(kUnheard));
        EXPECT_TRUE(arrives_of(kHeard));
        EXPECT_TRUE(arrives_of(0));
        filter.silence(kUnheard);  // again, which counts on
        EXPECT_FALSE(arrives_of(kUnheard));
        EXPECT_EQ(filter.hear(kUnheard), 2U);
        EXPECT_TRUE(arrives_of(kUnheard));
        EXPECT_EQ(filter.hear(kHeard), 0U);
}

TEST_F(NotifyFilterTest, of_the_next_broker_hears_everybody) {
        {
                auto filter = open_and_attach();
                filter.silence(kUnheard);
        }
        EXPECT_FALSE(arrives_of(kUnheard)) << "the socket outlives a broker";
        {
                const auto same = open_and_attach();
                EXPECT_TRUE(arrives_of(kUnheard));
        }
        {
                auto filter = open_and_attach();
                filter.silence(kUnheard);
        }
        open();  // loads it anew
        EXPECT_FALSE(arrives_of(kUnheard));
        const auto next = open_and_attach();
        EXPECT_TRUE(arrives_of(kUnheard));
}

TEST_F(NotifyFilterTest, counts_for_whoever_the_sender_says_that_he_is) {
        auto filter = open_and_attach();
        filter.silence(kSubordinate);
        EXPECT_FALSE(arrives_of(kHeard, {}, kSubordinate));
        EXPECT_TRUE(arrives_of(kHeard, {}, kSubordinate + 1));
        EXPECT_TRUE(arrives_of(kHeard));
}

struct Sender {
        std::string cgroup;
        std::string group;  // below the cgroups of the test; empty: none
};

const Sender kSenders[] = {
        {"evil.service", "evil.service"},
        {"evil.service/delegated/user-7.slice/other.service", "evil.service"},
        {"system-evil.slice/evil@1.service", "system-evil.slice/evil@1.service"},
        {"user.slice/user-1000.slice/session-3.scope", "user.slice/user-1000.slice"},
        {"user.slice/user-1000.slice/user@1000.service/app.slice/x.service", "user.slice/user-1000.slice"},
        {"user.slice/user-1000.slice", "user.slice/user-1000.slice"},
        {"user-a.slice/a.service", "user-a.slice/a.service"},
        {"machine.slice/machine-x.scope/payload/system.slice/a.service", "machine.slice/machine-x.scope"},
        {"a.slice", ""},
        {std::string(255, 'a'), std::string(255, 'a')},
        {std::string(249, 'a') + ".slice/b.service", std::string(249, 'a') + ".slice/b.service"},
};

TEST_F(NotifyFilterTest, knows_the_group_of_a_sender_that_is_gone_and_silences_it) {
        auto filter = open_and_attach();
        Cgroups cgroups;
        uid_t uid = 62'000;
        for (const auto& [cgroup, name] : kSenders) {
                SCOPED_TRACE(cgroup);
                uid++;
                EXPECT_TRUE(arrives_of(uid, cgroups[cgroup]));
                const auto group = filter.group_of(uid);
                if (name.empty()) {
                        EXPECT_EQ(group, "");
                        continue;
                }
                EXPECT_EQ(group, std::filesystem::path(name).filename().string().substr(0, 127));
                filter.silence_group(group);
                EXPECT_FALSE(arrives_of(uid, cgroups[cgroup]));
                EXPECT_FALSE(arrives_of(uid + 1000, cgroups[cgroup])) << "whatever his uid";
                EXPECT_TRUE(arrives_of(0, cgroups[cgroup])) << "but root";
                EXPECT_TRUE(arrives_of(uid));
                EXPECT_EQ(filter.hear_group(group), 2U);
                EXPECT_TRUE(arrives_of(uid, cgroups[cgroup]));
        }
        EXPECT_EQ(filter.group_of(kHeard), "") << "it has sent nothing";
}

TEST_F(NotifyFilterTest, a_group_whose_cgroup_is_made_anew_is_the_same) {
        auto filter = open_and_attach();
        {
                Cgroups cgroups;
                EXPECT_TRUE(arrives_of(kHeard, cgroups["user.slice/user-1000.slice/session-1.scope"]));
                filter.silence_group(filter.group_of(kHeard));
        }
        Cgroups cgroups;
        EXPECT_FALSE(arrives_of(kHeard, cgroups["user.slice/user-1000.slice/session-2.scope"]));
}

TEST_F(NotifyFilterTest, forgets_no_group_for_however_many_subordinate_uids) {
        auto filter = open_and_attach();
        Cgroups cgroups;
        const std::string evil = cgroups["evil.service"];
        const std::string web = cgroups["web.service"];
        EXPECT_TRUE(arrives_of(kHeard, web));
        const pid_t child = fork();
        if (child == 0) {
                bool sent = enter(evil) && fcntl(ends_[1], F_SETFL, O_NONBLOCK) == 0;
                for (uid_t uid = 100'000; sent && uid < 100'000 + 65'536; uid++) {
                        sent = setresuid(uid, 0, 0) == 0;
                        (void)send(ends_[1], "X", 1, 0);  // the queue may be full, the filter comes before that
                }
                _exit(sent ? 0 : 1);
        }
        int status = -1;
        waitpid(child, &status, 0);
        EXPECT_EQ(status, 0);
        EXPECT_EQ(filter.group_of(kHeard), "web.service");
        EXPECT_EQ(filter.group_of(100'000), "evil.service");
        EXPECT_EQ(filter.group_of(165'535), "evil.service");
}

}  // namespace
}  // namespace sockbroker
