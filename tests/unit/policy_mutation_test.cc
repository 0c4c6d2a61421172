// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The properties that the fuzzer checks, for the corpus, each policy mistake, and many texts made from them.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/fuzz/policy_property.h"
#include "tests/unit/support/mutator.h"

namespace sockbroker {
namespace {

namespace fs = std::filesystem;

std::string slurp(const fs::path& path) {
        std::ifstream stream(path, std::ios::binary);
        return {std::istreambuf_iterator<char>(stream), {}};
}

std::vector<std::string> read_corpus() {
        std::vector<std::string> texts;
        for (const auto* folder : {"/tests/fuzz/corpus/policy", "/conf.d"}) {
                for (const auto& entry : fs::directory_iterator(std::string(SOCKBROKER_SOURCE_ROOT) + folder)) {
                        texts.push_back(slurp(entry.path()));
                }
        }
        std::sort(texts.begin(), texts.end());  // the same order on every file system
        return texts;
}

std::vector<std::string> read_mistakes() {
        std::vector<std::string> texts;
        std::ifstream stream(SOCKBROKER_SOURCE_ROOT "/tests/data/policy_mistakes.json");
        for (const auto& entry : nlohmann::json::parse(stream)) {
                for (const auto& file : entry.at("files")) {
                        texts.push_back(file);
                }
        }
        return texts;
}

TEST(PolicyCorpus, HoldsForEveryTextAndEveryBeginningOfOne) {
        const auto corpus = read_corpus();
        EXPECT_GE(corpus.size(), 10U);
        for (const auto& text : corpus) {
                for (std::size_t size = 0; size <= text.size(); size++) {
                        ASSERT_EQ(test::broken_property(text.substr(0, size)), "") << text.substr(0, size);
                }
        }
}

TEST(PolicyCorpus, HoldsForEveryMistake) {
        for (const auto& text : read_mistakes()) {
                ASSERT_EQ(test::broken_property(text), "") << text;
        }
}

class PolicyMutator : public test::Mutator {
public:
        explicit PolicyMutator(std::vector<std::string> seeds) : Mutator(std::move(seeds), kBytes, 4, 3000) {}

private:
        static constexpr std::string_view kBytes{
                "\n\n==::[];# \t\r\0\\\"'@*-\xef\xbb\xbf\xff"
                "09az",
                28};

        // Likely at the begin of a line, or around an = or a ].
        std::size_t position(const std::string& text) override {
                const std::size_t at = Mutator::position(text);
                const auto found = text.find_first_of("\n=]", at);
                return found == std::string::npos || pick(3) == 0 ? at : found + pick(2);
        }

        [[nodiscard]] std::size_t own_steps() const override { return 2; }

        void own_step(std::size_t step, std::string& text, std::size_t at) override {
                static constexpr std::string_view kWords[] = {
                        "\n[Service a]\n",
                        "\nUnit=a.service ",
                        "\nListenStream=",
                        "\nListenDatagram=53\n",
                        "[::]/0:",
                        "1-65535",
                        " ; ",
                        "\n ",
                        "\xef\xbb\xbf",
                        ": ",
                };
                if (step == 0) {
                        text.insert(at, kWords[pick(std::size(kWords))]);
                } else {
                        text.insert(at, 150 + pick(100), byte());
                }
        }
};

TEST(PolicyMutation, HoldsForAHundredThousandTexts) {
        auto seeds = read_corpus();
        const auto mistakes = read_mistakes();
        seeds.insert(seeds.end(), mistakes.begin(), mistakes.end());
        PolicyMutator mutator(std::move(seeds));
        unsigned taken = 0;
        for (unsigned i = 0; i < 100'000; i++) {
                const auto text = mutator.next();
                ASSERT_EQ(test::broken_property(text), "") << testing::PrintToString(text);
                taken += parse_policy({{"x.conf", text}}, {}).policy ? 1U : 0U;
        }
        EXPECT_GT(taken, 5'000U) << "too few of the texts are good to say anything of good ones";
}

// Without the grammar all of these would change what a policy means.
TEST(IniLeniency, WhateverInihReadsInAnotherWayIsRefused) {
        const std::string head = "[Service a]\nUser=1\n";
        const std::string lines[] = {
                "User: 2",
                " 3",
                " User=2",
                "User=2 ;3",
                "User = 2",
                "[Service b] c",
                "User=" + std::string(200, '2'),
                "#" + std::string(198, ' ') + "User=2",
                "[" + std::string(60, 's') + "]",
                "User=2\r",
                std::string("User=2\0003", 8),
        };
        for (const auto& line : lines) {
                // From 58 on inih drops what goes past its buffer, where it was a line of its own before.
                EXPECT_TRUE(line.size() > kMaxIniLine || test::read_by_inih(head + line + "\nGroup=5\n") !=
                                                                 test::read_by_eye(head + line + "\nGroup=5\n"))
                        << line << " is harmless, and no example";
                EXPECT_FALSE(check_ini_line(line, false, "[Service NAME]")) << line;
        }
}

}  // namespace
}  // namespace sockbroker
