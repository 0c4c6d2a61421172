// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Binds of UNIX sockets for another process: in its folders, with its numbers, and nothing at all if it has gone.
#include "sandbox/supervise/unix_bind.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

#include <gtest/gtest.h>

#include "tests/unit/support/child.h"

namespace sockbroker::supervise {
namespace {

namespace fs = std::filesystem;

constexpr int kNumber = 30;

SocketAddress address_of(const std::string& path) {
        sockaddr_un one{.sun_family = AF_UNIX};
        path.copy(one.sun_path, sizeof one.sun_path);
        SocketAddress address;
        address.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
        std::memcpy(&address.storage, &one, sizeof one);
        return address;
}

int folder(const fs::path& path, int number) {
        const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY);
        return fd < 0 || ::dup2(fd, number) < 0 || ::close(fd) < 0 ? -1 : 0;
}

class UnixBind : public ::testing::Test {
protected:
        void SetUp() override {
                std::string name = (fs::temp_directory_path() / "unix_bind_test.XXXXXX").string();
                ASSERT_NE(::mkdtemp(name.data()), nullptr);
                base_ = name;
                for (const char* one : {"cwd", "theirs", "ours"}) {
                        ASSERT_TRUE(fs::create_directory(base_ / one));
                }
                ASSERT_EQ(folder(base_ / "ours", kNumber), 0);
                std::array<int, 2> ready{};
                ASSERT_EQ(::pipe(ready.data()), 0);
                child_ = std::make_unique<test::Child>([&] {
                        const bool made =
                                ::chdir((base_ / "cwd").c_str()) == 0 && folder(base_ / "theirs", kNumber) == 0;
                        if (made && ::write(ready[1], "x", 1) == 1) {
                                ::pause();
                        }
                        return 1;
                });
                ::close(ready[1]);
                char byte = 0;
                ASSERT_EQ(::read(ready[0], &byte, 1), 1);
                ::close(ready[0]);
        }
        void TearDown() override {
                child_.reset();
                ::close(kNumber);
                fs::remove_all(base_);
                fs::current_path(before_);
        }

        int bind(const SocketAddress& address, const std::function<bool()>& still_waits) {
                const auto target = Target::open(child_->pid());
                const OwnedFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
                return target && fd ? bind_unix(fd.get(), address, *target, still_waits) : -1;
        }
        int bind(const std::string& path) {
                return bind(address_of(path), [] { return true; });
        }
        bool made(const char* path) { return fs::is_socket(base_ / path); }

        fs::path before_ = fs::current_path();
        fs::path base_;
        std::unique_ptr<test::Child> child_;
};

TEST_F(UnixBind, SelfIsTheProgram) {
        const auto at = "/fd/" + std::to_string(kNumber) + "/";
        fs::create_symlink("/proc/self", base_ / "cwd/link");
        fs::create_symlink("../cwd/link/../self", base_ / "cwd/far");
        for (const std::string way :
             {"/proc/self", "/proc/thread-self", "/dev", "/proc//./self", "link", "./far", "/proc/net/..",
              "/proc/1/../self/task/../../thread-self", "/proc/self/root/dev"}) {
                EXPECT_EQ(bind(way + at + "made"), 0) << way;
                EXPECT_TRUE(fs::remove(base_ / "theirs/made")) << way;
        }
        EXPECT_EQ(bind("/proc/self/cwd/made"), 0);
        EXPECT_EQ(bind("here"), 0);
        EXPECT_EQ(bind((base_ / "cwd/there").string()), 0);
        EXPECT_TRUE(made("cwd/made") && made("cwd/here") && made("cwd/there"));
        EXPECT_TRUE(fs::is_empty(base_ / "ours"));
        EXPECT_TRUE(fs::is_empty(base_ / "theirs"));
}

TEST_F(UnixBind, WhatIsNotThereIsTheKernelsToTell) {
        const auto at = "/proc/self/fd/" + std::to_string(kNumber);
        EXPECT_EQ(bind("/proc/self/fd/999/x"), ENOENT);
        EXPECT_EQ(bind(at), EADDRINUSE);
        EXPECT_EQ(bind(at + "/x/"), ENOENT);
        EXPECT_EQ(bind(at + "/.."), EADDRINUSE);
        EXPECT_EQ(bind("none/x"), ENOENT);
        EXPECT_EQ(bind("/"), EADDRINUSE);
        fs::create_symlink("loop", base_ / "cwd/loop");
        EXPECT_EQ(bind("/proc/self/cwd/loop/x"), ELOOP);
        auto address = address_of("/proc/self/cwd/x");
        address.storage.ss_family = AF_INET;
        EXPECT_EQ(bind(address, [] { return true; }), EINVAL);
        address = address_of("/proc/self/cwd/x");
        address.size = sizeof(sockaddr_un) + 1;
        EXPECT_EQ(bind(address, [] { return true; }), EINVAL);
        EXPECT_TRUE(fs::is_empty(base_ / "ours"));
}

TEST_F(UnixBind, AForeignLinkInASharedFolderIsNotFollowedToSelf) {
        if (::geteuid() != 0) {
                GTEST_SKIP() << "makes links of somebody else";
        }
        fs::permissions(base_ / "cwd", fs::perms::all | fs::perms::sticky_bit);
        fs::create_symlink("/proc/self/fd", base_ / "cwd/link");
        ASSERT_EQ(::lchown((base_ / "cwd/link").c_str(), 61001, 61001), 0);
        EXPECT_EQ(bind("/proc/self/cwd/link/" + std::to_string(kNumber) + "/x"), EACCES);
        EXPECT_EQ(bind("link/" + std::to_string(kNumber) + "/x"), EACCES);
}

TEST_F(UnixBind, NothingIsMadeForOneThatWaitsNoMore) {
        EXPECT_EQ(bind(address_of("x"), [] { return false; }), EINTR);
        EXPECT_EQ(bind(address_of("/proc/self/cwd/x"), [] { return false; }), EINTR);
        EXPECT_TRUE(fs::is_empty(base_ / "cwd"));
}

// The end of the process stands for all that may become of its number.
TEST_F(UnixBind, NothingIsLookedUpByItsNumberAfterThatQuestion) {
        EXPECT_EQ(bind(address_of("x"), [&] { return child_.reset(), true; }), 0);
        EXPECT_TRUE(made("cwd/x"));
}

TEST_F(UnixBind, NothingIsLookedUpByItsNumberAfterThatQuestionForSelfEither) {
        EXPECT_EQ(bind(address_of("/proc/self/fd/30/x"), [&] { return child_.reset(), true; }), 0);
        EXPECT_TRUE(made("theirs/x"));
}

}  // namespace
}  // namespace sockbroker::supervise
