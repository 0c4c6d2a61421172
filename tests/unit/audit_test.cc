// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The writer against a journal that hangs: a datagram socket bound to journald's own address in a mount namespace of
// this process (a user namespace too where it is not root), so that the real sd_journal_sendv(3) fills it and blocks.
#include "broker/audit/audit.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "broker/base/owned_fd.h"

namespace sockbroker {
namespace {

using std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr int kQueue = 1024;
constexpr const char* kJournalSocket = "/run/systemd/journal/socket";

class AuditWriter : public testing::Test {
protected:
        static void SetUpTestSuite() {
                const uid_t uid = ::geteuid();
                const gid_t gid = ::getegid();
                const int flags = CLONE_NEWNS | (uid == 0 ? 0 : CLONE_NEWUSER);
                ASSERT_EQ(::unshare(flags), 0) << "needs root or unprivileged user namespaces";
                if (uid != 0) {
                        std::ofstream("/proc/self/setgroups") << "deny";
                        std::ofstream("/proc/self/uid_map") << "0 " << uid << " 1";
                        std::ofstream("/proc/self/gid_map") << "0 " << gid << " 1";
                }
                ASSERT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
                ASSERT_EQ(::mount("tmpfs", "/run", "tmpfs", 0, nullptr), 0);
                std::filesystem::create_directories("/run/systemd/journal");
        }

        void SetUp() override {
                ::unlink(kJournalSocket);
                journal_.reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
                sockaddr_un address = {.sun_family = AF_UNIX};
                ::strcpy(address.sun_path, kJournalSocket);
                ASSERT_EQ(::bind(journal_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
                ASSERT_EQ(::pipe2(stderr_pipe_.data(), O_CLOEXEC | O_NONBLOCK), 0);
                saved_stderr_.reset(::dup(STDERR_FILENO));
                ::dup2(stderr_pipe_[1], STDERR_FILENO);
        }

        // Ends the hanging writers that a test leaves behind: they must not write into the journal of the next one.
        void TearDown() override {
                ::unlink(kJournalSocket);
                journal_.reset();
                const auto deadline = steady_clock::now() + 10s;
                while (!writers().empty() && steady_clock::now() < deadline) {
                        ::sched_yield();
                }
                EXPECT_TRUE(writers().empty());
                ::dup2(saved_stderr_.get(), STDERR_FILENO);
                ::close(stderr_pipe_[0]);
                ::close(stderr_pipe_[1]);
        }

        // Empty for a thread that has ended meanwhile: reading its files fails with ESRCH, which a filebuf throws.
        static std::string read(const std::filesystem::path& path) {
                const OwnedFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
                std::string text(4096, '\0');
                const ssize_t size = file ? ::read(file.get(), text.data(), text.size()) : -1;
                text.resize(size < 0 ? 0 : static_cast<std::size_t>(size));
                return text;
        }

        // /proc/self/task/TID of each writer; a sanitizer has threads of its own.
        static std::vector<std::filesystem::path> writers() {
                std::vector<std::filesystem::path> found;
                for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
                        if (read(task.path() / "comm") == "audit\n") {
                                found.push_back(task.path());
                        }
                }
                return found;
        }

        // The next datagram; empty after ten seconds without one.
        std::string next_entry() {
                pollfd poller = {.fd = journal_.get(), .events = POLLIN};
                if (::poll(&poller, 1, 10'000) != 1) {
                        return {};
                }
                std::string data(65536, '\0');
                data.resize(static_cast<std::size_t>(::recv(journal_.get(), data.data(), data.size(), 0)));
                return data;
        }

        // Reads entries until one holds `text`.
        std::string find_entry(std::string_view text) {
                std::string entry = next_entry();
                while (!entry.empty() && entry.find(text) == std::string::npos) {
                        entry = next_entry();
                }
                return entry;
        }

        std::string stderr_text() {
                std::string text(65536, '\0');
                const ssize_t size = ::read(stderr_pipe_[0], text.data(), text.size());
                text.resize(size < 0 ? 0 : static_cast<std::size_t>(size));
                return text;
        }

        OwnedFd journal_;
        OwnedFd saved_stderr_;
        std::array<int, 2> stderr_pipe_{};
};

TEST_F(AuditWriter, AnEntryReachesTheJournalAndStandardError) {
        {
                Audit audit;
                audit.write({.action = Action::kRegister, .message = "registered", .service = "resolver"});
        }
        const std::string entry = next_entry();
        EXPECT_NE(entry.find("MESSAGE=registered\n"), std::string::npos) << entry;
        EXPECT_NE(entry.find("\nMESSAGE_ID=cda7d16c199245cda595d7a199ef8b30\n"), std::string::npos) << entry;
        EXPECT_NE(entry.find("\nSOCKBROKER_SERVICE=resolver\n"), std::string::npos) << entry;
        EXPECT_EQ(entry.find("CODE_"), std::string::npos) << entry;
        EXPECT_EQ(stderr_text(), "register: registered (service=resolver)\n");
}

TEST_F(AuditWriter, AValueCannotBecomeAField) {
        {
                Audit audit;
                audit.write({.action = Action::kRefuse, .message = "refused", .service = "x\nSOCKBROKER_UID=0"});
        }
        const std::string field = "\nSOCKBROKER_SERVICE=x\\x0aSOCKBROKER_UID=0\n";
        EXPECT_NE(next_entry().find(field), std::string::npos);
}

TEST_F(AuditWriter, NothingGoesToAStandardErrorThatIsTheJournal) {
        struct stat status = {};
        ASSERT_EQ(::fstat(STDERR_FILENO, &status), 0);
        const std::string stream = std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino);
        ::setenv("JOURNAL_STREAM", stream.c_str(), 1);
        {
                Audit audit;
                audit.write({.action = Action::kStop, .message = "ends"});
        }
        ::unsetenv("JOURNAL_STREAM");
        EXPECT_NE(next_entry().find("MESSAGE=ends\n"), std::string::npos);
        EXPECT_EQ(stderr_text(), "");
}

TEST_F(AuditWriter, AJournalThatHangsBlocksNoCallerAndLossesAreCounted) {
        constexpr int kEntries = 5000;
        const auto audit = std::make_unique<Audit>();
        auto longest = 0ns;
        for (int i = 0; i < kEntries; ++i) {
                const auto before = steady_clock::now();
                audit->write({.action = Action::kRefuse, .message = std::string(1000, 'x')});
                longest = std::max<std::chrono::nanoseconds>(longest, steady_clock::now() - before);
        }
        EXPECT_LT(longest, 10s);  // a scheduler's hiccup at most; the journal would hold it for ever
        // Kept are the queue and what the writer took before the socket was full, which is nothing if it is slow to
        // start.
        EXPECT_GT(audit->lost(), 0U);
        EXPECT_LE(audit->lost(), static_cast<unsigned>(kEntries - kQueue));
}

// A wake-up for each costs more than the entries themselves.
TEST_F(AuditWriter, ABurstWakesTheWriterOnceAMillisecondAtMost) {
        ::unlink(kJournalSocket);  // nothing is sent, so that the thread sleeps for want of entries alone
        Audit audit;
        while (writers().empty()) {
                ::sched_yield();
        }
        const auto sleeps = [] {
                const std::string status = read(writers().front() / "status");
                return std::stoi(status.substr(status.find("\nvoluntary_ctxt_switches:") + 25));
        };
        const int before = sleeps();
        const auto begin = steady_clock::now();
        for (int i = 0; i < 500; ++i) {
                audit.write({.action = Action::kRefuse, .message = "x"});
                for (const auto next = steady_clock::now() + 50us; steady_clock::now() < next;) {
                }
        }
        const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(steady_clock::now() - begin);
        EXPECT_LE(sleeps() - before, 2 * took.count() + 10);
}

TEST_F(AuditWriter, TheDestructorGivesUpOnAJournalThatHangs) {
        auto audit = std::make_unique<Audit>();
        for (int i = 0; i < 2 * kQueue; ++i) {
                audit->write({.action = Action::kRefuse, .message = std::string(1000, 'x')});
        }
        const auto before = steady_clock::now();
        audit.reset();
        EXPECT_GE(steady_clock::now() - before, 1900ms);
        EXPECT_LT(steady_clock::now() - before, 15s);
}

TEST_F(AuditWriter, OnceTheJournalRecoversOneEntryTellsHowManyWereLost) {
        Audit audit;
        for (int i = 0; i < 4 * kQueue; ++i) {
                audit.write({.action = Action::kRefuse, .message = "refused " + std::to_string(i)});
        }
        const std::uint64_t lost = audit.lost();
        ASSERT_GT(lost, 0U);
        const std::string entry = find_entry("MESSAGE_ID=d4b4a0047ce146e39264a7378fc60dad\n");
        EXPECT_NE(entry.find("MESSAGE=" + std::to_string(lost) + " journal entries were lost\n"), std::string::npos)
                << entry;
        EXPECT_EQ(audit.lost(), lost);
        // Told once: what follows is the next entry, and no second report.
        audit.write({.action = Action::kReload, .message = "after"});
        std::string next = next_entry();
        while (next.find("MESSAGE=refused ") != std::string::npos) {
                next = next_entry();
        }
        EXPECT_NE(next.find("MESSAGE=after\n"), std::string::npos) << next;
}

TEST_F(AuditWriter, AJournalThatRefusesIsALoss) {
        journal_.reset();  // the address stays, nobody listens: ECONNREFUSED
        std::uint64_t lost = 0;
        {
                Audit audit;
                audit.write({.action = Action::kStop, .message = "ends"});
                const auto deadline = steady_clock::now() + 10s;
                while (lost == 0 && steady_clock::now() < deadline) {
                        lost = audit.lost();
                }
        }
        EXPECT_EQ(lost, 1U);
        EXPECT_EQ(stderr_text(), "stop: ends\n");
}

TEST_F(AuditWriter, ItsThreadTakesNoSignal) {
        Audit audit;
        audit.write({.action = Action::kStart, .message = "serves"});
        ASSERT_NE(next_entry(), "");  // the thread runs
        const auto found = writers();
        ASSERT_EQ(found.size(), 1U);
        const std::string status = read(found.front() / "status");
        const std::size_t blocked = status.find("SigBlk:\t");
        ASSERT_NE(blocked, std::string::npos);
        const auto mask = std::stoull(status.substr(blocked + 8, 16), nullptr, 16);
        for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGCHLD}) {
                EXPECT_TRUE(mask >> (number - 1) & 1) << number;
        }
}

}  // namespace
}  // namespace sockbroker
