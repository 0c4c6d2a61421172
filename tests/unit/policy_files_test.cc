// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which files count, against a real file system: directories, masking, what is no regular file; the copy of the policy;
// sockbrokerd.conf.
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "broker/base/directories.h"
#include "broker/policy/files.h"
#include "broker/policy/read_files.h"

namespace sockbroker {
namespace {

namespace fs = std::filesystem;
using Strings = std::vector<std::string>;

class PolicyFiles : public testing::Test {
protected:
        void SetUp() override {
                std::string pattern = testing::TempDir() + "policy_files_XXXXXX";
                ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
                root_ = pattern;
                for (const char* folder : {"etc", "run", "lib"}) {
                        dirs_.push_back(root_ / folder);
                }
        }
        void TearDown() override { fs::remove_all(root_); }

        [[nodiscard]] fs::path put(const fs::path& below, const std::string& text) const {
                fs::create_directories((root_ / below).parent_path());
                std::ofstream(root_ / below, std::ios::binary) << text;
                return root_ / below;
        }
        // Paths below the root, in the order found.
        [[nodiscard]] Strings found(const FoundFiles& files) const {
                Strings names;
                for (const auto& file : files.files) {
                        names.push_back(fs::path(file.path).lexically_relative(root_));
                }
                return names;
        }
        [[nodiscard]] Strings said(const std::vector<Diagnostic>& diagnostics) const {
                Strings all;
                for (const auto& diagnostic : diagnostics) {
                        EXPECT_EQ(diagnostic.severity, Severity::kError);
                        all.push_back(diagnostic.to_string().substr(root_.string().size() + 1));
                }
                return all;
        }

        fs::path root_;
        Strings dirs_;
};

TEST(PolicyFolders, AreTheFourOfTheManualInOrder) {
        EXPECT_EQ(Directories{}.config_dirs,
                  (Strings{"/etc/sockbroker", "/run/sockbroker", "/usr/local/lib/sockbroker", "/usr/lib/sockbroker"}));
}

TEST(PolicyFolders, OfANamedNetworkNamespaceLieBelowThem) {
        const auto directories = directories_of_netns("edge-1");
        ASSERT_TRUE(directories);
        EXPECT_EQ(directories->config_dirs,
                  (Strings{"/etc/sockbroker/netns/edge-1", "/run/sockbroker/netns/edge-1",
                           "/usr/local/lib/sockbroker/netns/edge-1", "/usr/lib/sockbroker/netns/edge-1"}));
        EXPECT_EQ(directories->runtime_dir, "/run/sockbroker/netns/edge-1");
        EXPECT_EQ(directories->bpffs, "/run/sockbroker/bpf/netns/edge-1");
        EXPECT_EQ(directories->state_dir, "/var/lib/sockbroker/netns/edge-1");
}

TEST(PolicyFolders, AreRefusedToNamesThatMeanAnotherPlaceOrNone) {
        for (const char* name : {"", ".", "..", "a/b", "../x", "edge.1", "edge 1", "%i", "\n",
                                 "a234567890123456789012345678901234567890x"}) {
                EXPECT_FALSE(directories_of_netns(name)) << name;
        }
}

TEST_F(PolicyFiles, FoldersThatDoNotExistAreEmpty) {
        const auto files = read_policy_files(dirs_);
        EXPECT_TRUE(files.files.empty());
        EXPECT_TRUE(files.diagnostics.empty());
        EXPECT_TRUE(load_policy(dirs_, {}).policy);
}

TEST_F(PolicyFiles, AreMergedAndSortedByFileNameNotByFolder) {
        (void)put("lib/conf.d/10-a.conf", "#");
        (void)put("etc/conf.d/20-b.conf", "#");
        (void)put("run/conf.d/15-c.conf", "#");
        EXPECT_EQ(found(read_policy_files(dirs_)),
                  (Strings{"lib/conf.d/10-a.conf", "run/conf.d/15-c.conf", "etc/conf.d/20-b.conf"}));
}

TEST_F(PolicyFiles, AnEarlierFolderMasksTheSameName) {
        (void)put("lib/conf.d/10-a.conf", "lib");
        (void)put("run/conf.d/10-a.conf", "run");
        (void)put("etc/conf.d/10-a.conf", "etc");
        const auto files = read_policy_files(dirs_);
        ASSERT_EQ(files.files.size(), 1U);
        EXPECT_EQ(files.files[0].text, "etc");
}

TEST_F(PolicyFiles, AnEmptyFileOrALinkToDevNullMasks) {
        (void)put("lib/conf.d/10-a.conf", "lib");
        (void)put("lib/conf.d/20-b.conf", "lib");
        (void)put("lib/conf.d/30-c.conf", "lib");
        (void)put("etc/conf.d/10-a.conf", "");
        fs::create_symlink("/dev/null", root_ / "etc/conf.d/20-b.conf");
        const auto files = read_policy_files(dirs_);
        EXPECT_EQ(found(files), (Strings{"lib/conf.d/30-c.conf"}));
        EXPECT_TRUE(files.diagnostics.empty());
}

TEST_F(PolicyFiles, OnlyNamesThatEndInConfAndAreNotHidden) {
        for (const char* name : {"a.conf~", ".a.conf", ".conf", "a.conf.bak", "README", "a.CONF"}) {
                (void)put(fs::path("etc/conf.d") / name, "not a policy");
        }
        (void)put("etc/conf.d/a.conf", "#");
        fs::create_symlink("a.conf", root_ / "etc/conf.d/linked.conf");
        EXPECT_EQ(found(read_policy_files(dirs_)), (Strings{"etc/conf.d/a.conf", "etc/conf.d/linked.conf"}));
}

TEST_F(PolicyFiles, WhatCannotBeReadIsAnErrorAndNeverPassedOver) {
        (void)put("lib/conf.d/20-b.conf", "#");
        (void)put("etc/conf.d/30-good.conf", "#");
        fs::create_directory(root_ / "etc/conf.d/10-a.conf");
        fs::create_symlink("nowhere", root_ / "etc/conf.d/20-b.conf");
        fs::create_symlink("25-loop.conf", root_ / "etc/conf.d/25-loop.conf");
        ASSERT_EQ(::mkfifo((root_ / "etc/conf.d/40-fifo.conf").c_str(), 0600), 0);
        (void)put("run/conf.d", "a file in place of a directory");
        const auto files = read_policy_files(dirs_);
        EXPECT_EQ(
                said(files.diagnostics),
                (Strings{
                        "run/conf.d: cannot open the directory, let the broker's user read it, and no link lead out of "
                        "/etc, "
                        "/usr/lib and the policy directories, or remove it: Not a directory",
                        "etc/conf.d/10-a.conf: is neither a regular file nor a link to one or to /dev/null, remove it",
                        "etc/conf.d/20-b.conf: the file is a link to nowhere, mend the link or remove it",
                        "etc/conf.d/25-loop.conf: the file is a link to nowhere, mend the link or remove it",
                        "etc/conf.d/40-fifo.conf: is neither a regular file nor a link to one or to /dev/null, remove "
                        "it"}));
        EXPECT_EQ(found(files), (Strings{"etc/conf.d/30-good.conf"}));
        EXPECT_FALSE(load_policy(dirs_, {}).policy);
}

TEST_F(PolicyFiles, WithoutPermissionIsAnError) {
        const auto path = put("etc/conf.d/10-a.conf", "[Service a]\nUser=1\nListenStream=80\n");
        ::chmod(root_.c_str(), 0755);
        ::chmod(path.c_str(), 0);
        // Root reads everything, the broker's user does not.
        const uid_t self = ::geteuid();
        ASSERT_EQ(::seteuid(self == 0 ? 61001 : self), 0);
        const auto files = read_policy_files(dirs_);
        ASSERT_EQ(::seteuid(self), 0);
        EXPECT_EQ(said(files.diagnostics),
                  (Strings{"etc/conf.d/10-a.conf: cannot read the file, let the broker's user read it, and no link "
                           "lead out "
                           "of /etc, /usr/lib and the policy directories: Permission denied"}));
}

TEST_F(PolicyFiles, AreBoundedInSize) {
        const auto path = put("etc/conf.d/10-a.conf", std::string(100, '#'));
        EXPECT_EQ(read_whole_file(path, 100)->size(), 100U);
        EXPECT_EQ(read_whole_file(path, 99).error().text(), "larger than 99 bytes, split it");
        fs::resize_file(path, kMaxFileBytes + 1);
        EXPECT_EQ(said(read_policy_files(dirs_).diagnostics),
                  (Strings{"etc/conf.d/10-a.conf: larger than 268435456 bytes, split it"}));
}

TEST_F(PolicyFiles, LoadTellsErrorsOfFilesBesideThoseOfTheText) {
        (void)put("etc/conf.d/10-a.conf", "[Service a]\nUser=65534\n");
        fs::create_directory(root_ / "etc/conf.d/20-b.conf");
        const auto parsed = load_policy(dirs_, {});
        EXPECT_FALSE(parsed.policy);
        EXPECT_EQ(parsed.diagnostics.size(), 2U);
}

TEST_F(PolicyFiles, TheExamplesOfTheManualAreAPolicyWithoutWarnings) {
        const Strings source{SOCKBROKER_SOURCE_ROOT};
        EXPECT_GE(read_policy_files(source).files.size(), 3U);
        const auto parsed = load_policy(source, {});
        for (const auto& diagnostic : parsed.diagnostics) {
                ADD_FAILURE() << diagnostic.to_string();
        }
        EXPECT_TRUE(parsed.policy);
}

class PolicyCopy : public PolicyFiles {
protected:
        [[nodiscard]] std::string path() const { return root_ / "policy"; }
};

TEST_F(PolicyCopy, KeepsPathsAndTextsToTheByte) {
        const std::vector<PolicyFile> files{{"/etc/sockbroker/conf.d/50-\n 3.conf", std::string("a\0b\r\n\xff", 6)},
                                            {"/run/empty.conf", ""},
                                            {"/run/long.conf", std::string(300000, 'x')}};
        ASSERT_TRUE(write_policy_copy(path(), {}));
        EXPECT_TRUE(read_policy_copy(path())->empty());
        ASSERT_TRUE(write_policy_copy(path(), files));
        const auto read = read_policy_copy(path());
        ASSERT_TRUE(read) << read.error().text();
        ASSERT_EQ(read->size(), files.size());
        for (std::size_t i = 0; i < files.size(); i++) {
                EXPECT_EQ((*read)[i].path, files[i].path);
                EXPECT_EQ((*read)[i].text, files[i].text);
        }
        EXPECT_FALSE(fs::exists(path() + ".new"));
}

TEST_F(PolicyCopy, OneThatWasCutShortIsNotTaken) {
        ASSERT_TRUE(write_policy_copy(path(), {{"a.conf", "[Service a]\n"}, {"b.conf", "[Service b]\n"}}));
        const auto whole = *read_whole_file(path());
        for (std::size_t size = 0; size < whole.size(); size++) {
                (void)put("policy", whole.substr(0, size));
                EXPECT_FALSE(read_policy_copy(path())) << "of " << size << " bytes";
        }
        (void)put("policy", whole + "x");
        ASSERT_FALSE(read_policy_copy(path()));
        EXPECT_EQ(read_policy_copy(path()).error().message,
                  "the copy of the policy in " + path() + " is damaged, mend the policy and reload");
        (void)put("policy", whole);
        EXPECT_TRUE(read_policy_copy(path()));
}

TEST_F(PolicyCopy, WhenItCannotBeWrittenTheOldOneStays) {
        ASSERT_TRUE(write_policy_copy(path(), {{"a.conf", "old"}}));
        fs::create_directory(path() + ".new");
        const auto failed = write_policy_copy(path(), {{"a.conf", "new"}});
        ASSERT_FALSE(failed);
        EXPECT_EQ(failed.error().text(), "cannot keep a copy of the policy in " + path() + " (open): File exists");
        EXPECT_EQ(read_policy_copy(path())->at(0).text, "old");
}

TEST_F(PolicyCopy, NoneIsAnErrorOfItsOwn) {
        EXPECT_EQ(read_policy_copy(path()).error().errnum, ENOENT);
}

class BrokerConfigFiles : public PolicyFiles {};

TEST_F(BrokerConfigFiles, WithoutFilesTheDefaultsHold) {
        const auto parsed = load_broker_config(dirs_);
        EXPECT_TRUE(parsed.diagnostics.empty());
        EXPECT_EQ(parsed.config.limits.max_bindings, 65536U);
        EXPECT_EQ(parsed.config.limits.max_services, 1024U);
        EXPECT_EQ(parsed.config.max_sockets, 4096U);
}

TEST_F(BrokerConfigFiles, TheFirstFileCountsAndDropInsOverrideIt) {
        (void)put("lib/sockbrokerd.conf", "[Broker]\nMaxServices=7\n");
        (void)put("etc/sockbrokerd.conf", "[Broker]\nMaxBindings=1000000\nMaxSockets=10\n");
        (void)put("lib/sockbrokerd.conf.d/20-b.conf", "[Broker]\nMaxSockets=30\n");
        (void)put("etc/sockbrokerd.conf.d/10-a.conf", "[Broker]\nMaxSockets=20\nMaxBindings=5\nMaxBindings=\n");
        const auto parsed = load_broker_config(dirs_);
        EXPECT_EQ(said(parsed.diagnostics), Strings{});
        EXPECT_EQ(parsed.config.limits.max_bindings, 65536U);
        EXPECT_EQ(parsed.config.limits.max_services, 1024U);
        EXPECT_EQ(parsed.config.max_sockets, 30U);
}

TEST_F(BrokerConfigFiles, MistakesAreReportedAndLeaveTheirDefault) {
        (void)put("etc/sockbrokerd.conf",
                  "MaxSockets=3\n[Broker]\nMaxBindings=0\nMaxServices=65537\nMaxSockets=9\nRate=1\n"
                  " MaxSockets=4\n[Service a]\nMaxSockets=5\n");
        const auto parsed = load_broker_config(dirs_);
        EXPECT_EQ(
                said(parsed.diagnostics),
                (Strings{
                        "etc/sockbrokerd.conf:1: MaxSockets= stands before any section, [Broker] comes first",
                        "etc/sockbrokerd.conf:3: MaxBindings=: \"0\" is not a number from 1 to 16777216",
                        "etc/sockbrokerd.conf:4: MaxServices=: \"65537\" is not a number from 1 to 65536",
                        "etc/sockbrokerd.conf:6: unknown key Rate=, this version takes MaxBindings= MaxServices= "
                        "MaxSockets= MaxAccountedBindings= RateLimitBurst= NotifyRateLimitBurst= "
                        "RateLimitIntervalSec= RouteProtocol= AnnounceTable= AnnounceUpSec= AnnounceDownSec=",
                        "etc/sockbrokerd.conf:7: indented line, comments, sections and keys start in column one and no "
                        "line continues another",
                        "etc/sockbrokerd.conf:8: unknown section [Service a], sockbrokerd.conf takes only [Broker], "
                        "policies "
                        "are in conf.d"}));
        EXPECT_EQ(parsed.config.limits.max_bindings, 65536U);
        EXPECT_EQ(parsed.config.max_sockets, 9U);
}

TEST_F(BrokerConfigFiles, RemediesAreForThisFileAndNotForPolicies) {
        (void)put("etc/sockbrokerd.conf", "[Broker\n[Bro#ker]\nMaxSockets 4\n");
        EXPECT_EQ(said(load_broker_config(dirs_).diagnostics),
                  (Strings{"etc/sockbrokerd.conf:1: section line without ], write [Broker]",
                           "etc/sockbrokerd.conf:2: section line with one of [ ; # inside, write [Broker]",
                           "etc/sockbrokerd.conf:3: neither [Broker] nor Key=Value nor a comment"}));
}

TEST_F(BrokerConfigFiles, RoutesHaveANumberAndATableOfTheirOwn) {
        const auto usual = load_broker_config(dirs_).config.routes;
        EXPECT_EQ(usual.protocol, 83U);
        EXPECT_EQ(usual.announce_table, 153U);
        (void)put("etc/sockbrokerd.conf",
                  "[Broker]\nRouteProtocol=84\nAnnounceTable=1000\nAnnounceUpSec=1min\nAnnounceDownSec=500ms\n");
        auto parsed = load_broker_config(dirs_);
        EXPECT_EQ(said(parsed.diagnostics), Strings{});
        EXPECT_EQ(parsed.config.routes.protocol, 84U);
        EXPECT_EQ(parsed.config.routes.announce_table, 1000U);
        EXPECT_EQ(parsed.config.routes.up_usec, 60'000'000);
        EXPECT_EQ(parsed.config.routes.down_usec, 500'000);
        (void)put("etc/sockbrokerd.conf.d/20-b.conf",
                  "[Broker]\nRouteProtocol=4\nRouteProtocol=12\nAnnounceTable=254\nAnnounceTable=0\n"
                  "AnnounceUpSec=2d\nAnnounceDownSec=\n");
        parsed = load_broker_config(dirs_);
        EXPECT_EQ(parsed.diagnostics.size(), 5U);
        EXPECT_EQ(parsed.config.routes.protocol, 84U);
        EXPECT_EQ(parsed.config.routes.announce_table, 1000U);
        EXPECT_EQ(parsed.config.routes.up_usec, 60'000'000);
        EXPECT_EQ(parsed.config.routes.down_usec, usual.down_usec);
}

TEST_F(BrokerConfigFiles, OneThatCannotBeReadIsAnError) {
        fs::create_directories(root_ / "etc/sockbrokerd.conf");
        EXPECT_EQ(said(load_broker_config(dirs_).diagnostics),
                  (Strings{"etc/sockbrokerd.conf: is neither a regular file nor a link to one or to /dev/null, remove "
                           "it"}));
}

}  // namespace
}  // namespace sockbroker
