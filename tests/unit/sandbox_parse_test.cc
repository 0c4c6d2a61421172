// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The text of seccomp profiles: what lines mean, how files add up, and every mistake with its message to the letter.
#include <gtest/gtest.h>

#include "sandbox/parse.h"

namespace sockbroker::sandbox {
namespace {

Result<ProfileFile> none(const std::string& name) {
        return fail(ENOENT, "no profile " + name);
}

ParsedProfile parse(const std::vector<std::string>& texts, const FindProfile& find = none) {
        std::vector<ProfileFile> files;
        for (const std::string& text : texts) {
                files.push_back({"f" + std::to_string(files.size()), text});
        }
        return parse_profile("test", files, find);
}

std::string dumped(const std::vector<std::string>& texts, const FindProfile& find = none) {
        const ParsedProfile parsed = parse(texts, find);
        std::string text;
        for (const Diagnostic& error : parsed.errors) {
                text += error.to_string() + "\n";
        }
        return parsed.profile ? dump(*parsed.profile) : text;
}

const std::string kDefaults = "default: errno ENOSYS\narguments: errno EPERM\nforeign: errno ENOSYS\n";

struct Mistake {
        std::string text;
        std::string error;
};

class ProfileMistake : public testing::TestWithParam<Mistake> {};

TEST_P(ProfileMistake, IsRefusedWithFileLineAndReason) {
        const ParsedProfile parsed = parse({GetParam().text});
        EXPECT_FALSE(parsed.profile);
        ASSERT_EQ(parsed.errors.size(), 1U);
        EXPECT_EQ(parsed.errors[0].to_string(), GetParam().error);
}

INSTANTIATE_TEST_SUITE_P(
        Table, ProfileMistake,
        testing::Values(
                Mistake{"", "f0: the profile names no call"},
                Mistake{"# only words\n", "f0: the profile names no call"},
                Mistake{"permit read\n", "f0:1: \"permit\" is no action, they are allow, log, errno NAME and kill"},
                Mistake{"allow read\nallow raed\n", "f0:2: \"raed\" is a system call of no architecture"},
                Mistake{"allow\n", "f0:1: a system call is missing after allow"},
                Mistake{"errno read\n", "f0:1: \"errno\" is followed by a name as in errno(3), not by \"read\""},
                Mistake{"errno EWHATEVER read\n",
                        "f0:1: \"errno\" is followed by a name as in errno(3), not by \"EWHATEVER\""},
                Mistake{"errno 1 read\n", "f0:1: \"errno\" is followed by a name as in errno(3), not by \"1\""},
                Mistake{"errno\n", "f0:1: \"errno\" is followed by a name as in errno(3), not by the end of the line"},
                Mistake{"allow read read\n", "f0:1: \"read\" stands twice on this line"},
                Mistake{"allow read\nallow write read\n", "f0:2: line 1 says of \"read\" already: allow"},
                Mistake{"allow read\nerrno EPERM read\n", "f0:2: line 1 says of \"read\" already: allow"},
                Mistake{"kill read\nallow read\n", "f0:2: line 1 says of \"read\" already: kill"},
                Mistake{"allow read\nallow read arg0 == 1\n", "f0:2: line 1 says of \"read\" already: allow"},
                Mistake{"allow read arg0 == 1\nallow read\n",
                        "f0:2: line 1 says of \"read\" already: allow with conditions, which this would undo"},
                Mistake{"allow socket bind arg0 == AF_UNIX\n",
                        "f0:1: conditions go with \"allow\" and one call; what no line allows gets the action after "
                        "\"arguments:\""},
                Mistake{"errno EPERM socket arg0 == AF_UNIX\n",
                        "f0:1: conditions go with \"allow\" and one call; what no line allows gets the action after "
                        "\"arguments:\""},
                Mistake{"allow socket arg6 == AF_UNIX\n",
                        "f0:1: \"arg6\" is no argument, they are arg0 to arg5 (arg0:64 for all 64 bits of it)"},
                Mistake{"allow socket arg0:32 == AF_UNIX\n",
                        "f0:1: \"arg0:32\" is no argument, they are arg0 to arg5 (arg0:64 for all 64 bits of it)"},
                Mistake{"allow socket arg0\n", "f0:1: arg0 is followed by ==, in, & or !&, not by the end of the line"},
                Mistake{"allow socket arg0 == AF_UNIX arg1 == 1\n",
                        "f0:1: conditions are joined by \"and\", not by \"arg1\""},
                Mistake{"allow socket arg0 == AF_UNIX and arg0 == AF_INET\n",
                        "f0:1: arg0 stands twice on this line, use in {...} or a mask"},
                Mistake{"allow socket arg0 == AF_UNICS\n",
                        "f0:1: \"AF_UNICS\" is neither a number nor a constant that profiles know"},
                Mistake{"allow socket arg0 == -1\n",
                        "f0:1: \"-1\" is neither a number nor a constant that profiles know"},
                Mistake{"allow socket arg0 == 0x\n",
                        "f0:1: \"0x\" is neither a number nor a constant that profiles know"},
                Mistake{"allow socket arg0 ==\n", "f0:1: \"\" is neither a number nor a constant that profiles know"},
                Mistake{"allow socket arg0 in AF_UNIX\n",
                        "f0:1: \"in\" is followed by {VALUE, ...}, not by \"AF_UNIX\""},
                Mistake{"allow socket arg0 in {AF_UNIX AF_INET}\n",
                        "f0:1: values in {} are separated by commas, \"AF_INET\" is unexpected"},
                Mistake{"allow socket arg0 in {AF_UNIX, AF_INET\n",
                        "f0:1: values in {} are separated by commas, the end of the line is unexpected"},
                Mistake{"allow socket arg0 in {AF_UNIX, 1}\n", "f0:1: arg0 in {AF_UNIX, 1} names a value twice"},
                Mistake{"allow socket arg0 != AF_PACKET\n",
                        "f0:1: \"!\" in column 19 has no meaning here; conditions are ==, in {...}, & MASK == and !& "
                        "MASK"},
                Mistake{"allow socket arg0 < 3\n",
                        "f0:1: \"<\" in column 19 has no meaning here; conditions are ==, in {...}, & MASK == and !& "
                        "MASK"},
                Mistake{"allow socket arg1 & 0xf == 0x10\n",
                        "f0:1: arg1 & 0xf == 0x10 never holds: 0x10 has bits outside 0xf"},
                Mistake{"allow socket arg1 == 0x100000000\n",
                        "f0:1: arg1 == 0x100000000 never holds: 0x100000000 has bits outside 0xffffffff"},
                Mistake{"allow socket arg1 & 0 == 0\n", "f0:1: the mask 0 has no bit"},
                Mistake{"allow socket arg1 & 0x100000000 == 0\n",
                        "f0:1: the mask 0x100000000 has more than 32 bits, which needs argN:64"},
                Mistake{"default: allow\nallow read\n",
                        "f0:1: a profile names what it allows, so this cannot be \"allow\"; \"log\" is for a trial"},
                Mistake{"default: errno EPERM read\nallow read\n", "f0:1: \"read\" after the action"},
                Mistake{"default: kill\ndefault: kill\nallow read\n", "f0:2: this was said in an earlier line already"},
                Mistake{"default kill\nallow read\n",
                        "f0:1: \"default\" is no action, they are allow, log, errno NAME and kill"},
                Mistake{"allow read\ninclude base\n", "f0:2: \"include\" is the first line, and there is one"},
                Mistake{"include ../../etc/shadow\nallow read\n",
                        "f0:1: \"/\" in column 11 has no meaning here; conditions are ==, in {...}, & MASK == and !& "
                        "MASK"},
                Mistake{"include base.profile\nallow read\n",
                        "f0:1: \"include\" is followed by the name of one profile, without its directory and .profile"},
                Mistake{"include base\nallow read\n", "f0:1: no profile base: No such file or directory"},
                Mistake{std::string("allow read\0\n", 12), "f0:1: byte 0x00 in column 11"},
                Mistake{"allow read\r\n", "f0:1: byte 0x0d in column 11"},
                Mistake{"allow read;write\n",
                        "f0:1: \";\" in column 11 has no meaning here; conditions are ==, in {...}, & MASK == and !& "
                        "MASK"},
                Mistake{"allow read # " + std::string(5000, 'x') + "\n", "f0:1: the line has more than 4096 bytes"}));

TEST(SandboxParse, EveryErrorIsReportedNotJustTheFirst) {
        const ParsedProfile parsed = parse({"allow raed\nallow wriet\n", "permit x\n"});
        ASSERT_EQ(parsed.errors.size(), 3U);
        EXPECT_EQ(parsed.errors[1].to_string(), "f0:2: \"wriet\" is a system call of no architecture");
        EXPECT_EQ(parsed.errors[2].file, "f1");
}

TEST(SandboxParse, CallsOfOtherArchitecturesAreNoMistake) {
        // socketcall is one of i386 and s390, kexec_file_load one of few.
        EXPECT_EQ(dumped({"allow socketcall read\n"}), kDefaults + "allow read\nallow socketcall\n");
}

TEST(SandboxParse, LinesOfConditionsAreAlternativesAndThoseOfOneLineHoldTogether) {
        const ParsedProfile parsed =
                parse({"allow socket arg0 in {AF_INET, AF_INET6} and arg1 & SOCK_TYPE_MASK == "
                       "SOCK_STREAM\nallow socket arg0 == AF_UNIX  # any type\n"});
        ASSERT_TRUE(parsed.profile);
        const auto decide = [&](std::uint64_t domain, std::uint64_t type) {
                return parsed.profile->decide("socket", {domain, type}).to_string();
        };
        EXPECT_EQ(decide(1, 5), "allow");
        EXPECT_EQ(decide(2, 1 | 02000000), "allow");
        EXPECT_EQ(decide(10, 1), "allow");
        EXPECT_EQ(decide(2, 3), "errno EPERM");
        EXPECT_EQ(decide(17, 1), "errno EPERM");
        // The kernel takes an int: the upper half of the register is not looked at, by it or by us.
        EXPECT_EQ(decide(0xdead'0000'0001, 5), "allow");
        EXPECT_EQ(decide(0xdead'0000'0011, 5), "errno EPERM");
        EXPECT_EQ(parsed.profile->decide("bind", {}).to_string(), "errno ENOSYS");
        EXPECT_EQ(parsed.profile->rules.at("socket").lines[1].comment, "any type");
        EXPECT_EQ(parsed.profile->rules.at("socket").lines[1].number, 2U);
}

TEST(SandboxParse, AllSixtyFourBitsCountWhereTheProfileSaysSo) {
        const ParsedProfile parsed =
                parse({"allow clone arg0:64 & 0xffffffff10000000 == 0\nallow read arg2:64 == "
                       "0x100000001\n"});
        ASSERT_TRUE(parsed.profile);
        EXPECT_EQ(parsed.profile->decide("clone", {0x0fffffff}).to_string(), "allow");
        EXPECT_EQ(parsed.profile->decide("clone", {0x100000000}).to_string(), "errno EPERM");
        EXPECT_EQ(parsed.profile->decide("read", {0, 0, 0x100000001}).to_string(), "allow");
        EXPECT_EQ(parsed.profile->decide("read", {0, 0, 1}).to_string(), "errno EPERM");
}

TEST(SandboxParse, LaterFilesAddTakeBackAndGiveBack) {
        EXPECT_EQ(dumped({"allow socket arg0 == AF_UNIX\nallow read\n", "allow socket arg0 == AF_INET\n"}),
                  kDefaults + "allow read\nallow socket arg0 == AF_INET\nallow socket arg0 == AF_UNIX\n");
        EXPECT_EQ(dumped({"allow socket arg0 == AF_UNIX\nallow read\n", "allow socket\n"}),
                  kDefaults + "allow read\nallow socket\n");
        EXPECT_EQ(dumped({"allow socket arg0 == AF_UNIX\nallow read\n", "errno EACCES socket\n"}),
                  kDefaults + "allow read\nerrno EACCES socket\n");
        EXPECT_EQ(dumped({"allow read\nerrno EACCES socket\n", "allow socket arg0 == AF_UNIX\n"}),
                  kDefaults + "allow read\nallow socket arg0 == AF_UNIX\n");
        EXPECT_EQ(dumped({"default: kill\nallow read\n", "default: log\narguments: kill\nforeign: kill\n"}),
                  "default: log\narguments: kill\nforeign: kill\nallow read\n");
}

TEST(SandboxParse, AnIncludedProfileComesFirst) {
        const FindProfile find = [](const std::string& name) -> Result<ProfileFile> {
                if (name == "base") {
                        return ProfileFile{"base.profile", "include deeper\nallow bind\n"};
                }
                if (name == "deeper") {
                        return ProfileFile{"deeper.profile", "allow read\n"};
                }
                return ProfileFile{name, "include " + name + "\nallow read\n"};
        };
        EXPECT_EQ(dumped({"include base\nerrno EPERM bind\n"}, find), kDefaults + "errno EPERM bind\nallow read\n");
        EXPECT_EQ(dumped({"include itself\n"}, find), "itself:1: profiles include each other more than 4 deep\n");
}

}  // namespace
}  // namespace sockbroker::sandbox
