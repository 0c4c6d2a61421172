// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Files with mistakes in every line: what is kept of them, what is counted, and how long it takes.
#include <algorithm>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "broker/policy/findings.h"
#include "broker/policy/parse.h"

namespace sockbroker {
namespace {

constexpr std::size_t kKept = Findings::kMaxPerFile;

TEST(Findings, OfAFileThatIsWrongInEveryLineAreItsFirstAndTheNumberOfTheOthers) {
        std::string text = "[Service a]\r\n";
        for (int i = 1; i < 100'000; i++) {
                text += "User=1\r\n";
        }
        const auto parsed =
                parse_policy({{"10-good.conf", "# fine\n"}, {"20-crlf.conf", text}, {"30-x.conf", "x\n"}}, {});
        EXPECT_FALSE(parsed.policy);
        EXPECT_EQ(parsed.errors, 100'001U);
        ASSERT_EQ(parsed.diagnostics.size(), kKept + 2);
        for (unsigned i = 0; i < kKept; i++) {
                EXPECT_EQ(parsed.diagnostics[i].to_string(),
                          fmt::format("20-crlf.conf:{}: carriage return in the line, save the file with UNIX line ends",
                                      i + 1));
        }
        EXPECT_EQ(parsed.diagnostics[kKept].to_string(), "20-crlf.conf: 99000 more errors in this file");
        EXPECT_EQ(parsed.diagnostics[kKept + 1].file, "30-x.conf") << "each file has room of its own";
}

TEST(Findings, AreTheFirstByLineWhateverTheOrderInWhichTheyAreFound) {
        // Found by a hash of the binding: all of the second half conflict with the first.
        std::string text = "[Service a]\nUser=1\n";
        constexpr unsigned kEach = 20'000;
        for (const char* service : {"", "[Service b]\nUser=1\n"}) {
                text += service;
                for (unsigned i = 0; i < kEach; i++) {
                        text += fmt::format("ListenStream=10.0.{}.{}:80\n", i >> 8, i & 255);
                }
        }
        const auto parsed = parse_policy({{"a.conf", text}}, {});
        EXPECT_EQ(parsed.errors, kEach);
        ASSERT_EQ(parsed.diagnostics.size(), kKept + 1);
        for (unsigned i = 0; i < kKept; i++) {
                EXPECT_EQ(parsed.diagnostics[i].line, 2 + kEach + 2 + 1 + i);
        }
        EXPECT_EQ(parsed.diagnostics.back().to_string(),
                  fmt::format("a.conf: {} more errors in this file", kEach - kKept));
}

TEST(Findings, OfAFewConflictsAmongManyBindingsAreAllOfThemAndNoOthers) {
        std::string text = "[Service a]\nUser=1\n";
        constexpr unsigned kMany = 200'000;
        for (unsigned i = 0; i < kMany; i++) {
                text += fmt::format("ListenStream=20.{}.{}.{}:53\n", i >> 16, i >> 8 & 255, i & 255);
        }
        text += "[Service b]\nUser=1\nListenStream=20.0.0.1:53\nListenStream=20.2.0.7:50-60\n"
                "ListenDatagram=20.0.0.1:53\nListenStream=20.3.13.63:53\nListenStream=20.3.13.64:53\n";
        const auto parsed = parse_policy({{"x.conf", text}}, {.max_bindings = 2 * kMany});
        std::vector<unsigned> lines;
        for (const auto& diagnostic : parsed.diagnostics) {
                lines.push_back(diagnostic.line);
        }
        EXPECT_EQ(lines, (std::vector<unsigned>{kMany + 5, kMany + 8}));
        EXPECT_EQ(parsed.errors, 2U);
}

TEST(Findings, CountWarningsForThemselvesAndAPolicyWithManyIsTaken) {
        std::string text = "[Service a]\nUser=1\n";
        for (unsigned i = 0; i < 3000; i++) {
                text += "ListenStream=10.0.0.1:80\n";
        }
        auto parsed = parse_policy({{"a.conf", text}}, {});
        EXPECT_TRUE(parsed.policy);
        EXPECT_EQ(parsed.errors, 0U);
        ASSERT_EQ(parsed.diagnostics.size(), kKept + 1);
        EXPECT_EQ(parsed.diagnostics.back().to_string(), "a.conf: 1999 more warnings in this file");
        EXPECT_EQ(parsed.diagnostics.back().severity, Severity::kWarning);

        parsed = parse_policy({{"a.conf", text + "User=65534\nFrob=1\n"}}, {});
        EXPECT_EQ(parsed.errors, 2U);
        EXPECT_EQ(std::ranges::count(parsed.diagnostics, Severity::kError, &Diagnostic::severity), 2)
                << "warnings take no error's place";
}

TEST(Findings, AreBoundedInAllForManyFiles) {
        std::vector<PolicyFile> files;
        std::string text;
        for (int i = 0; i < 2000; i++) {
                text += "x\n";
        }
        for (int i = 0; i < 50; i++) {
                files.push_back({fmt::format("{}.conf", i), text});
        }
        const auto parsed = parse_policy(files, {});
        EXPECT_EQ(parsed.errors, 100'000U);
        EXPECT_EQ(parsed.diagnostics.size(), Findings::kMaxInAll + files.size()) << "each file is named";
        EXPECT_EQ(parsed.diagnostics.back().to_string(), "49.conf: 2000 more errors in this file");
}

TEST(Findings, OfOthersAreBoundedInTheSameWay) {
        std::vector<Diagnostic> all;
        for (unsigned i = 3000; i > 0; i--) {
                all.push_back({"a.conf", i, Severity::kWarning, std::to_string(i)});
        }
        all.push_back({"b.conf", 7, Severity::kError, "b"});
        const auto first = first_of_each_file(std::move(all));
        ASSERT_EQ(first.size(), kKept + 2);
        EXPECT_EQ(first[0].to_string(), "a.conf:1: 1");
        EXPECT_EQ(first[kKept].to_string(), "a.conf: 2000 more warnings in this file");
        EXPECT_EQ(first.back().to_string(), "b.conf:7: b");
}

}  // namespace
}  // namespace sockbroker
