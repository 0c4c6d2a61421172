// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The decisions of sockbroker-run --supervise: what a bind is, which address its socket gets, which socket takes its
// place, what the program hears, which calls come to the supervisor at all.
#include <fcntl.h>
#include <linux/audit.h>
#include <netinet/in.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include <cstring>
#include <set>

#include <gtest/gtest.h>

#include "sandbox/evaluator.h"
#include "sandbox/supervise/address.h"
#include "sandbox/supervise/answers.h"
#include "sandbox/supervise/broker_link.h"
#include "sandbox/supervise/own_filter.h"
#include "sandbox/supervise/plan.h"
#include "sandbox/supervise/spares.h"
#include "sandbox/supervise/table.h"
#include "sandbox/supervise/trap.h"
#include "sandbox/supervise/unix_bind.h"
#include "tests/unit/support/socket_kinds.h"

namespace sockbroker::supervise {
namespace {

constexpr SocketKind kTcp4{AF_INET, SOCK_STREAM, IPPROTO_TCP};
constexpr SocketKind kUdp4{AF_INET, SOCK_DGRAM, IPPROTO_UDP};
constexpr SocketKind kTcp6{AF_INET6, SOCK_STREAM, IPPROTO_TCP};
constexpr SocketKind kTcp6Only{AF_INET6, SOCK_STREAM, IPPROTO_TCP, true};

std::vector<std::byte> bytes_of(const void* data, std::size_t size) {
        const auto* first = static_cast<const std::byte*>(data);
        return {first, first + size};
}

std::vector<std::byte> v4(const char* address, std::uint16_t port, sa_family_t family = AF_INET) {
        const auto parsed = parse_address(address);
        sockaddr_in one{.sin_family = family, .sin_port = htons(port)};
        std::memcpy(&one.sin_addr, parsed->bytes.data(), 4);
        return bytes_of(&one, sizeof one);
}

std::vector<std::byte> v6(const char* address, std::uint16_t port) {
        const auto parsed = parse_address(address);
        sockaddr_in6 one{.sin6_family = AF_INET6, .sin6_port = htons(port)};
        std::memcpy(&one.sin6_addr, parsed->bytes.data(), 16);
        return bytes_of(&one, sizeof one);
}

std::vector<std::byte> mapped(const char* address, std::uint16_t port) {
        const auto whole = to_socket_address({.address = *parse_address(address), .port = port}, true);
        return bytes_of(&whole.storage, whole.size);
}

std::string planned(const SocketKind& socket, const std::vector<std::byte>& bytes,
                    const std::vector<Limit>& limits = {}) {
        const auto [asked, errnum] = plan_bind(socket, bytes, limits);
        if (errnum != 0) {
                return asked ? "both" : strerrorname_np(errnum);
        }
        return asked ? describe(*asked) + (asked->ipv6 ? " 6" : "") + (asked->dual ? " dual" : "") : "as asked";
}

std::vector<std::byte> cut(std::vector<std::byte> bytes, std::size_t size) {
        bytes.resize(size);
        return bytes;
}

TEST(Plan, WhatIsTakenOverAndWhatIsMadeAsAsked) {
        EXPECT_EQ(planned(kTcp4, v4("0.0.0.0", 80)), "tcp 0.0.0.0:80");
        EXPECT_EQ(planned(kTcp4, v4("0.0.0.0", 80, AF_UNSPEC)), "tcp 0.0.0.0:80");
        EXPECT_EQ(planned(kTcp4, v4("1.0.0.1", 80)), "tcp 1.0.0.1:80");
        EXPECT_EQ(planned(kUdp4, v4("1.0.0.1", 53)), "udp 1.0.0.1:53");
        EXPECT_EQ(planned(kTcp6, v6("::", 443)), "tcp [::]:443 6 dual");
        EXPECT_EQ(planned(kTcp6Only, v6("::", 443)), "tcp [::]:443 6");
        EXPECT_EQ(planned(kTcp6, v6("2606:4700::1", 443)), "tcp [2606:4700::1]:443 6");
        EXPECT_EQ(planned(kTcp6, cut(v6("2606:4700::1", 443), 24)), "tcp [2606:4700::1]:443 6");  // RFC 2133
        EXPECT_EQ(planned(kTcp6, mapped("1.0.0.1", 80)), "tcp 1.0.0.1:80 6");
        EXPECT_EQ(planned(kTcp6, mapped("0.0.0.0", 80)), "tcp 0.0.0.0:80 6");

        EXPECT_EQ(planned(kTcp4, v4("0.0.0.0", 0)), "as asked");
        EXPECT_EQ(planned(kTcp4, v4("127.0.0.1", 80)), "as asked");
        EXPECT_EQ(planned(kTcp4, v4("127.255.0.9", 80)), "as asked");
        EXPECT_EQ(planned(kTcp6, v6("::1", 80)), "as asked");
        EXPECT_EQ(planned(kTcp6, mapped("127.0.0.1", 80)), "as asked");
        // Nothing that the broker dispatches.
        EXPECT_EQ(planned({AF_INET, SOCK_RAW, IPPROTO_ICMP}, v4("0.0.0.0", 80)), "as asked");
        EXPECT_EQ(planned({AF_INET, SOCK_STREAM, IPPROTO_SCTP}, v4("0.0.0.0", 80)), "as asked");
        EXPECT_EQ(planned({AF_UNIX, SOCK_STREAM, 0}, v4("0.0.0.0", 80)), "as asked");
        EXPECT_EQ(planned({AF_NETLINK, SOCK_RAW, 0}, v4("0.0.0.0", 80)), "as asked");
}

// Another thread may have changed the options, and with them the kernel's mind, when it is asked.
TEST(Plan, WhatTheKernelRefusesForTheSocketsOptionsIsNotLeftToIt) {
        EXPECT_EQ(planned(kTcp6Only, mapped("1.0.0.1", 80)), "EINVAL");
        EXPECT_EQ(planned(kTcp6Only, mapped("0.0.0.0", 80)), "EINVAL");
        EXPECT_EQ(planned({AF_INET6, SOCK_DGRAM, IPPROTO_UDP, true}, mapped("1.0.0.1", 53)), "EINVAL");
        // IPV6_ADDRFORM makes a socket of IPv4 of one of IPv6.
        EXPECT_EQ(planned(kTcp6, v4("0.0.0.0", 80)), "EINVAL");
        EXPECT_EQ(planned(kTcp6, cut(v6("::", 80), 23)), "EINVAL");
        auto unspecified = v6("::", 80);
        unspecified[0] = unspecified[1] = std::byte{AF_UNSPEC};
        EXPECT_EQ(planned(kTcp6, unspecified), "EAFNOSUPPORT");
        EXPECT_EQ(planned(kTcp4, v4("1.0.0.1", 80, AF_UNSPEC)), "EAFNOSUPPORT");
        EXPECT_EQ(planned(kTcp4, v4("0.0.0.0", 80, AF_INET6)), "EAFNOSUPPORT");
        EXPECT_EQ(planned(kTcp4, v6("::", 80)), "EAFNOSUPPORT");
        EXPECT_EQ(planned(kTcp4, cut(v4("0.0.0.0", 80), 15)), "EINVAL");
        EXPECT_EQ(planned(kTcp4, {}), "EINVAL");
        EXPECT_TRUE(nobody_takes({AF_INET6, SOCK_DGRAM, IPPROTO_UDPLITE, true}, mapped("1.0.0.1", 80), {}));

        // What is as asked is so with every option.
        EXPECT_EQ(planned(kTcp6Only, mapped("1.0.0.1", 0)), "as asked");
        EXPECT_EQ(planned(kTcp6Only, mapped("127.0.0.1", 80)), "as asked");
        EXPECT_EQ(planned(kTcp6Only, mapped("1.0.0.1", 81), {*parse_limit("tcp:80")}), "as asked");
}

TEST(Plan, LimitsLeaveTheRestToTheKernel) {
        const std::vector<Limit> limits{*parse_limit("tcp:80"), *parse_limit("udp:*"), *parse_limit("tcp:8000-8999")};
        EXPECT_EQ(planned(kTcp4, v4("0.0.0.0", 80), limits), "tcp 0.0.0.0:80");
        EXPECT_EQ(planned(kTcp4, v4("0.0.0.0", 8443), limits), "tcp 0.0.0.0:8443");
        EXPECT_EQ(planned(kTcp4, v4("0.0.0.0", 81), limits), "as asked");
        EXPECT_EQ(planned(kUdp4, v4("0.0.0.0", 53), limits), "udp 0.0.0.0:53");
        for (const char* bad : {"", "80", "tcp", "tcp:", "tcp:0", "sctp:80", "tcp:90-80", "tcp:80,81", " tcp:80"}) {
                EXPECT_FALSE(parse_limit(bad)) << bad;
        }
}

TEST(Plan, AUnixAddressNamesAFileOrNot) {
        sockaddr_un one{.sun_family = AF_UNIX};
        EXPECT_FALSE(names_file(bytes_of(&one, sizeof(sa_family_t))));
        EXPECT_FALSE(names_file(bytes_of(&one, sizeof one)));  // abstract
        one.sun_path[0] = 'a';
        EXPECT_TRUE(names_file(bytes_of(&one, sizeof(sa_family_t) + 1)));
}

TEST(Address, EachServiceHasPlacesOfItsOwnThatStay) {
        std::set<std::string> seen;
        for (int i = 0; i < 2000; i++) {
                const auto name = "service-" + std::to_string(i);
                for (unsigned attempt = 0; attempt < kPlaces; attempt++) {
                        const auto ipv4 = place_of(name, Family::kIpv4, attempt);
                        const auto ipv6 = place_of(name, Family::kIpv6, attempt);
                        EXPECT_EQ(ipv4.bytes[0], 127);
                        EXPECT_GE(ipv4.bytes[1], 64);
                        EXPECT_LT(ipv4.bytes[1], 224);
                        EXPECT_NE(ipv4.bytes[3], 0);
                        EXPECT_NE(ipv4.bytes[3], 255);
                        EXPECT_TRUE(ipv6.to_string().starts_with("fd73:6f63:6b62:")) << ipv6.to_string();
                        seen.insert(ipv4.to_string());
                        seen.insert(ipv6.to_string());
                        EXPECT_EQ(place_of(name, Family::kIpv4, attempt), ipv4);
                }
        }
        EXPECT_GT(seen.size(), 2U * 2000 * kPlaces - 60);  // of six million places
        // The next version must join the group of this one.
        EXPECT_EQ(place_of("web", Family::kIpv4, 0).to_string(), "127.93.37.232");
        EXPECT_EQ(place_of("web", Family::kIpv6, 0).to_string(), "fd73:6f63:6b62:a128:3c6c:46fc:529d:ef3");
}

TEST(Address, LowPortsOfTcpBecomeHighAndUdpKeepsItsPort) {
        using Ports = std::vector<std::uint16_t>;
        EXPECT_EQ(ports_of(Protocol::kTcp, 80, 1024), Ports({20080}));
        EXPECT_EQ(ports_of(Protocol::kTcp, 1023, 1024), Ports({21023}));
        EXPECT_EQ(ports_of(Protocol::kTcp, 1024, 1024), Ports({1024, 21024}));
        EXPECT_EQ(ports_of(Protocol::kTcp, 80, 80), Ports({80, 20080}));
        EXPECT_EQ(ports_of(Protocol::kTcp, 80, 0), Ports({80, 20080}));
        EXPECT_EQ(ports_of(Protocol::kTcp, 20000, 1024), Ports({20000}));
        EXPECT_EQ(ports_of(Protocol::kUdp, 53, 1024), Ports({53}));
        EXPECT_GE(ports_of(Protocol::kTcp, 65000, 65535).front(), 55535);
}

TEST(OwnFilter, NoFileIsWrittenNorEmptiedAndMemoryOnlyForAskedNames) {
        const auto plain = own_profile(false);
        const auto names = own_profile(true);
        ASSERT_TRUE(plain && names);
        const auto opened = [&](std::uint64_t flags) {
                return plain->decide("openat", {0, 0, flags}).kind == sandbox::ActionKind::kAllow;
        };
        EXPECT_TRUE(opened(O_RDONLY | O_CLOEXEC));
        EXPECT_TRUE(opened(O_PATH | O_DIRECTORY | O_CLOEXEC));
        for (const int flags : {O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_TMPFILE, O_RDONLY | O_TRUNC}) {
                EXPECT_FALSE(opened(static_cast<std::uint64_t>(flags))) << flags;
        }
        EXPECT_EQ(plain->decide("process_vm_writev", {}).kind, sandbox::ActionKind::kErrno);
        EXPECT_EQ(names->decide("process_vm_writev", {}).kind, sandbox::ActionKind::kAllow);
        EXPECT_EQ(names->rules.size(), plain->rules.size() + 1);
}

TEST(Answers, EachCodeHasAnErrno) {
        EXPECT_EQ(errno_of("not-permitted"), EACCES);
        EXPECT_EQ(errno_of("unknown-service"), EACCES);
        EXPECT_EQ(errno_of("ambiguous"), EACCES);
        EXPECT_EQ(errno_of("busy"), EADDRINUSE);
        EXPECT_EQ(errno_of("quota"), ENOBUFS);
        EXPECT_EQ(errno_of("unreachable"), EAGAIN);
        EXPECT_EQ(errno_of("too-few-descriptors"), EAGAIN);
        EXPECT_EQ(errno_of("internal"), EIO);
        EXPECT_EQ(errno_of("what is this"), EIO);
}

TEST(Plan, SocketsOfOtherTransportsAreNobodys) {
        const SocketKind mptcp{.domain = AF_INET, .type = SOCK_STREAM, .protocol = 262};
        const SocketKind udplite6{.domain = AF_INET6, .type = SOCK_DGRAM, .protocol = IPPROTO_UDPLITE};
        EXPECT_TRUE(nobody_takes(mptcp, v4("0.0.0.0", 80), {}));
        EXPECT_TRUE(nobody_takes(udplite6, v6("::", 80), {}));
        EXPECT_FALSE(nobody_takes(mptcp, v4("127.0.0.1", 80), {}));
        EXPECT_FALSE(nobody_takes(mptcp, v4("0.0.0.0", 0), {}));
        EXPECT_FALSE(nobody_takes(mptcp, v4("0.0.0.0", 80), {{Protocol::kTcp, {80, 80}}}));
        EXPECT_FALSE(nobody_takes({.domain = AF_INET, .type = SOCK_DGRAM, .protocol = IPPROTO_ICMP},
                                  v4("192.0.2.1", 80), {}));
        EXPECT_FALSE(
                nobody_takes({.domain = AF_INET, .type = SOCK_RAW, .protocol = IPPROTO_SCTP}, v4("192.0.2.1", 80), {}));
        EXPECT_FALSE(nobody_takes(kTcp4, v4("0.0.0.0", 80), {}));
}

TEST(BrokerLink, ALineOfAMatchIsRead) {
        Taken taken;
        read_taker(R"({"service":"web","protocol":"tcp","prefix":null,"ports":"80","handover":"replace",)"
                   R"("hold_usec":30000000,"reuse_port":false,"file":"/x","line":3})",
                   taken);
        EXPECT_EQ(taken.service, "web");
        EXPECT_TRUE(taken.holds);
        EXPECT_FALSE(taken.reuse_port);
        Taken other;
        read_taker(R"({"service":"a.b","hold_usec":0,"reuse_port":true,"file":"/x"})", other);
        EXPECT_EQ(other.service, "a.b");
        EXPECT_FALSE(other.holds);
        EXPECT_TRUE(other.reuse_port);
        Taken nothing;
        for (const char* bad : {"", "{}", R"("service":)", R"("service":"a b")", R"("hold_usec":)", R"("reuse_port":)",
                                R"("reuse_port":"true")"}) {
                read_taker(bad, nothing);
                EXPECT_EQ(nothing.service, "");
                EXPECT_FALSE(nothing.holds);
                EXPECT_FALSE(nothing.reuse_port);
        }
}

TEST(Table, ForgetsTheOneUsedLongestAgo) {
        Table table(3);
        for (std::uint64_t cookie = 1; cookie <= 3; cookie++) {
                table.put(cookie, {.registered_for = static_cast<pid_t>(cookie)});
        }
        EXPECT_NE(table.find(1), nullptr);
        table.put(4, {});
        EXPECT_EQ(table.find(2), nullptr);
        EXPECT_EQ(table.find(1)->registered_for, 1);
        EXPECT_EQ(table.size(), 3U);
        table.put(1, {.registered_for = 9});
        EXPECT_EQ(table.find(1)->registered_for, 9);
        EXPECT_EQ(table.size(), 3U);
}

TEST(Table, WhatWaitsForListenIsForgottenLast) {
        Table table(2);
        table.put(1, {.services = {"waits"}});
        table.put(2, {.services = {"registered"}}).registered_for = 7;
        table.note_changed(2);
        for (std::uint64_t cookie = 10; cookie < 20; cookie++) {
                table.put(cookie, {});
        }
        EXPECT_EQ(table.size(), 4U) << "two as asked, which take no room from the others";
        EXPECT_NE(table.find(2), nullptr);
        EXPECT_NE(table.find(1), nullptr);
        table.put(3, {.services = {"waits too"}});
        EXPECT_EQ(table.find(2), nullptr) << "though it was used later than 1 was put";
        EXPECT_NE(table.find(1), nullptr);
        table.put(4, {.services = {"and another"}});
        EXPECT_EQ(table.find(3), nullptr);
        EXPECT_NE(table.find(1), nullptr);
        table.find(1)->registered_for = 7;
        table.note_changed(1);
        table.put(5, {.services = {"waits"}});
        EXPECT_EQ(table.find(1), nullptr);
        EXPECT_NE(table.find(4), nullptr);
        table.put(4, {});  // bound anew, as asked
        EXPECT_TRUE(table.find(4)->services.empty());
        EXPECT_EQ(table.size(), 3U);
}

Spare spare(Protocol protocol, int domain, SocketFamily family, std::uint16_t port, bool held = false,
            const char* service = "web") {
        Spare made{.service = service, .held = held};
        made.facts.domain = domain;
        made.facts.protocol = protocol;
        made.facts.family = family;
        made.facts.listening = protocol == Protocol::kTcp;
        made.facts.bound.port = port;
        return made;
}

TEST(Spares, TheOneThatFitsBest) {
        const auto tcp = Protocol::kTcp;
        const auto udp = Protocol::kUdp;
        const std::vector<Spare> spares = {spare(tcp, AF_INET, SocketFamily::kIpv4, 8080),
                                           spare(tcp, AF_INET, SocketFamily::kIpv4, 20080, true),
                                           spare(tcp, AF_INET6, SocketFamily::kIpv6, 8080),
                                           spare(tcp, AF_INET6, SocketFamily::kDual, 8080),
                                           spare(udp, AF_INET, SocketFamily::kIpv4, 53),
                                           spare(udp, AF_INET, SocketFamily::kIpv4, 54),
                                           spare(tcp, AF_INET, SocketFamily::kIpv4, 1, false, "other"),
                                           spare(tcp, AF_INET, SocketFamily::kIpv4, 20081, true, "held")};
        const auto chosen = [&](const SocketKind& socket, const std::vector<std::byte>& bytes,
                                const char* service = "web") {
                const auto asked = plan_bind(socket, bytes, {}).taken_over;
                const auto found = choose(spares, service, *asked, ports_of(asked->protocol, asked->at.port, 1024));
                return found ? static_cast<int>(*found) : -1;
        };
        EXPECT_EQ(chosen(kTcp4, v4("0.0.0.0", 80)), 0);  // a .socket unit's before a held one
        EXPECT_EQ(chosen(kTcp6Only, v6("::", 80)), 2);
        EXPECT_EQ(chosen(kTcp6, v6("::", 80)), 3);
        EXPECT_EQ(chosen(kTcp6, v6("2606:4700::1", 80)), 2);
        EXPECT_EQ(chosen(kTcp6, mapped("1.0.0.1", 80)), 3);  // one of IPv6 alone takes no IPv4
        EXPECT_EQ(chosen(kUdp4, v4("0.0.0.0", 54)), 5);
        EXPECT_EQ(chosen(kUdp4, v4("0.0.0.0", 55)), -1);  // answers would carry another port
        EXPECT_EQ(chosen(kTcp4, v4("0.0.0.0", 80), "none"), -1);
        EXPECT_EQ(chosen(kTcp4, v4("0.0.0.0", 81), "held"), 7);
        EXPECT_EQ(chosen(kTcp4, v4("0.0.0.0", 82), "held"), -1);  // another one of the program's
}

TEST(Spares, EachHeldOneIsEndedAtItsTimeWhateverComesLater) {
        using std::chrono::seconds;
        const Time begun = std::chrono::steady_clock::now();
        Spares spares;
        EXPECT_EQ(spares.next_drop(), Time::max());
        spares.add("web", test::listener());
        EXPECT_EQ(spares.next_drop(), Time::max());
        const OwnedFd first = test::listener();
        const OwnedFd second = test::listener();
        const auto copy = [](const OwnedFd& fd) { return OwnedFd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 3)); };
        spares.add_held("web", copy(first), begun + seconds(10));
        spares.add_held("web", copy(second), begun + seconds(15));
        spares.add_held("web", copy(first), begun + seconds(20));  // of a second service
        EXPECT_EQ(spares.next_drop(), begun + seconds(10));
        spares.drop_held(begun + seconds(9));
        EXPECT_TRUE(probe_socket(first.get())->listening);
        spares.drop_held(begun + seconds(10));
        EXPECT_FALSE(probe_socket(first.get())->listening);
        EXPECT_TRUE(probe_socket(second.get())->listening);
        EXPECT_EQ(spares.next_drop(), begun + seconds(15));
        spares.drop_held(begun + seconds(15));
        EXPECT_FALSE(probe_socket(second.get())->listening);
        EXPECT_EQ(spares.next_drop(), Time::max());
}

#if defined(__x86_64__)
std::uint32_t decided(long nr, std::uint64_t a0 = 0, std::uint64_t a2 = 0, std::uint32_t arch = AUDIT_ARCH_X86_64,
                      bool names = false) {
        seccomp_data data{.nr = static_cast<int>(nr), .arch = arch, .instruction_pointer = 0, .args = {a0, 0, a2}};
        return *sandbox::evaluate(trap_program(names), data);
}

TEST(Trap, BindAndListenAloneComeToTheSupervisor) {
        constexpr auto refused = [](int errnum) { return SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(errnum); };
        EXPECT_EQ(decided(SYS_bind), SECCOMP_RET_USER_NOTIF);
        EXPECT_EQ(decided(SYS_listen), SECCOMP_RET_USER_NOTIF);
        EXPECT_EQ(decided(SYS_socket, AF_INET, 262), refused(EPROTONOSUPPORT));
        EXPECT_EQ(decided(SYS_socket, AF_INET6, 0xffffffff00000000 | 262), refused(EPROTONOSUPPORT));
        EXPECT_EQ(decided(SYS_socket, AF_INET, IPPROTO_TCP), SECCOMP_RET_ALLOW);
        // A ring may be inherited from outside, and IORING_OP_BIND and IORING_OP_LISTEN (6.11) pass no filter.
        for (const long nr : {SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register}) {
                EXPECT_EQ(decided(nr), refused(ENOSYS)) << nr;
        }
        EXPECT_EQ(decided(SYS_bind | 0x40000000), refused(ENOSYS));  // x32
        EXPECT_EQ(decided(361, 0, 0, AUDIT_ARCH_I386), refused(ENOSYS));
        EXPECT_EQ(decided(SYS_getsockname, 0, 0, AUDIT_ARCH_X86_64, true), SECCOMP_RET_USER_NOTIF);
        EXPECT_EQ(decided(SYS_listen, 0, 0, AUDIT_ARCH_X86_64, true), SECCOMP_RET_USER_NOTIF);
        for (const long nr : {SYS_read, SYS_accept4, SYS_getsockname, SYS_connect, SYS_sendmsg, SYS_execve}) {
                EXPECT_EQ(decided(nr), SECCOMP_RET_ALLOW) << nr;
        }
}
#endif

}  // namespace
}  // namespace sockbroker::supervise
