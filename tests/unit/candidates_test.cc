// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What choosing candidate lengths by the first bits of an address costs, and when it is worth it. That candidates never
// lose a rule is shown by compile_test.
#include "broker/dataplane/compile/candidates.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

namespace sockbroker {
namespace {

PrefixCensus census(const std::map<unsigned, std::uint32_t>& of_length,
                    const std::map<unsigned, std::uint32_t>& parted_at) {
        PrefixCensus result;
        for (const auto& [length, count] : of_length) {
                result.of_length.at(length) = count;
        }
        for (const auto& [bits, count] : parted_at) {
                result.parted_at.at(bits) = count;
        }
        return result;
}

struct CostRow {
        std::string what;
        PrefixCensus census;
        unsigned bits = 0;
        double cost = 0;
        std::size_t words = 0;
        unsigned shortest = 0;
};

TEST(Candidates, cost_of_a_number_of_bits) {
        const std::vector<CostRow> rows{
                {"one bit tells nothing of prefixes that begin alike", census({{32, 10}, {24, 10}}, {{20, 19}}), 1, 2,
                 1, 24},
                {"where each has a beginning of its own one probe is left", census({{32, 10}, {24, 10}}, {{20, 19}}),
                 21, 1, 20, 24},
                {"two of each beginning, two probes", census({{32, 100}, {24, 100}}, {{8, 99}, {30, 100}}), 20, 2, 100,
                 24},
                {"never more probes than lengths", census({{32, 1000}}, {{31, 999}}), 8, 1, 1, 32},
                {"a shorter prefix fills the words of all that it covers", census({{32, 1000}, {16, 1}}, {{12, 1000}}),
                 20, 1000.0 / 1001 + 0.5 * 16 / (1001 + 4096), 1001 + 16, 16},
                {"one that would fill too many is always probed", census({{32, 1000}, {8, 2}}, {{12, 1001}}), 20,
                 1000.0 / 1002 + 1, 1002, 32},
                {"one too far from the beginning is, too", census({{64, 1000}, {20, 1}}, {{30, 1000}}), 41,
                 1000.0 / 1001 + 1, 1001, 64},
        };
        for (const CostRow& row : rows) {
                const CandidateCost cost = candidate_cost(row.census, row.bits);
                EXPECT_DOUBLE_EQ(cost.cost, row.cost) << row.what;
                EXPECT_EQ(cost.words, row.words) << row.what;
                EXPECT_EQ(cost.shortest, row.shortest) << row.what;
        }
}

struct PlanRow {
        std::string what;
        PrefixCensus census;
        std::size_t room = 0;
        unsigned bits = 0;
        unsigned shortest = 0;
        std::uint32_t lines = 0;
};

TEST(Candidates, are_chosen_where_they_save_probes) {
        const std::map<unsigned, std::uint32_t> eight{{32, 100}, {31, 100}, {30, 100}, {29, 100},
                                                      {28, 100}, {27, 100}, {26, 100}, {25, 100}};
        const std::vector<PlanRow> rows{
                {"no prefixes", {}, 1000, 0, 0, 0},
                {"three lengths are probed", census({{32, 9}, {24, 9}, {16, 9}}, {{10, 26}}), 1000, 0, 0, 0},
                {"four of few prefixes: few words are never too many",
                 census({{32, 10}, {31, 10}, {30, 10}, {29, 10}}, {{20, 39}}), 1000, 32, 29,
                 (40 + 10 * (2 + 4 + 8)) * 2 / 16 + 1},
                {"four of many are probed, for that does not wait",
                 census({{32, 50000}, {31, 50000}, {30, 50000}, {29, 50000}}, {{20, 199999}}), 100000, 0, 0, 0},
                {"more bits for as long as they tell more", census(eight, {{12, 799}}), 1000, 28, 25,
                 (800 + 100 * (2 + 4 + 8)) * 2 / 16 + 1},
                {"fewer bits where there is less room", census(eight, {{12, 799}}), 70, 13, 25, 70},
                {"less will not", census(eight, {{12, 799}}), 60, 0, 0, 0},
                {"no room", census(eight, {{12, 799}}), 0, 0, 0, 0},
                {"of no use where all stand under one beginning", census(eight, {{31, 7}}), 1000, 0, 0, 0},
        };
        for (const PlanRow& row : rows) {
                const CandidatePlan plan = plan_candidates(row.census, row.room);
                EXPECT_EQ(plan.bits, row.bits) << row.what;
                EXPECT_EQ(plan.shortest, row.shortest) << row.what;
                EXPECT_EQ(plan.lines, row.lines) << row.what;
        }
}

}  // namespace
}  // namespace sockbroker
