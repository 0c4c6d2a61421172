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
        EXPECT_EQ(options->services, (std::vector<std::string>{"web"}));
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
                {{"--service=web", "--listen-stream=::1:0", "true"},
                 "cannot listen there: \"::1:0\" is not ADDRESS:PORT (IPv6 addresses stand in brackets)"},
                {{"--service=web", "--listen-stream=a b=127.0.0.1:0", "true"},
                 "\"a b\" cannot be a service, names are 1 to 40 of A-Z a-z 0-9 . _ -"},
                {{"--service=web", "--service=tls", "--listen-stream=127.0.0.1:0", "true"},
                 "with several --service= each socket says whose it is, as in: "
                 "--listen-stream=NAME=127.0.0.1:8080"},
                {{"--listen-stream=web=127.0.0.1:0", "--listen-datagram=127.0.0.1:53", "true"},
                 "sockets of --listen-stream= and --listen-datagram= need --service=NAME to be registered"},
                {{"--runtime-dir=", "true"}, "option --runtime-dir wants a directory"},
                {{"--bind=tcp:80", "true"}, "options --bind, --asked-names and --user-namespace are for --supervise"},
                {{"--supervise", "--bind=80", "true"},
                 "--bind= wants PROTO:PORTS, as in tcp:80, udp:* or tcp:8000-8999"},
                {{"--supervise", "--user-namespace=maybe", "true"}, "option --user-namespace wants auto, yes or no"},
                {{"--supervise", "--service=web", "--retrieve", "true"},
                 "with --supervise the program makes its sockets itself, and held ones take their place: it excludes "
                 "--retrieve, --listen-stream and --listen-datagram"},
        };
        for (const auto& [words, wanted] : table) {
                const auto options = parse(words);
                ASSERT_FALSE(options) << wanted;
                EXPECT_EQ(options.error().text(), wanted);
        }
}

using Handouts = std::vector<std::pair<std::string, std::vector<std::size_t>>>;

Options naming(std::vector<std::string> services, const std::string& of_listen = "") {
        Options options;
        options.services = std::move(services);
        if (!of_listen.empty()) {
                options.listens.push_back({.protocol = Protocol::kTcp, .at = {}, .service = of_listen});
        }
        return options;
}

TEST(LauncherOptions, SocketsAreOfTheServiceBeforeTheirAddress) {
        const auto options = parse({"--listen-stream=web=127.0.0.1:80", "--listen-datagram=dns=[::1]:0", "server"});
        ASSERT_TRUE(options) << options.error().text();
        EXPECT_EQ(options->listens[0].service, "web");
        EXPECT_EQ(options->listens[0].at.to_string(), "127.0.0.1:80");
        EXPECT_EQ(options->listens[1].service, "dns");
        EXPECT_EQ(options->listens[1].at.to_string(), "[::1]:0");
        EXPECT_EQ(named_services(*options), (std::vector<std::string>{"web", "dns"}));
}

TEST(LauncherOptions, AV4MappedAddressIsOneToListenAt) {
        for (const std::string port : {"0", "8080"}) {
                const auto options = parse({"--service=web", "--listen-stream=[::ffff:127.0.0.1]:" + port, "server"});
                ASSERT_TRUE(options) << options.error().text();
                EXPECT_EQ(options->listens[0].at.to_string(), "[::ffff:127.0.0.1]:" + port);
        }
        EXPECT_FALSE(parse({"--service=web", "--listen-stream=[::ffff:127.0.0.1]:x", "server"}));
        EXPECT_FALSE(parse({"--service=web", "--listen-stream=::ffff:127.0.0.1:80", "server"}));
}

TEST(LauncherHandOut, GivesAllToTheServiceThatIsNamed) {
        EXPECT_EQ(hand_out({"x.socket", "unknown", "dns"}, naming({"web"})), (Handouts{{"web", {0, 1, 2}}}));
        EXPECT_EQ(hand_out({}, naming({"web"})), Handouts{});
}

TEST(LauncherHandOut, OfSeveralServicesEachSocketIsTheOneItIsNamedAfter) {
        EXPECT_EQ(hand_out({"tls", "web", "dns", "tls"}, naming({"web", "tls"})),
                  (Handouts{{"tls", {0, 3}}, {"web", {1}}}));
        EXPECT_EQ(hand_out({"x.socket", "tls"}, naming({"web"}, "tls")), (Handouts{{"web", {0}}, {"tls", {1}}}));
        EXPECT_NE(why_left_out("dns", naming({"web", "tls"})), "");
        EXPECT_EQ(why_left_out("web", naming({"web", "tls"})), "");
}

TEST(LauncherHandOut, GoesByTheNamesOfTheSocketsThatCanBeServices) {
        EXPECT_EQ(hand_out({"dns", "web", "dns"}, {}), (Handouts{{"dns", {0, 2}}, {"web", {1}}}));
        EXPECT_EQ(hand_out({"unknown", "stored", "connection", "x.socket", "x.service", "", "a b"}, {}), Handouts{});
}

TEST(LauncherHandOut, TellsOfANameThatSystemdGaveByItself) {
        for (const std::string name : {"x.socket", "connection", "stored", "x.service"}) {
                EXPECT_NE(why_left_out(name, {}), "") << name;
                EXPECT_EQ(why_left_out(name, naming({"web"})), "") << name;
        }
        EXPECT_EQ(why_left_out("unknown", {}), "") << "what nobody named is the program's alone";
}

}  // namespace
}  // namespace sockbroker::launcher
