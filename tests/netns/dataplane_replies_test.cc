// SPDX-License-Identifier: LGPL-2.1-or-later
//
// UdpReply=original: which clients the table of sets keeps, among those that ask again and again, those that wait for
// an answer and those that come later. What reaches real servers is in test_udp_replies.py and its like.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <ctime>
#include <random>

#include "bpf/layout.h"
#include "broker/dataplane/kernel/mapping.h"
#include "tests/netns/dataplane_fixture.h"

namespace sockbroker {
namespace {

constexpr std::uint32_t kSecond = 1'000'000'000U >> SB_REPLY_CLOCK;

// As the programs read the clock.
std::uint32_t now() {
        timespec time{};
        clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
        const auto nsec =
                static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(time.tv_nsec);
        return static_cast<std::uint32_t>(nsec >> SB_REPLY_CLOCK) | 1;
}

// From then on a question is later than an answer until now.
void wait_for_next_tick() {
        const auto began = now();
        while (now() == began) {
        }
}

class Replies : public DataplaneTest {
protected:
        void SetUp() override {
                DataplaneTest::SetUp();
                open({.bindings = 64, .services = 8, .sockets = 100});
                const auto id = add("dns");
                rules({rule(Protocol::kUdp, "1.0.0.0/8", {53, 53}, id)});
                socket_ = make_socket(Protocol::kUdp, Family::kIpv4);
                Targets targets{.reply = true};
                targets.slots[1][0] = {install(socket_, id)};
                const auto set = dataplane_->set_targets(id, targets);
                ASSERT_TRUE(set) << set.error().text();
                auto replies = Mapping<sb_reply_line>::create(pinned("replies").get(), SB_REPLY_LINES, "replies");
                auto questions =
                        Mapping<sb_reply_times>::create(pinned("questions").get(), SB_REPLY_LINES, "questions");
                auto answered = Mapping<sb_reply_times>::create(pinned("answered").get(), SB_REPLY_LINES, "answered");
                ASSERT_TRUE(replies && questions && answered);
                replies_ = std::move(*replies);
                questions_ = std::move(*questions);
                answered_ = std::move(*answered);
                while (sets_of(kFull) < SB_REPLY_LINES * 19 / 20) {
                        come_again(clients(4096, "1.0.0.1"));
                }
        }

        // Each asks that address, from a port of its own.
        std::vector<oracle::Packet> clients(std::size_t count, const std::string& asked) {
                std::vector<oracle::Packet> result(count);
                for (auto& one : result) {
                        one = packet(Protocol::kUdp, asked, 53);
                        for (const std::size_t byte : {0U, 1U, 2U, 3U}) {
                                one.from.bytes.at(byte) = static_cast<std::uint8_t>(random_());
                        }
                }
                return result;
        }

        void ask(const std::vector<oracle::Packet>& all) const {
                for (const auto& one : all) {
                        ASSERT_EQ(run(program_.get(), one).cookie, socket_.cookie);
                }
        }

        // As the program does that sets the source of the answer.
        void answer_all() {
                for (std::uint32_t set = 0; set < SB_REPLY_LINES; set++) {
                        for (std::size_t i = 0; i < SB_REPLY_WAYS; i++) {
                                if (questions_[set].at[i] != 0) {
                                        answered_[set].at[i] = now();
                                }
                        }
                }
        }

        // Ask, are answered, ask again and are answered: they speak.
        void come_again(const std::vector<oracle::Packet>& all) {
                for (int i = 0; i < 2; i++) {
                        ask(all);
                        answer_all();
                }
        }

        // All clients that speak; so many seconds from now, as who has read the clock before they did sees it.
        void speak_now(std::uint32_t ahead = 0) {
                for (std::uint32_t set = 0; set < SB_REPLY_LINES; set++) {
                        for (std::size_t i = 0; i < SB_REPLY_WAYS; i++) {
                                if ((replies_[set].version[i] & SB_REPLY_SPEAKS) != 0) {
                                        questions_[set].at[i] = answered_[set].at[i] = now() + ahead * kSecond;
                                }
                        }
                }
        }

        void let_time_pass(std::uint32_t seconds) {
                const auto earlier = [&](std::uint32_t& at) { at -= at == 0 ? 0 : seconds * kSecond; };
                for (std::uint32_t set = 0; set < SB_REPLY_LINES; set++) {
                        std::ranges::for_each(questions_[set].at, earlier);
                        std::ranges::for_each(answered_[set].at, earlier);
                }
        }

        [[nodiscard]] static int speakers(const sb_reply_line& line) {
                return static_cast<int>(
                        std::ranges::count_if(line.version, [](auto version) { return version & SB_REPLY_SPEAKS; }));
        }

        // In how many of them so many clients speak, or more.
        [[nodiscard]] int sets_of(int count) const {
                int result = 0;
                for (std::uint32_t set = 0; set < SB_REPLY_LINES; set++) {
                        result += speakers(replies_[set]) >= count ? 1 : 0;
                }
                return result;
        }

        // How many that have asked this address are known and have no answer yet.
        [[nodiscard]] int waiting_for(const std::string& asked) const {
                const auto address = inet_addr(asked.c_str());
                int result = 0;
                for (std::uint32_t set = 0; set < SB_REPLY_LINES; set++) {
                        for (std::size_t i = 0; i < SB_REPLY_WAYS; i++) {
                                const auto since = questions_[set].at[i] - answered_[set].at[i];
                                const bool waits = since != 0 && since < 1U << 31;
                                result += replies_[set].address[i] == address && waits ? 1 : 0;
                        }
                }
                return result;
        }

        static constexpr int kFull = SB_REPLY_SPEAKERS;
        TestSocket socket_;
        Mapping<sb_reply_line> replies_;
        Mapping<sb_reply_times> questions_;
        Mapping<sb_reply_times> answered_;
        std::mt19937 random_{20261129};
};

// As those of a name server whose clients use their ports again. With one place in each set 240 of 2,000 would be
// forgotten by chance; with two, 20.
TEST_F(Replies, who_waits_is_hardly_ever_forgotten_beside_clients_that_come_again) {
        let_time_pass(3);
        ask(clients(2000, "1.0.0.2"));
        EXPECT_GT(waiting_for("1.0.0.2"), 1950);
}

TEST_F(Replies, clients_that_have_spoken_lately_give_way_to_nobody) {
        const int full = sets_of(kFull);
        for (int i = 0; i < 100; i++) {
                speak_now();
                ask(clients(100, "1.0.0.2"));
        }
        EXPECT_EQ(sets_of(kFull), full);
}

TEST_F(Replies, who_was_kept_from_its_work_for_seconds_takes_no_session_that_spoke_meanwhile_for_an_old_one) {
        const int full = sets_of(kFull);
        let_time_pass(10);
        speak_now(3);
        ask(clients(20'000, "1.0.0.2"));
        EXPECT_EQ(sets_of(kFull), full);
}

TEST_F(Replies, two_of_a_set_that_speak_give_way_to_nobody_for_half_a_minute) {
        const int full = sets_of(kFull);
        let_time_pass(10);
        ask(clients(20'000, "1.0.0.2"));
        EXPECT_LT(sets_of(kFull), full / 2);
        EXPECT_GE(sets_of(kFull - 1), full);
        let_time_pass(30);
        ask(clients(20'000, "1.0.0.2"));
        EXPECT_LT(sets_of(kFull - 1), full / 2);
}

// Two processors that take a client's first two questions may find nothing of it, and each note it.
TEST_F(Replies, a_client_that_stands_in_its_set_twice_is_the_first_of_the_two) {
        const auto one = clients(1, "1.0.0.3");
        for (std::uint32_t set = 0; set < SB_REPLY_LINES; set++) {
                replies_[set] = {};
                questions_[set] = answered_[set] = {};
        }
        come_again(one);
        come_again(one);
        std::uint32_t set = 0;
        while (speakers(replies_[set]) == 0) {
                set++;
                ASSERT_LT(set, SB_REPLY_LINES);
        }
        const auto alone = replies_[set];
        const auto* const place = std::ranges::find_if(alone.tag, [](auto tag) { return tag != 0; });
        const auto was = static_cast<std::size_t>(place - std::begin(alone.tag));
        for (unsigned ways = 1; ways < 1U << SB_REPLY_WAYS; ways++) {
                sb_reply_line line{};
                for (std::size_t i = 0; i < SB_REPLY_WAYS; i++) {
                        if ((ways >> i & 1) != 0) {
                                line.tag[i] = *place;
                                line.address[i] = alone.address[was];
                                line.version[i] = alone.version[was];
                        }
                }
                replies_[set] = line;
                questions_[set] = {};
                ask(one);
                EXPECT_EQ(std::memcmp(&replies_[set], &line, sizeof line), 0) << ways;
                for (std::size_t i = 0; i < SB_REPLY_WAYS; i++) {
                        EXPECT_EQ(questions_[set].at[i] != 0, i == static_cast<std::size_t>(std::countr_zero(ways)))
                                << ways << ", " << i;
                }
        }
}

// So the line goes to no other processor.
TEST_F(Replies, nothing_in_its_set_is_written_when_a_client_that_speaks_asks_the_same_address) {
        const auto some = clients(1, "1.0.0.3");
        const auto text = [&] {
                return std::string(reinterpret_cast<const char*>(&replies_[0]), sizeof(sb_reply_line) * SB_REPLY_LINES);
        };
        let_time_pass(40);
        come_again(some);
        come_again(some);
        const auto before = text();
        wait_for_next_tick();
        ask(some);
        EXPECT_EQ(text(), before);
        EXPECT_EQ(waiting_for("1.0.0.3"), 1);
}

TEST_F(Replies, who_waits_is_known_to_wait_also_when_the_time_has_turned_round_since_the_last_answer_there) {
        let_time_pass(40);
        for (std::uint32_t set = 0; set < SB_REPLY_LINES; set++) {
                std::ranges::fill(answered_[set].at, now() + kSecond * 1000);
        }
        ask(clients(2000, "1.0.0.2"));
        EXPECT_GT(waiting_for("1.0.0.2"), 1950);
}

// The answer was to who had the place before.
TEST_F(Replies, who_waits_is_known_to_wait_also_when_there_was_an_answer_in_the_same_tick) {
        let_time_pass(40);
        std::uint32_t tick = 0;
        do {
                wait_for_next_tick();
                tick = now();
                for (std::uint32_t set = 0; set < SB_REPLY_LINES; set++) {
                        std::ranges::fill(answered_[set].at, tick);
                }
                ask(clients(1, "1.0.0.2"));
        } while (now() != tick);
        EXPECT_EQ(waiting_for("1.0.0.2"), 1);
}

TEST_F(Replies, who_waits_gives_way_to_nobody_while_another_place_is_free) {
        let_time_pass(40);
        // Some 16 pairs share a set; of 2,000, five would share one in a run of seventeen, and one have no place.
        ask(clients(500, "1.0.0.2"));
        EXPECT_EQ(waiting_for("1.0.0.2"), 500);
}

}  // namespace
}  // namespace sockbroker
