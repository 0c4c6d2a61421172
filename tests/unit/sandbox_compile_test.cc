// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Profiles compiled to BPF decide what the profile says: by the evaluator for random profiles and calls, and by the
// kernel for the evaluator itself.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <functional>
#include <random>

#include "sandbox/compile.h"
#include "sandbox/evaluator.h"
#include "sandbox/parse.h"
#include "support/seccomp_answer.h"

namespace sockbroker::sandbox {
namespace {

Profile profile(const std::string& text) {
        ParsedProfile parsed =
                parse_profile("test", {{"test.profile", text}}, [](const std::string&) { return fail("no include"); });
        for (const Diagnostic& error : parsed.errors) {
                ADD_FAILURE() << error.to_string();
        }
        return parsed.profile.value_or(Profile{});
}

std::uint32_t asked(const Filter& filter, const std::string& name, const Arguments& arguments) {
        return test::answer_of(filter, seccomp_syscall_resolve_name(name.c_str()), arguments);
}

constexpr std::uint32_t kEnosys = SECCOMP_RET_ERRNO | ENOSYS;
constexpr std::uint32_t kEperm = SECCOMP_RET_ERRNO | EPERM;

TEST(SandboxCompile, EachKindOfLineBecomesItsAnswer) {
        const auto filter =
                compile(profile("allow read\nlog write\nkill ptrace\nerrno EACCES bind\n"
                                "allow socket arg0 == AF_UNIX\n"));
        ASSERT_TRUE(filter) << filter.error().text();
        EXPECT_EQ(filter->programs.size(), 1U);
        EXPECT_EQ(asked(*filter, "read", {}), SECCOMP_RET_ALLOW);
        EXPECT_EQ(asked(*filter, "write", {}), SECCOMP_RET_LOG);
        EXPECT_EQ(asked(*filter, "ptrace", {}), SECCOMP_RET_KILL_PROCESS);
        EXPECT_EQ(asked(*filter, "bind", {}), SECCOMP_RET_ERRNO | EACCES);
        EXPECT_EQ(asked(*filter, "socket", {1}), SECCOMP_RET_ALLOW);
        EXPECT_EQ(asked(*filter, "socket", {17}), kEperm);
        EXPECT_EQ(asked(*filter, "execve", {}), kEnosys);
}

TEST(SandboxCompile, CallsThatNoHeaderKnowsYetAreUnnamed) {
        const auto filter = compile(profile("allow read\nallow socket arg0 == AF_UNIX\n"));
        ASSERT_TRUE(filter);
        for (const int number : {470, 600, 1023, 0x3fffffff}) {
                seccomp_data data{.nr = number, .arch = seccomp_arch_native()};
                EXPECT_EQ(evaluate(*filter, data), kEnosys) << number;
        }
}

TEST(SandboxCompile, CallsOfAnotherArchitectureGetTheirOwnAnswer) {
        for (const std::string action : {"kill", "errno ENOSYS", "errno EPERM"}) {
                const Profile made = profile("foreign: " + action + "\nallow read\nallow socket arg0 == AF_UNIX\n");
                const auto filter = compile(made);
                ASSERT_TRUE(filter);
                for (const std::uint32_t arch :
                     std::vector<std::uint32_t>{AUDIT_ARCH_I386, AUDIT_ARCH_ARM, AUDIT_ARCH_S390X}) {
                        for (const int number : {0, 1, 3, 41, 102, 11}) {
                                EXPECT_EQ(evaluate(*filter, {.nr = number, .arch = arch}), test::answer(made.foreign));
                        }
                }
                // x32 has the same architecture and one bit of the number.
                if (seccomp_arch_native() == SCMP_ARCH_X86_64) {
                        for (const int number : {0, 1, 41, 512, 547}) {
                                EXPECT_EQ(evaluate(*filter, {.nr = number | 0x40000000, .arch = AUDIT_ARCH_X86_64}),
                                          test::answer(made.foreign))
                                        << number;
                        }
                }
        }
}

TEST(SandboxCompile, ATrialDeniesNothingAndLogsWhatWouldBeDenied) {
        const Profile made = profile("allow read\nkill ptrace\nerrno EPERM bind\nallow socket arg0 == AF_UNIX\n");
        const auto filter = compile(made, Denial::kLogOnly);
        ASSERT_TRUE(filter);
        EXPECT_EQ(asked(*filter, "read", {}), SECCOMP_RET_ALLOW);
        EXPECT_EQ(asked(*filter, "socket", {1}), SECCOMP_RET_ALLOW);
        for (const auto& [name, first] : std::vector<std::pair<std::string, std::uint64_t>>{
                     {"ptrace", 0}, {"bind", 0}, {"socket", 17}, {"execve", 0}}) {
                EXPECT_EQ(asked(*filter, name, {first}), SECCOMP_RET_LOG) << name;
        }
        EXPECT_EQ(evaluate(*filter, {.nr = 3, .arch = AUDIT_ARCH_I386}), SECCOMP_RET_LOG);
}

// Profiles of every form, and calls whose arguments lie at and around what the profile compares with.
class RandomProfile {
public:
        explicit RandomProfile(std::uint32_t seed) : random_(seed) {}

        std::string text() {
                std::string made =
                        pick<std::string>({"", "default: errno EPERM\n", "default: kill\n", "arguments: kill\n",
                                           "arguments: errno EACCES\n", "arguments: log\n"});
                for (const std::string& name : names()) {
                        switch (below(5)) {
                        case 0:
                                break;
                        case 1:
                                made += pick<std::string>({"allow ", "kill ", "errno EBUSY ", "log "}) + name + "\n";
                                break;
                        default:
                                made += lines(name);
                        }
                }
                return made + "allow exit_group\n";
        }

        Arguments arguments() {
                Arguments made{};
                for (std::uint64_t& argument : made) {
                        argument = value() ^ (below(4) == 0 ? 1ULL << below(64) : 0);
                        argument |= below(4) == 0 ? std::uint64_t{random_()} << 32 : 0;
                }
                return made;
        }

        static std::vector<std::string> names() {
                return {"read", "socket", "setsockopt", "mmap", "clone", "prctl", "ioctl", "bpf", "fcntl", "unshare"};
        }

private:
        unsigned below(unsigned limit) { return random_() % limit; }
        template <class T>
        T pick(std::initializer_list<T> of) {
                return *(of.begin() + below(static_cast<unsigned>(of.size())));
        }
        std::uint64_t value() { return pick<std::uint64_t>({0, 1, 2, 3, 10, 15, 0x7fffffff, 0x80000000, 0xffffffff}); }

        struct Step {
                unsigned argument;
                std::string mask;  // " & N", or of all 32 or 64 bits
                std::vector<std::string> values;
        };
        std::vector<Step> steps() {
                std::vector<Step> made;
                for (unsigned argument = below(2); argument < 6; argument += below(3) + 1) {
                        made.push_back(pick<Step>({{argument, "", {"0", "1", "2", "3", "0x7fffffff", "0xffffffff"}},
                                                   {argument, ":64", {"0", "1", "15", "0xffffffff", "0x100000001"}},
                                                   {argument, " & 15", {"0", "1", "2", "3", "10", "15"}},
                                                   {argument, " & 0x80000001", {"0", "1", "0x80000000"}},
                                                   {argument, ":64 & 0x8000000f00000003", {"0", "1", "2"}}}));
                }
                return made;
        }

        std::string lines(const std::string& name) {
                std::string made;
                for (unsigned number = below(6) + 1; number > 0; --number) {
                        made += "allow " + name + conditions() + "\n";
                }
                return made;
        }

        std::string conditions() {
                std::string made;
                for (const Step& step : steps()) {
                        std::vector<std::string> values = step.values;
                        std::shuffle(values.begin(), values.end(), random_);
                        values.resize(below(static_cast<unsigned>(values.size())) + 1);
                        made += (made.empty() ? " arg" : " and arg") + std::to_string(step.argument) + step.mask;
                        made += values.size() == 1 ? " == " : " in {";
                        for (const std::string& value : values) {
                                made += value + (value == values.back() ? "" : ", ");
                        }
                        made += values.size() == 1 ? "" : "}";
                }
                return made;
        }

        std::mt19937 random_;
};

TEST(SandboxCompile, RandomProfilesAnswerAsTheProfileSays) {
        unsigned allowed = 0;
        unsigned number = 0;
        for (std::uint32_t seed = 1; seed <= 150; ++seed) {
                RandomProfile random(seed);
                const std::string text = random.text();
                const Profile made = profile(text);
                const auto filter = compile(made);
                ASSERT_TRUE(filter) << filter.error().text() << "\n" << text;
                for (unsigned i = 0; i < 60; ++i) {
                        for (const std::string& name : RandomProfile::names()) {
                                const Arguments arguments = random.arguments();
                                const Action wanted = made.decide(name, arguments);
                                ASSERT_EQ(asked(*filter, name, arguments), test::answer(wanted))
                                        << "seed " << seed << ": " << name << " " << std::hex << arguments[0] << " "
                                        << arguments[1] << " " << arguments[2] << " " << arguments[3] << " "
                                        << arguments[4] << " " << arguments[5] << "\n"
                                        << text;
                                allowed += wanted.kind == ActionKind::kAllow ? 1 : 0;
                                ++number;
                        }
                }
        }
        EXPECT_GT(allowed, number / 10) << "too few calls were allowed to tell anything";
        EXPECT_LT(allowed, number / 10 * 9);
}

// The kernel's word on the same: a child that installs the filter and makes calls that harm nothing.
int in_child(const Filter& filter, const std::function<int()>& act) {
        const pid_t child = fork();
        if (child == 0) {
                if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || !filter.install()) {
                        _exit(99);
                }
                _exit(act());
        }
        int status = 0;
        waitpid(child, &status, 0);
        return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

TEST(SandboxCompile, TheKernelAnswersAsTheEvaluator) {
        const auto filter =
                compile(profile("allow exit_group write\nkill getppid\nerrno EBUSY getpgid\n"
                                "allow fcntl arg1 == F_GETFD\nallow socket arg0 == AF_UNIX and arg1 & 15 == "
                                "SOCK_STREAM\n"));
        ASSERT_TRUE(filter);
        const auto errno_after = [&](auto... arguments) {
                return in_child(*filter, [=] { return syscall(arguments...) < 0 ? errno : 0; });
        };
        EXPECT_EQ(errno_after(SYS_fcntl, 0, F_GETFD, 0), 0);
        EXPECT_EQ(errno_after(SYS_fcntl, 0, F_GETFL, 0), EPERM);
        EXPECT_EQ(errno_after(SYS_fcntl, 0, 0x5500000000L | F_GETFD, 0), 0) << "the kernel takes the lower half";
        EXPECT_EQ(errno_after(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), 0);
        EXPECT_EQ(errno_after(SYS_socket, AF_UNIX, SOCK_DGRAM, 0), EPERM);
        EXPECT_EQ(errno_after(SYS_socket, 0x100000000L | AF_INET, SOCK_STREAM, 0), EPERM);
        EXPECT_EQ(errno_after(SYS_getpgid, 0), EBUSY);
        EXPECT_EQ(errno_after(SYS_getuid), ENOSYS);
        EXPECT_EQ(errno_after(1000), ENOSYS);
        EXPECT_EQ(errno_after(SYS_getppid), -SIGSYS);
        // No second filter is to be had.
        EXPECT_EQ(errno_after(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, nullptr), ENOSYS);
}

TEST(SandboxCompile, AnExportedProgramIsTheInstalledOne) {
        const auto filter = compile(profile("allow read\n"));
        ASSERT_TRUE(filter);
        ASSERT_EQ(filter->programs.size(), 1U);
        const auto fd = to_memfd(filter->programs[0]);
        ASSERT_TRUE(fd);
        Filter::Program again(filter->programs[0].size() + 1);
        EXPECT_EQ(pread(fd->get(), again.data(), again.size() * sizeof(sock_filter), 0),
                  static_cast<ssize_t>(filter->programs[0].size() * sizeof(sock_filter)));
        EXPECT_EQ(
                std::memcmp(again.data(), filter->programs[0].data(), filter->programs[0].size() * sizeof(sock_filter)),
                0);
}

TEST(SandboxEvaluator, RefusesWhatTheKernelWouldRefuse) {
        EXPECT_FALSE(evaluate(Filter::Program{}, {}));
        EXPECT_FALSE(evaluate(Filter::Program{{BPF_LD | BPF_W | BPF_ABS, 0, 0, 64}, {BPF_RET | BPF_K, 0, 0, 0}}, {}));
        EXPECT_FALSE(evaluate(Filter::Program{{BPF_LD | BPF_W | BPF_ABS, 0, 0, 2}, {BPF_RET | BPF_K, 0, 0, 0}}, {}));
        EXPECT_FALSE(evaluate(Filter::Program{{BPF_LD | BPF_H | BPF_IND, 0, 0, 0}, {BPF_RET | BPF_K, 0, 0, 0}}, {}));
        EXPECT_FALSE(evaluate(Filter::Program{{BPF_JMP | BPF_JA, 0, 0, 9}, {BPF_RET | BPF_K, 0, 0, 0}}, {}));
}

}  // namespace
}  // namespace sockbroker::sandbox
