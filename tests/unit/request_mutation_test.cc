// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The property that the fuzzer checks, for half a million texts made from good and bad ones.
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/fuzz/request_property.h"
#include "tests/unit/support/mistakes.h"
#include "tests/unit/support/mutator.h"

namespace sockbroker {
namespace {

class RequestMutator : public test::Mutator {
public:
        explicit RequestMutator(std::vector<std::string> seeds)
                : Mutator(std::move(seeds), std::string_view("\n=\0 10Az_\xff", 10), 3, 5000) {}

private:
        [[nodiscard]] std::size_t own_steps() const override { return 1; }

        void own_step(std::size_t, std::string& text, std::size_t at) override {
                text.insert(at, text.substr(pick(text.size() + 1)));
        }
};

TEST(RequestMutation, HoldsForHalfAMillionTexts) {
        std::vector<std::string> seeds = {"FDSTORE=1\n",  "FDNAME=web\n",      "FDSTOREREMOVE=1\n", "BARRIER=1",
                                          "FDPOLL=0\n",   "FDRETRIEVE=1",      "VERB=list",         "VERB=unregister\n",
                                          "VERB=hold\n",  "TIMEOUT_USEC=90\n", "READY=1\n",         "STATUS=x\n",
                                          "VERB=match\n", "PROTOCOL=tcp\n",    "ADDRESS=::\n",      "PORT=53\n",
                                          "PID=12\n",     "INHERIT=1\n",       "FAMILY=ipv4\n",     "MIGRATE=1\n"};
        for (auto& mistake : test::read_mistakes()) {
                if (mistake.text.size() < 200) {
                        seeds.push_back(std::move(mistake.text));
                }
        }
        RequestMutator mutator(std::move(seeds));
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
