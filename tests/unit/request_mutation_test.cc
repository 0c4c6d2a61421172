// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A fuzzer's work with a fixed seed and without its compiler: half a million texts made from good and bad ones by
// cutting, joining, flipping and repeating.
#include <algorithm>
#include <random>

#include <gtest/gtest.h>

#include "tests/fuzz/request_property.h"
#include "tests/unit/support/mistakes.h"

namespace sockbroker {
namespace {

class Mutator {
public:
        explicit Mutator(std::vector<std::string> seeds) : seeds_(std::move(seeds)) {}

        std::size_t pick(std::size_t below) {
                return std::uniform_int_distribution<std::size_t>(0, below - 1)(random_);
        }

        std::string next() {
                std::string text = seeds_[pick(seeds_.size())];
                for (std::size_t steps = pick(4); steps > 0; steps--) {
                        mutate(text);
                }
                text.resize(std::min<std::size_t>(text.size(), 5000));
                return text;
        }

private:
        void mutate(std::string& text) {
                static constexpr std::string_view kBytes("\n=\0 10Az_\xff", 10);
                const std::size_t at = pick(text.size() + 1);
                switch (pick(6)) {
                case 0:
                        text.insert(at, 1, kBytes[pick(kBytes.size())]);
                        break;
                case 1:
                        text.erase(at, 1 + pick(4));
                        break;
                case 2:
                        if (at < text.size()) {
                                text[at] = static_cast<char>(text[at] ^ (1 << pick(8)));
                        }
                        break;
                case 3:
                        text.insert(at, seeds_[pick(seeds_.size())]);
                        break;
                case 4:
                        text.insert(at, text.substr(pick(text.size() + 1)));
                        break;
                default:
                        text.resize(at);
                }
        }

        std::vector<std::string> seeds_;
        std::mt19937 random_{20190101};  // NOLINT: the same texts every time
};

TEST(RequestMutation, HoldsForHalfAMillionTexts) {
        std::vector<std::string> seeds = {"FDSTORE=1\n",  "FDNAME=web\n",      "FDSTOREREMOVE=1\n", "BARRIER=1",
                                          "FDPOLL=0\n",   "FDRETRIEVE=1",      "VERB=list",         "VERB=unregister\n",
                                          "VERB=hold\n",  "TIMEOUT_USEC=90\n", "READY=1\n",         "STATUS=x\n",
                                          "VERB=match\n", "PROTOCOL=tcp\n",    "ADDRESS=::\n",      "PORT=53\n",
                                          "PID=12\n"};
        for (auto& mistake : test::read_mistakes()) {
                if (mistake.text.size() < 200) {
                        seeds.push_back(std::move(mistake.text));
                }
        }
        Mutator mutator(std::move(seeds));
        std::size_t taken = 0;
        for (int i = 0; i < 500'000; i++) {
                const auto text = mutator.next();
                const auto channel = mutator.pick(2) == 0 ? Channel::kNotify : Channel::kControl;
                const std::size_t fds = mutator.pick(8) == 0 ? mutator.pick(300) : mutator.pick(3);
                ASSERT_EQ(test::broken_property(channel, text, fds), "") << testing::PrintToString(text) << ", " << fds;
                taken += parse_request(channel, text, fds) ? 1U : 0U;
        }
        EXPECT_GT(taken, 10'000U) << "too few of the texts are good to say anything of good ones";
}

}  // namespace
}  // namespace sockbroker
