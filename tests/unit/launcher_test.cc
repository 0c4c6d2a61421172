// SPDX-License-Identifier: LGPL-2.1-or-later
//
// sockbroker-run's pure parts: its command line, and which sockets go to which service.
#include <gtest/gtest.h>

#include "sandbox/run/handover.h"
#include "sandbox/run/options.h"

namespace sockbroker::launcher {
namespace {

Result<Options> parse(std::vector<std::string> words) {
        words.insert(words.begin(), "sockbroker-run");
        std::vector<char*> pointers;
        for (std::string& word : words) {
                pointers.push_back(word.data());
        }
        pointers.push_back(nullptr);
        return parse_options(static_cast<int>(words.size()), pointers.data());
}

TEST(LauncherOptions, AreTakenUpToTheProgramAndTheRestIsItsOwn) {
        const auto options = parse({"--profile=strict", "--service=web", "--retrieve", "--listen-stream=127.0.0.1:0",
                                    "--listen-datagram=[::1]:53", "--runtime-dir=/r", "server", "--service=x", "-h"});
        ASSERT_TRUE(options) << options.error().text();
        EXPECT_EQ(options->profile, "strict");
        EXPECT_EQ(options->service, "web");
        EXPECT_TRUE(options->retrieves && options->registers);
        EXPECT_EQ(options->runtime_dir, "/r");
        ASSERT_EQ(options->listens.size(), 2U);
        EXPECT_EQ(options->listens[0].protocol, Protocol::kTcp);
        EXPECT_EQ(options->listens[0].at.port, 0);
        EXPECT_EQ(options->listens[1].protocol, Protocol::kUdp);
        EXPECT_EQ(options->listens[1].at.to_string(), "[::1]:53");
        EXPECT_EQ(options->command, (std::vector<std::string>{"server", "--service=x", "-h"}));
}

TEST(LauncherOptions, AMistakeIsSaidWithWhatToWrite) {
        const std::vector<std::pair<std::vector<std::string>, std::string>> table = {
                {{}, "a program is missing, as in: sockbroker-run --service=web /usr/bin/server"},
                {{"--dump", "true"}, "option --dump runs no program"},
                {{"--nosuch", "true"}, "option --nosuch is unknown, ambiguous, or takes no value, see --help"},
                {{"-x", "true"}, "option -x is unknown, ambiguous, or takes no value, see --help"},
                {{"--service"}, "option --service wants a value"},
                {{"--service=a b", "true"}, "\"a b\" cannot be a service, names are 1 to 40 of A-Z a-z 0-9 . _ -"},
                {{"--retrieve", "true"}, "option --retrieve needs --service=NAME, the service whose sockets are held"},
                {{"--retrieve", "--service=web", "--no-register", "true"},
                 "option --retrieve registers what it gets, so it excludes --no-register"},
                {{"--listen-stream=127.0.0.1:80", "true"},
                 "sockets of --listen-stream= and --listen-datagram= need --service=NAME to be registered"},
                {{"--service=web", "--listen-stream=80", "true"}, "cannot listen there: \"80\" is not ADDRESS:PORT"},
                {{"--service=web", "--listen-stream=::1:80", "true"},
                 "cannot listen there: \"::1:80\" is not ADDRESS:PORT (IPv6 addresses stand in brackets)"},
                {{"--runtime-dir=", "true"}, "option --runtime-dir wants a directory"},
        };
        for (const auto& [words, wanted] : table) {
                const auto options = parse(words);
                ASSERT_FALSE(options) << wanted;
                EXPECT_EQ(options.error().text(), wanted);
        }
}

using Handouts = std::vector<std::pair<std::string, std::vector<std::size_t>>>;

TEST(LauncherHandOut, GivesAllToTheServiceThatIsNamed) {
        EXPECT_EQ(hand_out({"x.socket", "unknown", "dns"}, "web"), (Handouts{{"web", {0, 1, 2}}}));
        EXPECT_EQ(hand_out({}, "web"), Handouts{});
}

TEST(LauncherHandOut, GoesByTheNamesOfTheSocketsThatCanBeServices) {
        EXPECT_EQ(hand_out({"dns", "web", "dns"}, ""), (Handouts{{"dns", {0, 2}}, {"web", {1}}}));
        EXPECT_EQ(hand_out({"unknown", "stored", "x.socket", "x.service", "", "a b"}, ""), Handouts{});
}

}  // namespace
}  // namespace sockbroker::launcher
