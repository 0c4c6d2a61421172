// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The table of policy mistakes, each with every one of its messages to the letter. It is data, so that tests against
// a running daemon use the same one.
#include <fstream>
#include <map>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "broker/policy/parse.h"

namespace sockbroker {
namespace {

struct Mistake {
        std::string name;
        std::map<std::string, std::string> files;
        std::vector<std::string> errors;
        PolicyLimits limits;
};

std::vector<Mistake> read_table() {
        std::ifstream stream(SOCKBROKER_SOURCE_ROOT "/tests/data/policy_mistakes.json");
        std::vector<Mistake> table;
        for (const auto& entry : nlohmann::json::parse(stream)) {
                Mistake mistake{entry.at("name"), entry.at("files"), entry.at("errors"), {}};
                const auto limits = entry.value("limits", nlohmann::json::object());
                mistake.limits.max_bindings = limits.value("MaxBindings", mistake.limits.max_bindings);
                mistake.limits.max_services = limits.value("MaxServices", mistake.limits.max_services);
                mistake.limits.max_accounted = limits.value("MaxAccountedBindings", mistake.limits.max_accounted);
                table.push_back(std::move(mistake));
        }
        return table;
}

class PolicyMistake : public testing::TestWithParam<Mistake> {};

TEST_P(PolicyMistake, IsRefusedWithEachOfItsErrors) {
        std::vector<PolicyFile> files;
        for (const auto& [path, text] : GetParam().files) {
                files.push_back({path, text});
        }
        const auto parsed = parse_policy(files, GetParam().limits);
        std::vector<std::string> errors;
        for (const auto& diagnostic : parsed.diagnostics) {
                EXPECT_EQ(diagnostic.severity, Severity::kError) << diagnostic.to_string();
                errors.push_back(diagnostic.to_string());
        }
        EXPECT_EQ(errors, GetParam().errors);
        EXPECT_FALSE(parsed.policy) << "taken whole or not at all";
}

INSTANTIATE_TEST_SUITE_P(Table, PolicyMistake, testing::ValuesIn(read_table()),
                         [](const auto& tested) { return tested.param.name; });

TEST(PolicyMistakes, AreManyAndEachIsAMistake) {
        const auto table = read_table();
        EXPECT_GE(table.size(), 40U);
        for (const auto& mistake : table) {
                EXPECT_FALSE(mistake.errors.empty()) << mistake.name;
        }
}

// Bytes that JSON cannot carry.
TEST(PolicyMistakes, BytesThatAreNoTextAreErrorsWithTheirColumn) {
        const auto parsed = parse_policy({{"50-x.conf", "[Service a]\nUser=w\xff"}}, {});
        ASSERT_EQ(parsed.diagnostics.size(), 1U);
        EXPECT_EQ(parsed.diagnostics[0].to_string(),
                  "50-x.conf:2: byte 0xff in column 7, outside comments only printable ASCII is taken");
}

}  // namespace
}  // namespace sockbroker
