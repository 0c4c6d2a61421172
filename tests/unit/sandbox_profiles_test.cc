// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The profiles that are installed, as data: each against its golden dump, a table of calls with the expected answer of
// the compiled filter, and a lint over all of them. Tried for real in tests/netns.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <netinet/in.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <sstream>

#include "sandbox/compile.h"
#include "sandbox/evaluator.h"
#include "sandbox/load.h"
#include "support/seccomp_answer.h"

namespace sockbroker::sandbox {
namespace {

const std::string kFolder = SOCKBROKER_SOURCE_ROOT "/sandbox/profiles";

std::vector<std::string> names() {
        std::vector<std::string> found;
        for (const auto& entry : std::filesystem::directory_iterator(kFolder)) {
                if (entry.path().extension() == ".profile") {
                        found.push_back(entry.path().stem());
                }
        }
        std::ranges::sort(found);
        return found;
}

Profile load(const std::string& name) {
        ParsedProfile parsed = load_profile(name, {kFolder});
        for (const Diagnostic& error : parsed.errors) {
                ADD_FAILURE() << error.to_string();
        }
        return parsed.profile.value_or(Profile{});
}

class InstalledProfile : public testing::TestWithParam<std::string> {};

TEST_P(InstalledProfile, IsAsItsGoldenDump) {
        std::ifstream stream(SOCKBROKER_SOURCE_ROOT "/tests/data/" + GetParam() + ".profile.dump");
        std::stringstream golden;
        golden << stream.rdbuf();
        EXPECT_EQ(dump(load(GetParam())), golden.str())
                << "if the change is meant: sockbroker-run --profile=" << GetParam() << " --dump shows the new one";
}

// What a call like this may do depends on its arguments, so a profile allows it with conditions or says why not.
const std::set<std::string> kDangerous = {"bpf",
                                          "socket",
                                          "socketpair",
                                          "setsockopt",
                                          "mmap",
                                          "mmap2",
                                          "mprotect",
                                          "pkey_mprotect",
                                          "clone",
                                          "clone3",
                                          "ioctl",
                                          "prctl",
                                          "fcntl",
                                          "fcntl64",
                                          "ptrace",
                                          "process_vm_readv",
                                          "process_vm_writev",
                                          "io_uring_setup",
                                          "io_uring_enter",
                                          "io_uring_register",
                                          "seccomp",
                                          "personality",
                                          "unshare",
                                          "setns",
                                          "keyctl",
                                          "perf_event_open",
                                          "userfaultfd",
                                          "mount",
                                          "open_by_handle_at",
                                          "pidfd_getfd",
                                          "capset",
                                          "setuid",
                                          "setresuid",
                                          "socketcall",
                                          "ipc"};

// All that lies in sandbox/: those of services, and the broker's own.
TEST(SandboxProfiles, AllowNoDangerousCallWithoutConditionOrReason) {
        unsigned seen = 0;
        for (const auto& entry : std::filesystem::recursive_directory_iterator(SOCKBROKER_SOURCE_ROOT "/sandbox")) {
                if (entry.path().extension() != ".profile") {
                        continue;
                }
                ++seen;
                const ParsedProfile parsed = load_profile(entry.path(), {kFolder});
                ASSERT_TRUE(parsed.profile) << entry.path() << ": " << parsed.errors.front().to_string();
                for (const auto& [call, rule] : parsed.profile->rules) {
                        if (!kDangerous.contains(call) || rule.action.kind > ActionKind::kLog) {
                                continue;
                        }
                        for (const Line& line : rule.lines) {
                                EXPECT_TRUE(!line.conditions.empty() || line.comment.starts_with("why: "))
                                        << line.file << ":" << line.number << ": " << call
                                        << " without conditions needs its reason, # why: ..., on the line";
                        }
                }
        }
        EXPECT_GE(seen, 4U);
}

TEST_P(InstalledProfile, DecidesInTheFilterAsInTheText) {
        const Profile profile = load(GetParam());
        const auto filter = compile(profile);
        ASSERT_TRUE(filter) << filter.error().text();
        const std::vector<std::uint64_t> values = {0,     1,          2,          3,           6,
                                                   10,    15,         17,         19,          41,
                                                   78,    0x5401,     0x40000000, 0x10000000,  0xc00,
                                                   0x1ff, 0x7fffffff, 0xffffffff, 0x100000001, ~std::uint64_t{0}};
        for (int number = 0; number < 700; ++number) {
                const std::unique_ptr<char, void (*)(void*)> name(
                        seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, number), std::free);
                const std::string call = name ? name.get() : "no call of this number";
                for (const std::uint64_t a : values) {
                        for (const std::uint64_t b : values) {
                                const Arguments arguments = {a, b, b, a, 0, 0};
                                ASSERT_EQ(test::answer_of(*filter, number, arguments),
                                          test::answer(profile.decide(call, arguments)))
                                        << call << " " << std::hex << a << " " << b;
                        }
                }
        }
}

INSTANTIATE_TEST_SUITE_P(All, InstalledProfile, testing::ValuesIn(names()),
                         [](const auto& tested) { return tested.param; });

struct Row {
        std::string call;
        Arguments arguments;
        std::string by_default;
        std::string by_strict;
};

// One row, one statement of docs/sandbox.md.
const std::vector<Row> kTable = {
        {"read", {}, "allow", "allow"},
        {"accept4", {}, "allow", "allow"},
        {"execve", {}, "allow", "allow"},
        {"socket", {AF_UNIX, SOCK_DGRAM}, "allow", "errno EPERM"},
        {"socket", {AF_INET, SOCK_STREAM | SOCK_CLOEXEC}, "allow", "errno EPERM"},
        {"socket", {AF_INET6, SOCK_DGRAM, IPPROTO_UDP}, "allow", "errno EPERM"},
        {"socket", {AF_INET, SOCK_RAW, IPPROTO_ICMP}, "errno EPERM", "errno EPERM"},
        {"socket", {AF_INET6, SOCK_RAW, 58}, "errno EPERM", "errno EPERM"},
        {"socket", {AF_INET, SOCK_DGRAM, IPPROTO_ICMP}, "errno EPERM", "errno EPERM"},
        {"socket", {AF_INET, SOCK_STREAM, 262}, "errno EPERM", "errno EPERM"},
        {"socket", {AF_INET, SOCK_STREAM, 132}, "errno EPERM", "errno EPERM"},
        {"socket", {AF_INET, 10 /* SOCK_PACKET */}, "errno EPERM", "errno EPERM"},
        {"socket", {AF_PACKET, SOCK_RAW}, "errno EPERM", "errno EPERM"},
        {"socket", {AF_NETLINK, SOCK_RAW}, "errno EPERM", "errno EPERM"},
        {"socket", {40 /* AF_VSOCK */, SOCK_STREAM}, "errno EPERM", "errno EPERM"},
        {"socket", {38 /* AF_ALG */, SOCK_SEQPACKET}, "errno EPERM", "errno EPERM"},
        {"socket", {44 /* AF_XDP */, SOCK_RAW}, "errno EPERM", "errno EPERM"},
        {"socket", {0xff00000011, SOCK_RAW}, "errno EPERM", "errno EPERM"},
        {"socketpair", {AF_UNIX, SOCK_STREAM}, "allow", "allow"},
        {"socketpair", {AF_INET, SOCK_STREAM}, "errno EPERM", "errno EPERM"},
        {"socketpair", {AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC}, "allow", "allow"},
        {"socketpair", {AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC}, "allow", "errno EPERM"},
        {"sendto", {3, 0, 0, MSG_NOSIGNAL}, "allow", "allow"},
        {"sendto", {3, 0, 0, MSG_FASTOPEN}, "allow", "errno EPERM"},
        {"sendmsg", {3, 0, MSG_FASTOPEN | MSG_DONTWAIT}, "allow", "errno EPERM"},
        {"sendmmsg", {3, 0, 1, MSG_FASTOPEN}, "allow", "errno EPERM"},
        {"bind", {}, "allow", "errno EPERM"},
        {"connect", {}, "allow", "errno EPERM"},
        {"listen", {}, "allow", "allow"},
        {"setsockopt", {3, SOL_SOCKET, SO_REUSEPORT}, "allow", "allow"},
        {"setsockopt", {3, IPPROTO_IP, 24 /* IP_BIND_ADDRESS_NO_PORT */}, "allow", "allow"},
        {"setsockopt", {3, IPPROTO_IP, 8 /* IP_PKTINFO */}, "allow", "allow"},
        {"setsockopt", {3, IPPROTO_IP, 19 /* IP_TRANSPARENT */}, "errno EPERM", "errno EPERM"},
        {"setsockopt", {3, IPPROTO_IP, 15 /* IP_FREEBIND */}, "errno EPERM", "errno EPERM"},
        {"setsockopt", {3, IPPROTO_IP, 51 /* IP_LOCAL_PORT_RANGE */}, "errno EPERM", "errno EPERM"},
        {"setsockopt", {3, IPPROTO_IPV6, 75 /* IPV6_TRANSPARENT */}, "errno EPERM", "errno EPERM"},
        {"setsockopt", {3, IPPROTO_IPV6, 78 /* IPV6_FREEBIND */}, "errno EPERM", "errno EPERM"},
        {"setsockopt", {3, 0x700000000 | IPPROTO_IP, 19}, "errno EPERM", "errno EPERM"},
        {"setsockopt", {3, IPPROTO_IP, 0x700000000 | 19}, "errno EPERM", "errno EPERM"},
        {"setsockopt", {3, IPPROTO_IP, 3 /* IP_HDRINCL */}, "errno EPERM", "errno EPERM"},
        {"setsockopt", {3, IPPROTO_IP, 4 /* IP_OPTIONS */}, "errno EPERM", "errno EPERM"},
        {"setsockopt", {3, IPPROTO_IP, 64 /* IPT_SO_SET_REPLACE */}, "errno EPERM", "errno EPERM"},
        {"setsockopt", {3, SOL_SOCKET, SO_MARK}, "errno EPERM", "errno EPERM"},
        {"setsockopt", {3, SOL_SOCKET, SO_BINDTODEVICE}, "errno EPERM", "errno EPERM"},
        {"setsockopt", {3, SOL_SOCKET, SO_PRIORITY}, "allow", "allow"},
        {"setsockopt", {3, SOL_SOCKET, SO_RCVBUFFORCE}, "errno EPERM", "errno EPERM"},
        {"setsockopt", {3, SOL_SOCKET, SO_ATTACH_FILTER}, "errno EPERM", "errno EPERM"},
        {"setsockopt", {3, SOL_SOCKET, 52 /* SO_ATTACH_REUSEPORT_EBPF */}, "errno EPERM", "errno EPERM"},
        {"setsockopt", {3, IPPROTO_TCP, 19 /* TCP_REPAIR */}, "errno EPERM", "errno EPERM"},
        {"setsockopt", {3, IPPROTO_TCP, 31 /* TCP_ULP */}, "errno EPERM", "errno EPERM"},
        {"setsockopt", {3, IPPROTO_UDP, 100 /* UDP_ENCAP */}, "errno EPERM", "errno EPERM"},
        {"mmap", {0, 4096, PROT_READ | PROT_EXEC}, "allow", "allow"},
        {"mmap", {0, 4096, PROT_WRITE | PROT_EXEC}, "allow", "errno EPERM"},
        {"mprotect", {0, 4096, PROT_READ}, "allow", "allow"},
        {"mprotect", {0, 4096, PROT_READ | PROT_EXEC}, "allow", "errno EPERM"},
        {"clone", {SIGCHLD}, "allow", "allow"},
        {"clone", {CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM}, "allow", "allow"},
        {"clone", {SIGCHLD | CLONE_NEWUSER}, "errno EPERM", "errno EPERM"},
        {"clone", {SIGCHLD | CLONE_NEWNET}, "errno EPERM", "errno EPERM"},
        {"clone3", {}, "errno ENOSYS", "errno ENOSYS"},
        {"unshare", {CLONE_NEWUSER}, "errno EPERM", "errno EPERM"},
        {"setns", {}, "errno EPERM", "errno EPERM"},
        {"prctl", {PR_SET_NAME}, "allow", "allow"},
        {"prctl", {PR_CAP_AMBIENT}, "errno EPERM", "errno EPERM"},
        {"prctl", {PR_SET_MM}, "errno EPERM", "errno EPERM"},
        {"prctl", {PR_SET_PTRACER}, "errno EPERM", "errno EPERM"},
        {"prctl", {PR_SET_SECUREBITS}, "errno EPERM", "errno EPERM"},
        {"fcntl", {0, F_SETFL}, "allow", "allow"},
        {"fcntl", {0, F_SETLEASE}, "errno EPERM", "errno EPERM"},
        {"ioctl", {0, 0x541b /* FIONREAD */}, "allow", "allow"},
        {"ioctl", {0, 0x5412 /* TIOCSTI */}, "errno EPERM", "errno EPERM"},
        {"ioctl", {0, 0x8914 /* SIOCSIFFLAGS */}, "errno EPERM", "errno EPERM"},
        {"ioctl", {0, 0x7201 /* a network namespace's own */}, "errno EPERM", "errno EPERM"},
        {"openat", {0, 0, O_RDONLY, 04755}, "allow", "allow"},
        {"openat", {0, 0, O_WRONLY | O_CREAT, 0644}, "allow", "allow"},
        {"openat", {0, 0, O_WRONLY | O_CREAT, 04755}, "errno EPERM", "errno EPERM"},
        {"openat", {0, 0, O_WRONLY | O_TMPFILE, 04755}, "errno EPERM", "errno EPERM"},
        {"openat2", {}, "errno ENOSYS", "errno ENOSYS"},
        {"fchmodat", {0, 0, 0755}, "allow", "allow"},
        {"fchmodat", {0, 0, 02755}, "errno EPERM", "errno EPERM"},
        {"personality", {0xffffffff}, "allow", "allow"},
        {"personality", {0x0040000 /* ADDR_NO_RANDOMIZE */}, "errno EPERM", "errno EPERM"},
        {"seccomp", {1}, "allow", "allow"},
        {"setresuid", {}, "allow", "errno EPERM"},
        {"setgroups", {}, "errno EPERM", "errno EPERM"},
        {"capset", {}, "allow", "errno EPERM"},
        {"capget", {}, "allow", "allow"},
        {"bpf", {}, "errno EPERM", "errno EPERM"},
        {"io_uring_setup", {}, "errno EPERM", "errno EPERM"},
        {"ptrace", {}, "errno EPERM", "errno EPERM"},
        {"process_vm_readv", {}, "errno EPERM", "errno EPERM"},
        {"pidfd_getfd", {}, "errno EPERM", "errno EPERM"},
        {"keyctl", {}, "errno EPERM", "errno EPERM"},
        {"perf_event_open", {}, "errno EPERM", "errno EPERM"},
        {"userfaultfd", {}, "errno EPERM", "errno EPERM"},
        {"open_by_handle_at", {}, "errno EPERM", "errno EPERM"},
        {"mount", {}, "errno EPERM", "errno EPERM"},
        {"init_module", {}, "errno EPERM", "errno EPERM"},
        {"kexec_load", {}, "errno EPERM", "errno EPERM"},
        {"vserver", {}, "errno ENOSYS", "errno ENOSYS"},
};

TEST(SandboxProfiles, AnswerEachCallOfTheTable) {
        for (const std::string name : {"default", "strict"}) {
                const auto filter = compile(load(name));
                ASSERT_TRUE(filter);
                for (const Row& row : kTable) {
                        const int number = seccomp_syscall_resolve_name(row.call.c_str());
                        if (number < 0) {
                                continue;  // of another architecture
                        }
                        EXPECT_EQ(test::text_of(test::answer_of(*filter, number, row.arguments)),
                                  name == "default" ? row.by_default : row.by_strict)
                                << name << ": " << row.call << " " << std::hex << row.arguments[0] << " "
                                << row.arguments[1] << " " << row.arguments[2];
                }
        }
}

// What the kernel answers to the call in a child that lives under the filter; -1: it was killed.
int errno_in_child(const Filter& filter, long number, const Arguments& a) {
        const pid_t child = fork();
        if (child == 0) {
                if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || !filter.install()) {
                        _exit(255);
                }
                _exit(syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]) < 0 ? errno : 0);
        }
        int status = 0;
        waitpid(child, &status, 0);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int expected(const Action& denial) {
        return denial.kind == ActionKind::kKill ? -1 : denial.errnum;
}

TEST_P(InstalledProfile, EachDeniedCallIsDeniedByTheKernel) {
        const Profile profile = load(GetParam());
        const auto filter = compile(profile);
        ASSERT_TRUE(filter);
        unsigned tried = 0;
        for (const auto& [call, rule] : profile.rules) {
                const int number = seccomp_syscall_resolve_name(call.c_str());
                if (number < 0 || rule.action.kind == ActionKind::kAllow || rule.action.kind == ActionKind::kLog) {
                        continue;
                }
                EXPECT_EQ(errno_in_child(*filter, number, {}), expected(rule.action)) << call;
                ++tried;
        }
        EXPECT_GE(tried, 1U);
        for (const int unnamed : {511, 999}) {
                EXPECT_EQ(errno_in_child(*filter, unnamed, {}), expected(profile.unnamed)) << unnamed;
        }
}

TEST(SandboxProfiles, EachDeniedRowOfTheTableIsDeniedByTheKernel) {
        for (const std::string name : {"default", "strict"}) {
                const auto filter = compile(load(name));
                ASSERT_TRUE(filter);
                for (const Row& row : kTable) {
                        const std::string& wanted = name == "default" ? row.by_default : row.by_strict;
                        const int number = seccomp_syscall_resolve_name(row.call.c_str());
                        if (number >= 0 && wanted != "allow") {
                                const int got = errno_in_child(*filter, number, row.arguments);
                                EXPECT_EQ((Action{ActionKind::kErrno, got}).to_string(), wanted)
                                        << name << ": " << row.call << " " << std::hex << row.arguments[1];
                        }
                }
        }
}

TEST(SandboxProfiles, StrictAllowsNothingThatDefaultDoesNot) {
        const Profile wide = load("default");
        for (const auto& [call, rule] : load("strict").rules) {
                if (rule.action.kind == ActionKind::kAllow) {
                        EXPECT_EQ(wide.rules.at(call).action.kind, ActionKind::kAllow) << call;
                }
        }
}

}  // namespace
}  // namespace sockbroker::sandbox
