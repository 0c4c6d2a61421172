// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the core believes of what its hands write: nothing that does not fit.
#include "broker/hands/wire.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <random>

#include "broker/hands/link.h"
#include "tests/fuzz/answer_property.h"

namespace sockbroker::hands {
namespace {

std::vector<std::byte> bytes_of(Answer answer, const std::vector<Facts>& facts = {}) {
        if (answer.size == 0) {
                answer.size = static_cast<std::uint32_t>(sizeof answer + facts.size() * sizeof(Facts));
        }
        std::vector<std::byte> bytes(sizeof answer + facts.size() * sizeof(Facts));
        std::memcpy(bytes.data(), &answer, sizeof answer);
        if (!facts.empty()) {
                std::memcpy(bytes.data() + sizeof answer, facts.data(), facts.size() * sizeof(Facts));
        }
        return bytes;
}

const Answer kTwo{.kind = AnswerKind::kDone, .job = 7, .count = 2, .has_facts = 1};

TEST(HandsWire, AnAnswerComesBackAsItWasMeant) {
        Found found;
        found.facts = {.domain = 10,
                       .type = 1,
                       .protocol_number = 6,
                       .listening = true,
                       .cookie = 0x1234567890,
                       .netns_cookie = 1,
                       .family = SocketFamily::kDual,
                       .bound = *parse_endpoint("[2001:db8::1]:443")};
        found.staging = Staging::kOffered;
        const auto parsed = parse_answer(bytes_of(kTwo, {to_wire(found), to_wire({})}));
        ASSERT_TRUE(parsed.answer);
        EXPECT_EQ(parsed.answer->job, 7U);
        ASSERT_EQ(parsed.answer->found.size(), 2U);
        EXPECT_EQ(parsed.answer->found[0].facts.bound.to_string(), "[2001:db8::1]:443");
        EXPECT_EQ(parsed.answer->found[0].facts.cookie, 0x1234567890U);
        EXPECT_EQ(parsed.answer->found[0].facts.family, SocketFamily::kDual);
        EXPECT_EQ(parsed.answer->found[0].staging, Staging::kOffered);
        EXPECT_EQ(parsed.answer->found[1].facts.domain, -1);
}

TEST(HandsWire, AnswersAreCutOutOfAStream) {
        auto bytes = bytes_of({.kind = AnswerKind::kTaken, .job = 1});
        const auto second = bytes_of(kTwo, {{}, {}});
        bytes.insert(bytes.end(), second.begin(), second.end());
        const auto first = parse_answer(bytes);
        ASSERT_TRUE(first.answer);
        EXPECT_EQ(first.used, sizeof(Answer));
        for (std::size_t size = first.used; size < bytes.size(); size++) {
                const auto part = parse_answer(std::span(bytes).subspan(first.used, size - first.used));
                EXPECT_FALSE(part.answer) << size;
                EXPECT_FALSE(part.wrong) << size;
        }
        EXPECT_TRUE(parse_answer(std::span(bytes).subspan(first.used)).answer);
}

// A hand that was taken over may write faster than anybody can read.
TEST(HandsWire, OneTurnHearsWhatOneReadBringsAndNothingIsLost) {
        constexpr std::size_t kCount = 2000;
        int ends[2];
        ASSERT_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
        const OwnedFd writer(ends[1]);
        Link link({}, OwnedFd(ends[0]));
        const Answer idle{.size = sizeof(Answer), .kind = AnswerKind::kIdle};
        for (std::size_t i = 0; i < kCount; i++) {
                ASSERT_EQ(write(writer.get(), &idle, sizeof idle), static_cast<ssize_t>(sizeof idle));
        }
        std::size_t heard = 0;
        while (heard < kCount) {
                const std::size_t before = heard;
                ASSERT_TRUE(link.receive([&](ParsedAnswer&) {
                        heard++;
                        return true;
                }));
                ASSERT_GT(heard, before);
                ASSERT_LE(heard - before, kMaxAnswer / sizeof idle + 1);
        }
        EXPECT_EQ(heard, kCount);
}

TEST(HandsWire, NothingThatDoesNotFitIsTaken) {
        const auto wrong = [](Answer answer, const std::vector<Facts>& facts = {}) {
                return parse_answer(bytes_of(answer, facts)).wrong;
        };
        EXPECT_TRUE(wrong({.kind = AnswerKind{0}}));
        EXPECT_TRUE(wrong({.kind = AnswerKind{6}}));
        EXPECT_TRUE(wrong({.size = 4, .kind = AnswerKind::kDone}));
        EXPECT_TRUE(wrong({.size = 0xffffffff, .kind = AnswerKind::kDone}));
        EXPECT_TRUE(wrong({.kind = AnswerKind::kDone, .count = 254}));
        EXPECT_TRUE(wrong({.kind = AnswerKind::kDone, .errnum = -1}));
        EXPECT_TRUE(wrong({.kind = AnswerKind::kDone, .errnum = 5000}));
        EXPECT_TRUE(wrong({.kind = AnswerKind::kDone, .truncated = 2}));
        EXPECT_TRUE(wrong({.kind = AnswerKind::kDone, .has_facts = 3}));
        EXPECT_TRUE(wrong({.kind = AnswerKind::kDone, .count = 1, .has_facts = 1}));
        EXPECT_TRUE(wrong({.kind = AnswerKind::kTaken, .count = 1, .has_facts = 1}, {{}}));
        EXPECT_TRUE(wrong({.kind = AnswerKind::kBusy, .count = 1, .has_facts = 1}, {{}}));
        EXPECT_FALSE(wrong(kTwo, {{}, {}}));
        for (const auto& bad :
             {Facts{.errnum = -1}, Facts{.listening = 2}, Facts{.connected = 255}, Facts{.protocol = 2},
              Facts{.family = 3}, Facts{.address_family = 2}, Facts{.staging = 5}}) {
                EXPECT_TRUE(wrong(kTwo, {{}, bad}));
        }
}

TEST(HandsWire, ReportsOfTheZygoteHaveOneSize) {
        const ZygoteReport report{.kind = ZygoteReportKind::kForked, .child = 3, .value = 77};
        const auto parsed = parse_zygote_report(as_bytes_of(report));
        ASSERT_TRUE(parsed);
        EXPECT_EQ(parsed->value, 77);
        EXPECT_FALSE(parse_zygote_report(as_bytes_of(report).first(11)));
        EXPECT_FALSE(parse_zygote_report(as_bytes_of(ZygoteReport{.kind = ZygoteReportKind{9}})));
}

TEST(HandsWire, ReportsOfRefusedConnectionsHaveASizeThatNoOtherHasAndAKnownReason) {
        static_assert(sizeof(RefusedReport) != sizeof(DoorReport));
        const RefusedReport report{.uid = 61001, .why = DoorRefusal::kBarred, .count = 7};
        const auto parsed = parse_refused_report(as_bytes_of(report));
        ASSERT_TRUE(parsed);
        EXPECT_EQ(parsed->uid, 61001U);
        EXPECT_EQ(parsed->why, DoorRefusal::kBarred);
        EXPECT_EQ(parsed->count, 7U);
        EXPECT_FALSE(parse_refused_report(as_bytes_of(report).first(11)));
        EXPECT_FALSE(parse_refused_report(as_bytes_of(DoorReport{})));
        EXPECT_FALSE(parse_refused_report(as_bytes_of(RefusedReport{.why = DoorRefusal{kDoorRefusals}, .count = 1})));
        EXPECT_FALSE(parse_refused_report(as_bytes_of(RefusedReport{.uid = 61001, .count = 0})));
}

TEST(HandsWire, HoldsForHalfAMillionMutations) {
        std::mt19937 random{20190101};  // NOLINT: the same every time
        const auto pick = [&](std::size_t below) { return random() % below; };
        const std::vector seeds{
                bytes_of(kTwo, {{}, {}}), bytes_of({.kind = AnswerKind::kTaken}),
                bytes_of({.kind = AnswerKind::kBusy, .count = 3}),
                bytes_of({.kind = AnswerKind::kDone, .count = 253, .has_facts = 1}, std::vector<Facts>(253))};
        std::size_t taken = 0;
        for (int i = 0; i < 500'000; i++) {
                auto bytes = seeds[pick(i % 100 == 0 ? 4 : 3)];
                for (std::size_t steps = pick(4); steps > 0; steps--) {
                        bytes[pick(std::min<std::size_t>(bytes.size(), 160))] ^= static_cast<std::byte>(1U << pick(8));
                }
                if (pick(8) == 0) {
                        bytes.resize(pick(bytes.size()));
                }
                ASSERT_EQ(test::broken_answer_property(bytes), "");
                taken += parse_answer(bytes).answer ? 1U : 0U;
        }
        EXPECT_GT(taken, 10'000U);
}

}  // namespace
}  // namespace sockbroker::hands
