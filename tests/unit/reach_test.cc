// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whether the broker's user could read a file, judged by somebody else: by ids and modes alone, and on real folders.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "broker/ctl/reach.h"

namespace sockbroker::ctl {
namespace {

constexpr uid_t kUser = 990;
constexpr gid_t kGroup = 991;
constexpr gid_t kOther = 992;  // which it is a member of too

struct Case {
        Permissions permissions;
        bool reads;
        bool searches;
};

TEST(Reach, IsByTheBitsOfTheOneClassThatTheUserIsOf) {
        const Case cases[] = {
                {{.uid = 0, .gid = 0, .mode = 0644}, true, false},
                {{.uid = 0, .gid = 0, .mode = 0640}, false, false},
                {{.uid = 0, .gid = 4, .mode = 0640}, false, false},  // root:adm
                {{.uid = 0, .gid = kGroup, .mode = 0640}, true, false},
                {{.uid = 0, .gid = kOther, .mode = 0640}, true, false},
                {{.uid = 0, .gid = kGroup, .mode = 0604}, false, false},  // the group's bits, though others may
                {{.uid = kUser, .gid = 0, .mode = 0400}, true, false},
                {{.uid = kUser, .gid = kGroup, .mode = 0044}, false, false},
                {{.uid = 0, .gid = 0, .mode = 0755}, true, true},
                {{.uid = 0, .gid = 4, .mode = 0750}, false, false},
                {{.uid = 0, .gid = kGroup, .mode = 0710}, false, true},
                {{.uid = 0, .gid = 0, .mode = 0711}, false, true},
                {{.uid = 0, .gid = 4, .mode = 0640, .has_acl = true}, true, true},  // who knows
        };
        const UserIds user{.uid = kUser, .groups = {kGroup, kOther}};
        for (const auto& one : cases) {
                EXPECT_EQ(may(user, one.permissions, Access::kRead), one.reads) << "case " << &one - cases;
                EXPECT_EQ(may(user, one.permissions, Access::kSearch), one.searches) << "case " << &one - cases;
        }
        EXPECT_FALSE(may({.uid = 0, .groups = {0}}, {.uid = 1, .gid = 1, .mode = 0640}, Access::kRead))
                << "root by its number alone: the broker has no capability";
}

class ReachFolders : public testing::Test {
protected:
        ReachFolders() {
                EXPECT_NE(mkdtemp(top_.data()), nullptr);
                EXPECT_EQ(chmod(top_.c_str(), 0755), 0);
                std::filesystem::create_directories(conf_d());
                std::ofstream(file()) << "[Service a]\n";
                set(conf_d(), 0755);
                set(file(), 0644);
        }
        ~ReachFolders() override {
                set(conf_d(), 0755);
                std::filesystem::remove_all(top_);
        }
        ReachFolders(const ReachFolders&) = delete;
        ReachFolders& operator=(const ReachFolders&) = delete;

        [[nodiscard]] std::string conf_d() const { return top_ + "/conf.d"; }
        [[nodiscard]] std::string file() const { return conf_d() + "/50-a.conf"; }
        static void set(const std::string& path, mode_t mode) { EXPECT_EQ(chmod(path.c_str(), mode), 0); }

        [[nodiscard]] std::vector<std::string> found() const {
                std::vector<std::string> files;
                for (const auto& one : out_of_reach({top_, top_ + "/none"}, {.uid = kUser, .groups = {kGroup}})) {
                        EXPECT_EQ(one.severity, Severity::kError);
                        files.push_back(one.file.substr(top_.size()));
                }
                return files;
        }

        std::string top_ = "/tmp/reach-XXXXXX";
};

using Files = std::vector<std::string>;

TEST_F(ReachFolders, AreAndFilesInThem) {
        EXPECT_EQ(found(), Files{});
        set(file(), 0640);
        EXPECT_EQ(found(), Files{"/conf.d/50-a.conf"});
        std::ofstream(conf_d() + "/README") << "no drop-in";
        set(conf_d() + "/README", 0600);
        EXPECT_EQ(found(), Files{"/conf.d/50-a.conf"});
        set(conf_d(), 0710);
        EXPECT_EQ(found(), Files{"/conf.d"}) << "what lies in it nobody lists";
        set(conf_d(), 0744);
        EXPECT_EQ(found(), Files{"/conf.d/50-a.conf"}) << "it may be listed, and not gone through";
        set(file(), 0644);
        EXPECT_EQ(found(), Files{"/conf.d/50-a.conf"});
}

TEST_F(ReachFolders, AndWhatLinksLeadThrough) {
        const auto aside = top_ + "/aside";
        std::filesystem::create_directories(aside);
        std::filesystem::rename(file(), aside + "/a");
        std::filesystem::create_symlink("../aside/a", file());
        set(aside, 0711);
        EXPECT_EQ(found(), Files{});
        set(aside, 0710);
        EXPECT_EQ(found(), Files{"/conf.d/50-a.conf"});
        set(aside, 0711);
        set(aside + "/a", 0600);
        EXPECT_EQ(found(), Files{"/conf.d/50-a.conf"});
        std::filesystem::remove(aside + "/a");
        EXPECT_EQ(found(), Files{}) << "a link to nowhere is told by others";
        std::filesystem::remove(file());
        std::filesystem::create_symlink(file(), file());
        EXPECT_EQ(found(), Files{}) << "and so is one to itself";
}

TEST_F(ReachFolders, AndTheLimitsOfTheBroker) {
        std::ofstream(top_ + "/sockbrokerd.conf") << "[Broker]\n";
        set(top_ + "/sockbrokerd.conf", 0640);
        EXPECT_EQ(found(), Files{"/sockbrokerd.conf"});
        set(top_, 0700);
        EXPECT_EQ(found(), (Files{"/sockbrokerd.conf", "/sockbrokerd.conf.d", "/none/sockbrokerd.conf.d", "/conf.d",
                                  "/none/conf.d"}));
        set(top_, 0755);
}

}  // namespace
}  // namespace sockbroker::ctl
