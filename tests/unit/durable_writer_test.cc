// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What is written durably: in a thread, and with a sync of file and directory before it counts as done.
#include "broker/daemon/durable_writer.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "broker/base/event.h"

namespace {

std::atomic<int> syncs = 0;
std::atomic<bool> loop_has_synced = false;

}  // namespace

// In place of libc's.
extern "C" int fsync(int fd) {
        syncs++;
        loop_has_synced = loop_has_synced || gettid() == getpid();
        return static_cast<int>(syscall(SYS_fsync, fd));
}

namespace sockbroker {
namespace {

TEST(DurableWriter, WritesToTheDiskInItsWorkerAndOfWhatComesMeanwhileTheLast) {
        const auto folder = testing::TempDir() + "durable-writer-" + std::to_string(getpid());
        const auto path = folder + "/file";
        std::filesystem::create_directories(folder);
        OwnedEvent event;
        {
                sd_event* raw = nullptr;
                ASSERT_GE(sd_event_new(&raw), 0);
                event.reset(raw);
        }
        auto disk = Worker::start(event.get());
        ASSERT_TRUE(disk);
        DurableWriter writer(**disk, path);
        std::vector<std::string> done;
        const auto note = [&done](const char* which) {
                return [&done, which](const Result<void>& result) {
                        done.emplace_back(which + (result ? std::string() : result.error().text()));
                };
        };
        syncs = 0;
        writer.write("first\n");
        writer.when_written(note("first"));
        writer.write("second\n");
        writer.when_written(note("second"));
        writer.write("third\n");
        writer.when_written(note("third"));
        EXPECT_TRUE(done.empty());
        while (done.size() < 3 && sd_event_run(event.get(), 10'000'000) > 0) {
        }
        EXPECT_EQ(done, (std::vector<std::string>{"first", "second", "third"}));
        EXPECT_EQ(syncs, 4) << "file and directory, for the first and for the last";
        std::string text;
        std::getline(std::ifstream(path), text);
        EXPECT_EQ(text, "third");
        EXPECT_FALSE(loop_has_synced);

        std::filesystem::remove(path);
        std::filesystem::create_directories(path + "/in the way");
        writer.write("fourth\n");
        writer.when_written(note(""));
        while (done.size() < 4 && sd_event_run(event.get(), 10'000'000) > 0) {
        }
        EXPECT_TRUE(done.back().starts_with("cannot write " + path + " (rename)")) << done.back();
        std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace sockbroker
