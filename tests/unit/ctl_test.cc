// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gtest/gtest.h>
#include <stdlib.h>
#include <time.h>

#include <initializer_list>

#include "broker/ctl/options.h"
#include "broker/ctl/output.h"
#include "broker/ctl/passed.h"
#include "broker/ctl/render.h"
#include "broker/ctl/verbs.h"

namespace sockbroker::ctl {
namespace {

Result<Options> parse(std::initializer_list<const char*> arguments) {
        std::vector<std::string> words = {"sockbrokerctl"};
        words.insert(words.end(), arguments.begin(), arguments.end());
        std::vector<char*> argv;
        for (std::string& word : words) {
                argv.push_back(word.data());
        }
        argv.push_back(nullptr);
        return parse_options(static_cast<int>(words.size()), argv.data());
}

TEST(CtlOptions, DefaultsAreThoseOfTheManual) {
        const Options options = *parse({});
        EXPECT_EQ(options.verb, "status");
        EXPECT_EQ(options.json, JsonMode::kOff);
        EXPECT_TRUE(options.legend);
        EXPECT_TRUE(options.pager);
        EXPECT_EQ(options.config_dir, "");
        EXPECT_EQ(options.runtime_dir, "/run/sockbroker");
        EXPECT_EQ(options.bpffs, "/run/sockbroker/bpf");
        EXPECT_EQ(options.state_dir, "/var/lib/sockbroker");
}

TEST(CtlOptions, MayStandBeforeBetweenAndAfter) {
        for (const auto& options : {*parse({"--json=short", "--runtime-dir", "/a", "unregister", "x"}),
                                    *parse({"unregister", "--json=short", "--runtime-dir", "/a", "x"}),
                                    *parse({"unregister", "x", "--json", "short", "--runtime-dir=/a"})}) {
                EXPECT_EQ(options.verb, "unregister");
                EXPECT_EQ(options.arguments, std::vector<std::string>{"x"});
                EXPECT_EQ(options.json, JsonMode::kShort);
                EXPECT_EQ(options.runtime_dir, "/a");
        }
}

TEST(CtlOptions, EndAtTwoDashes) {
        const Options options = *parse({"--no-pager", "--", "unregister", "--no-legend"});
        EXPECT_EQ(options.verb, "unregister");
        EXPECT_EQ(options.arguments, std::vector<std::string>{"--no-legend"});
        EXPECT_FALSE(options.pager);
        EXPECT_TRUE(options.legend);
}

TEST(CtlOptions, EachReachesItsPlace) {
        const Options options = *parse({"-h", "--version", "--json=pretty", "--no-legend", "--no-pager",
                                        "--config-dir=/c", "--bpffs=/b", "--state-dir=/s"});
        EXPECT_TRUE(options.help);
        EXPECT_TRUE(options.version);
        EXPECT_EQ(options.json, JsonMode::kPretty);
        EXPECT_FALSE(options.legend);
        EXPECT_FALSE(options.pager);
        EXPECT_EQ(options.config_dir, "/c");
        EXPECT_EQ(options.bpffs, "/b");
        EXPECT_EQ(options.state_dir, "/s");
        EXPECT_EQ(parse({"--json=pretty", "--json=off"})->json, JsonMode::kOff);
}

TEST(CtlOptions, MistakesNameTheOption) {
        const auto message = [](std::initializer_list<const char*> arguments) {
                return parse(arguments).error().message;
        };
        EXPECT_EQ(message({"list", "--json=long"}), "cannot print JSON as \"long\", write --json=short, pretty or off");
        EXPECT_EQ(message({"list", "--json"}), "option --json wants a value");
        EXPECT_EQ(message({"--runtime-dir="}), "option --runtime-dir wants a directory");
        EXPECT_EQ(message({"-x"}), "option -x is unknown, ambiguous, or takes no value, see --help");
        EXPECT_EQ(message({"--frob"}), "option --frob is unknown, ambiguous, or takes no value, see --help");
        EXPECT_EQ(message({"--no"}), "option --no is unknown, ambiguous, or takes no value, see --help");
        EXPECT_EQ(message({"--no-pager=1"}),
                  "option --no-pager=1 is unknown, ambiguous, or takes no value, see --help");
        EXPECT_EQ(message({"--\x1b[2J"}), "option --\\x1b[2J is unknown, ambiguous, or takes no value, see --help");
}

TEST(CtlHelp, NamesEveryVerb) {
        for (const Verb& verb : verbs()) {
                EXPECT_NE(help_text().find("\n  " + std::string(verb.synopsis) + " "), std::string::npos) << verb.name;
        }
}

using Fds = std::vector<int>;

TEST(CtlRegister, WithoutAServiceEachNameIsOne) {
        const auto handouts = *hand_out({{3, "dns"}, {4, "web"}, {5, "dns"}}, "");
        ASSERT_EQ(handouts.size(), 2U);
        EXPECT_EQ(handouts[0].service, "dns");
        EXPECT_EQ(handouts[0].fds, (Fds{3, 5}));
        EXPECT_EQ(handouts[1].service, "web");
        EXPECT_EQ(handouts[1].fds, (Fds{4}));
}

TEST(CtlRegister, WithAServiceAllSocketsGoToItWhateverTheirNames) {
        const auto handouts = *hand_out({{3, "unknown"}, {4, "a b"}}, "dns");
        ASSERT_EQ(handouts.size(), 1U);
        EXPECT_EQ(handouts[0].service, "dns");
        EXPECT_EQ(handouts[0].fds, (Fds{3, 4}));
}

TEST(CtlRegister, ANameThatIsNoServiceTellsOfFileDescriptorName) {
        for (const char* name : {"unknown", "", "a b", "x@1.service"}) {
                const auto handouts = hand_out({{3, "dns"}, {4, name}}, "");
                ASSERT_FALSE(handouts) << name;
                EXPECT_NE(handouts.error().message.find("set FileDescriptorName=SERVICE in its .socket unit"),
                          std::string::npos)
                        << handouts.error().message;
        }
        EXPECT_NE(name_hint("foo.socket").find("set FileDescriptorName=SERVICE there"), std::string::npos);
        EXPECT_EQ(name_hint("foo"), "");
}

TEST(CtlRegister, AServiceThatCannotBeIsAnError) {
        EXPECT_EQ(hand_out({{3, "dns"}}, "a/b").error().message,
                  "\"a/b\" cannot be a service, names are 1 to 40 of A-Z a-z 0-9 . _ -");
}

TEST(CtlTable, ColumnsAreAsWideAsTheirWidestCell) {
        Table table({{"SERVICE"}, {"UID", true}, {"STATE"}});
        table.add({"dns", "61001", "live"});
        table.add({"tcp-proxy", "0", "-"});
        table.add({"Bär", "7", ""});
        EXPECT_EQ(table.render(true, false),
                  "SERVICE     UID STATE\n"
                  "dns       61001 live\n"
                  "tcp-proxy     0 -\n"
                  "Bär           7\n");
        EXPECT_EQ(table.render(false, true),
                  "dns       61001 live\n"
                  "tcp-proxy     0 -\n"
                  "Bär           7\n");
        EXPECT_EQ(table.render(true, true).substr(0, 29), "\x1b[1mSERVICE     UID STATE\x1b[0m");
}

TEST(CtlTable, TheWidestTextIsCutWhereTheTerminalEnds) {
        Table table({{"SERVICE"}, {"UID", true}, {"UNIT"}});
        table.add({"web", "61001", "a-very-long-name-of-a-unit.service"});
        table.add({"dns", "0", "dns.service"});
        const std::string whole = table.render(true, false);
        EXPECT_EQ(table.render(true, false, 100), whole);
        EXPECT_EQ(table.render(true, false, 48), whole);
        EXPECT_EQ(table.render(true, false, 30),
                  "SERVICE   UID UNIT\n"
                  "web     61001 a-very-long-nam…\n"
                  "dns         0 dns.service\n");
        EXPECT_EQ(table.render(false, false, 5),
                  "web 61001 a-very-…\n"
                  "dns     0 dns.ser…\n")
                << "what is short, and numbers, stay";
        Table wide({{"SERVICE"}});
        wide.add({"ääääääääääää"});
        EXPECT_EQ(wide.render(false, false, 10), "äääääääää…\n");
}

TEST(CtlTable, ManyRowsAreTheSameLines) {
        Table table({{"SERVICE"}, {"NOTE", false, true}, {"UID", true}});
        std::string expected = "SERVICE               UID\n";
        for (int i = 0; i < 100'000; i++) {  // more than is kept in memory
                table.add({"a-name-of-a-service", "-", std::to_string(100'000 + i)});
                expected += "a-name-of-a-service " + std::to_string(100'000 + i) + "\n";
        }
        EXPECT_EQ(table.rows(), 100'000U);
        EXPECT_EQ(table.render(true, false), expected.replace(0, 26, "SERVICE                UID\n"))
                << "without the column in which nobody has anything";
        table.add({"x", "y", "1"});
        EXPECT_TRUE(table.render(true, false).starts_with("SERVICE             NOTE    UID\n")) << "again, and with it";
}

TEST(CtlTable, AFieldIsFoundWithoutParsing) {
        constexpr std::string_view kLine =
                R"({"service":"dns","prefix":null,"file":"a \"prefix\":\"x\" b","n":1,"odd":"\u0041"})";
        EXPECT_EQ(quick_field(kLine, "service"), "dns");
        EXPECT_EQ(quick_field(kLine, "prefix"), "");
        EXPECT_EQ(quick_field(R"({"file":"a \"prefix\":\"x\" b","prefix":"y"})", "prefix"), "y");
        EXPECT_EQ(quick_field(kLine, "n"), "1");
        for (const auto* field : {"odd", "file", "missing"}) {
                EXPECT_FALSE(quick_field(kLine, field)) << field;
        }
        EXPECT_FALSE(quick_field(R"({"service":"cut)", "service"));
}

TEST(CtlTable, ARowBecomesCells) {
        const Json row = *parse_row(R"({"service":"d\u001bns","unit":null,"uid":61001})");
        EXPECT_EQ(cell(row, "service"), "d\\x1bns");
        EXPECT_EQ(cell(row, "unit"), "-");
        EXPECT_EQ(cell(row, "unit", "any"), "any");
        EXPECT_EQ(cell(row, "uid"), "61001");
        EXPECT_EQ(cell(row, "missing"), "-");
        EXPECT_FALSE(parse_row("{\"service\":"));
        EXPECT_FALSE(parse_row("[1]"));
}

TEST(CtlTable, TimesAreWrittenAsSystemctlDoes) {
        ::setenv("TZ", "UTC", 1);
        ::tzset();
        EXPECT_EQ(format_time(1'709'528'767'654'321), "Mon 2024-03-04 05:06:07 UTC");
        EXPECT_EQ(format_time(0), "-");
}

TEST(CtlTable, CountsHaveAPlural) {
        EXPECT_EQ(count(0, "socket"), "0 sockets");
        EXPECT_EQ(count(1, "socket"), "1 socket");
        EXPECT_EQ(count(2, "socket"), "2 sockets");
}

std::string array_of(JsonMode mode, std::initializer_list<const char*> lines) {
        Output output({});
        testing::internal::CaptureStdout();
        JsonArray array(output, mode);
        for (const char* line : lines) {
                array.add_line(line);
        }
        array.close();
        EXPECT_EQ(output.finish(kExitOk), kExitOk);
        return testing::internal::GetCapturedStdout();
}

TEST(CtlJson, ShortIsOneLineWithTheFieldsInTheirOrder) {
        EXPECT_EQ(array_of(JsonMode::kShort, {}), "[]\n");
        EXPECT_EQ(array_of(JsonMode::kShort, {R"({"b":1,"a":null})", R"({"b":2,"a":"x"})"}),
                  R"([{"b":1,"a":null},{"b":2,"a":"x"}])"
                  "\n");
}

TEST(CtlJson, PrettyIsIndentedWithTheFieldsInTheirOrder) {
        EXPECT_EQ(array_of(JsonMode::kPretty, {}), "[]\n");
        EXPECT_EQ(array_of(JsonMode::kPretty, {R"({"b":1,"a":"x\ny"})", R"({"b":2})"}),
                  "[\n"
                  "\t{\n"
                  "\t\t\"b\": 1,\n"
                  "\t\t\"a\": \"x\\ny\"\n"
                  "\t},\n"
                  "\t{\n"
                  "\t\t\"b\": 2\n"
                  "\t}\n"
                  "]\n");
}

TEST(CtlJson, EscapesWhatATerminalWouldObey) {
        const std::string escaped = R"([{"a":"\u001b[2J\u202e\u009b\u007f"}])"
                                    "\n";
        EXPECT_EQ(array_of(JsonMode::kShort, {"{\"a\":\"\\u001b[2J\u202e\xc2\x9b\x7f\"}"}), escaped);
        EXPECT_EQ(dump(Json::parse("{\"a\":\"\u202e\x7f\"}"), JsonMode::kPretty),
                  "{\n\t\"a\": \"\\u202e\\u007f\"\n}\n");
}

TEST(CtlDiagnostics, SayFileLineAndWhetherItIsAWarning) {
        const Diagnostic error{.file = "/a.conf", .line = 3, .severity = Severity::kError, .message = "bad"};
        const Diagnostic warning{.file = "/a.conf", .line = 4, .severity = Severity::kWarning, .message = "odd"};
        EXPECT_EQ(to_line(error), "/a.conf:3: bad");
        EXPECT_EQ(to_line(warning), "/a.conf:4: warning: odd");
        EXPECT_EQ(dump(to_json(error), JsonMode::kShort),
                  R"({"file":"/a.conf","line":3,"severity":"error","message":"bad"})"
                  "\n");
        EXPECT_EQ(to_json(warning)["severity"], "warning");
}

}  // namespace
}  // namespace sockbroker::ctl
