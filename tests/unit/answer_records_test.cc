// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/answer_records.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace sockbroker {
namespace {

std::string line_of(std::size_t size) {
        return std::string(size - 1, 'x') + "\n";
}

std::vector<std::string> all_records(Answer answer, bool labels = false) {
        AnswerRecords records(labels);
        records.begin(std::move(answer));
        std::vector<std::string> all;
        for (; !records.all_sent(); records.sent()) {
                all.push_back(records.current());
                EXPECT_EQ(records.current(), all.back()) << "the same until it was sent";
                EXPECT_EQ(records.is_last(), all.back().find("RESULT=") != std::string::npos);
        }
        return all;
}

TEST(AnswerRecords, AnAnswerWithoutRowsIsOneRecord) {
        EXPECT_EQ(all_records({.message = "done", .warnings = {"but"}}),
                  (std::vector<std::string>{format_result(ResultCode::kOk, "done", {"but"})}));
        const auto refused = all_records({.code = ResultCode::kNotPermitted, .message = "no", .cause = "PID"});
        EXPECT_EQ(refused, (std::vector<std::string>{format_result(ResultCode::kNotPermitted, "no") + "CAUSE=PID\n"}));
}

TEST(AnswerRecords, LinesGoTogetherForAsLongAsTheyFit) {
        constexpr std::size_t kHalf = AnswerRecords::kMaxBytes / 2;
        const std::string lines = line_of(kHalf) + line_of(kHalf) + line_of(kHalf);
        const auto records = all_records({.rows = rows_of_lines(lines)});
        ASSERT_EQ(records.size(), 3U);
        EXPECT_EQ(records[0], line_of(kHalf) + line_of(kHalf));
        EXPECT_EQ(records[1], line_of(kHalf));
        EXPECT_EQ(records[2], format_result(ResultCode::kOk, ""));
}

TEST(AnswerRecords, ALineIsNeverCut) {
        constexpr std::size_t kMost = AnswerRecords::kMaxBytes;
        const auto records = all_records({.rows = rows_of_lines(line_of(10) + line_of(kMost) + line_of(10))});
        ASSERT_EQ(records.size(), 4U);
        EXPECT_EQ(records[0], line_of(10));
        EXPECT_EQ(records[1], line_of(kMost));
        EXPECT_EQ(records[2], line_of(10));
        EXPECT_THROW(all_records({.rows = rows_of_lines(line_of(kMost + 1))}), std::length_error);
}

TEST(AnswerRecords, RowsAreMadeNoFasterThanTheyAreSent) {
        int made = 0;
        AnswerRecords records(false);
        records.begin({.rows = [&made]() -> std::optional<std::string> {
                made++;
                return line_of(AnswerRecords::kMaxBytes);
        }});
        EXPECT_EQ(made, 0);
        for (int sent = 1; sent < 5; sent++) {
                EXPECT_FALSE(records.current().empty());
                EXPECT_LE(made, sent + 1) << "the line after the one that fills a record may be there";
                records.sent();
        }
}

TEST(AnswerRecords, RowsThatEndBeforeTheirTimeAreTheResult) {
        bool first = true;
        const auto records = all_records({.message = "fine", .rows = [&first]() -> decltype(Rows()()) {
                                                  if (std::exchange(first, false)) {
                                                          return "a line\n";
                                                  }
                                                  return std::unexpected(Refusal{ResultCode::kBusy, "ask again", {}});
                                          }});
        EXPECT_EQ(records, (std::vector<std::string>{"a line\n", format_result(ResultCode::kBusy, "ask again")}));
}

TEST(AnswerRecords, AFeedHasARecordWhenSomethingHappens) {
        Monitors monitors;
        AnswerRecords records(false);
        records.begin({.feed = monitors.open()});
        EXPECT_NE(records.current().find("\"begin\""), std::string::npos);
        records.sent();
        EXPECT_EQ(records.current(), "");
        monitors.tell({.message = "something"});
        EXPECT_NE(records.current().find("something"), std::string::npos);
        records.sent();
        EXPECT_FALSE(records.all_sent()) << "it has no end of its own";
}

TEST(AnswerRecords, TheNextAnswerBeginsAnew) {
        AnswerRecords records(false);
        records.begin({.rows = rows_of_lines(line_of(AnswerRecords::kMaxBytes) + "of the one before\n")});
        EXPECT_EQ(records.current(), line_of(AnswerRecords::kMaxBytes));
        records.begin({.message = "next"});
        EXPECT_EQ(records.current(), format_result(ResultCode::kOk, "next"));
        EXPECT_TRUE(records.is_last());
        EXPECT_FALSE(records.all_sent());
}

}  // namespace
}  // namespace sockbroker
