// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The filter of the notify socket: the kernel drops messages of a user in his own send(2).
#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>

#include "broker/dataplane/kernel/notify_filter.h"
#include "broker/protocol/message.h"
#include "tests/netns/dataplane_fixture.h"
#include "tests/unit/support/socket_kinds.h"

namespace sockbroker {
namespace {

constexpr uid_t kHeard = 61001;
constexpr uid_t kUnheard = 61666;

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
        bool arrives_of(uid_t uid) {
                int pipe[2];
                test::must(pipe2(pipe, O_CLOEXEC), "pipe");
                const pid_t child = fork();
                if (child == 0) {
                        const bool sent = setresuid(uid, uid, uid) == 0 && send_record(ends_[1], "X=1", {pipe[1]});
                        _exit(sent ? 0 : 1);
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

}  // namespace
}  // namespace sockbroker
