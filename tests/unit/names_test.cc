// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A process that looks up accounts and takes nothing for a moment: the test is that process, and does not read. What
// waits is asked when it does, and nothing is lost meanwhile.
#include "broker/names/names.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <optional>
#include <string>
#include <vector>

namespace sockbroker {
namespace {

constexpr std::int64_t kLongUsec = 60'000'000;
constexpr std::int64_t kUsec = 1'000'000;

class NamesTest : public testing::Test {
protected:
        void SetUp() override {
                std::array<int, 2> ends{};
                ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), 0);
                process_.reset(ends[1]);
                ours_.reset(dup(ends[0]));  // the very queue that the broker fills
                sd_event* event = nullptr;
                ASSERT_GE(sd_event_new(&event), 0);
                event_.reset(event);
                auto names = Names::start(event, OwnedFd(ends[0]),
                                          [this](int, const std::string& message) { notes_.push_back(message); });
                ASSERT_TRUE(names) << names.error().text();
                names_ = std::move(*names);
                answer({.here = true});
        }

        void answer(const FromNames& record) const {
                const std::string bytes = encode(record);
                ASSERT_EQ(send(process_.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
        }

        // Until it takes no more.
        void fill() {
                while (send(ours_.get(), "x", 1, MSG_DONTWAIT) == 1) {
                }
                ASSERT_EQ(errno, EAGAIN);
        }

        // What was sent to it, but for what fill() did.
        std::optional<ToNames> next() const {
                std::array<char, kMaxNamesRecord> bytes{};
                while (true) {
                        const ssize_t size = recv(process_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
                        if (size <= 0) {
                                return std::nullopt;
                        }
                        if (size > 1) {
                                return decode_to_names({bytes.data(), static_cast<std::size_t>(size)});
                        }
                }
        }

        // The loop goes on until that is so, or for so long.
        template <class Until>
        bool run(std::int64_t usec, const Until& until) {
                const auto end = steady_usec() + usec;
                while (!until()) {
                        const auto left = end - steady_usec();
                        if (left <= 0) {
                                return false;
                        }
                        constexpr std::int64_t kAtMost = 10'000;  // the process is not among what the loop watches
                        EXPECT_GE(sd_event_run(event_.get(), static_cast<std::uint64_t>(std::min(left, kAtMost))), 0);
                }
                return true;
        }

        ToNames wait_for_record() {
                std::optional<ToNames> record;
                EXPECT_TRUE(run(10 * kUsec, [&] { return (record = next()).has_value(); }));
                return record.value_or(ToNames{});
        }

        void ask(const std::string& user, Names::Urgency urgency, std::function<void()> then) {
                names_->ask({{QuestionKind::kUser, user}}, urgency, kLongUsec, {}, std::move(then));
        }

        OwnedEvent event_;
        OwnedFd process_;
        OwnedFd ours_;
        std::vector<std::string> notes_;
        std::unique_ptr<Names> names_;
};

TEST_F(NamesTest, AQuestionThatCannotBeSentNowIsSentWhenItCan) {
        fill();
        int called = 0;
        ask("web", Names::Urgency::kRequest, [&] { called++; });
        ask("dns", Names::Urgency::kPolicy, [&] { called++; });
        EXPECT_FALSE(run(kUsec / 5, [&] { return called > 0; })) << "it has not been asked yet";
        EXPECT_TRUE(names_->silent().names.empty());
        for (std::uint32_t id = 1000; id < 1002; id++) {
                const ToNames asked = wait_for_record();
                EXPECT_EQ(asked.question.text, id == 1000 ? "web" : "dns") << "in the order in which they waited";
                answer({.number = asked.number, .answer = {.outcome = Outcome::kFound, .id = id, .name = {}}});
        }
        EXPECT_TRUE(run(10 * kUsec, [&] { return called == 2; }));
        EXPECT_EQ(names_->find({AccountKind::kUser, "web"})->last.id(), std::optional(1000U));
        EXPECT_EQ(names_->find({AccountKind::kUser, "dns"})->last.id(), std::optional(1001U));
        EXPECT_EQ(notes_, std::vector<std::string>()) << "nothing has happened";
        ask("again", Names::Urgency::kRequest, [] {});
        EXPECT_EQ(wait_for_record().question.text, "again");
}

TEST_F(NamesTest, WhoHasNoMorePatienceIsNotAskedFor) {
        fill();
        bool called = false;
        names_->ask({{QuestionKind::kUser, "web"}}, Names::Urgency::kRequest, kUsec / 10, {}, [&] { called = true; });
        EXPECT_TRUE(run(10 * kUsec, [&] { return called; }));
        ask("dns", Names::Urgency::kRequest, [] {});
        EXPECT_EQ(wait_for_record().question.text, "dns");
}

TEST_F(NamesTest, AnOrderThatCannotBeSentNowIsSentWhenItCan) {
        constexpr int kMoreThanAreAsked = 6;  // at the same time, of a policy
        std::vector<ToNames> asked;
        for (int i = 0; i < kMoreThanAreAsked; i++) {
                ask("user" + std::to_string(i), Names::Urgency::kPolicy, [] {});
        }
        while (const auto record = next()) {
                asked.push_back(*record);
        }
        ASSERT_LT(asked.size(), std::size_t{kMoreThanAreAsked});
        fill();
        // All that were asked hang.
        EXPECT_FALSE(run(Names::kPatienceUsec + kUsec / 2, [&] { return !notes_.empty(); })) << notes_.front();
        EXPECT_TRUE(wait_for_record().replace);
        answer({.here = true});
        const ToNames next_asked = wait_for_record();
        EXPECT_EQ(next_asked.question.text, "user" + std::to_string(asked.size()));
}

TEST_F(NamesTest, AProcessThatIsGoneIsNotWaitedFor) {
        process_.reset();
        bool called = false;
        ask("web", Names::Urgency::kRequest, [&] { called = true; });
        EXPECT_TRUE(run(10 * kUsec, [&] { return called; }));
        ASSERT_EQ(notes_.size(), 1U);
        EXPECT_EQ(names_->silent().names.size(), 1U);
}

}  // namespace
}  // namespace sockbroker
