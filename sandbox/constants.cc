// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See constants.h. A name that a profile needs and that is not here is added here; the headers of Debian 12 lack the
// newest, which are written as numbers.
#include "sandbox/constants.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/in6.h>
#include <linux/landlock.h>
#include <linux/membarrier.h>
#include <linux/netlink.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <csignal>
#include <cstring>
#include <map>

namespace sockbroker::sandbox {

namespace {

#define NAMED(name) \
        { #name, static_cast < std::uint64_t>(static_cast <std::uint32_t>(name)) }

const std::map<std::string_view, std::uint64_t> kConstants = {
        // socket(2)
        NAMED(AF_UNIX),
        NAMED(AF_INET),
        NAMED(AF_INET6),
        NAMED(AF_NETLINK),
        NAMED(NETLINK_ROUTE),
        NAMED(AF_PACKET),
        NAMED(AF_VSOCK),
        NAMED(AF_ALG),
        NAMED(AF_XDP),
        NAMED(SOCK_STREAM),
        NAMED(SOCK_DGRAM),
        NAMED(SOCK_SEQPACKET),
        NAMED(MSG_FASTOPEN),
        NAMED(SOCK_RAW),
        NAMED(SOCK_CLOEXEC),
        NAMED(SOCK_NONBLOCK),
        {"SOCK_TYPE_MASK", 0xf},  // linux/net.h of the kernel: what is not a flag
        NAMED(IPPROTO_IP),
        NAMED(IPPROTO_TCP),
        NAMED(IPPROTO_UDP),
        NAMED(IPPROTO_IPV6),
        NAMED(IPPROTO_ICMP),
        NAMED(IPPROTO_ICMPV6),
        {"IPPROTO_MPTCP", 262},
        // setsockopt(2), level SOL_SOCKET
        NAMED(SOL_SOCKET),
        NAMED(SO_DEBUG),
        NAMED(SO_REUSEADDR),
        NAMED(SO_TYPE),
        NAMED(SO_ERROR),
        NAMED(SO_DONTROUTE),
        NAMED(SO_BROADCAST),
        NAMED(SO_SNDBUF),
        NAMED(SO_RCVBUF),
        NAMED(SO_KEEPALIVE),
        NAMED(SO_OOBINLINE),
        NAMED(SO_PRIORITY),
        NAMED(SO_LINGER),
        NAMED(SO_REUSEPORT),
        NAMED(SO_PASSCRED),
        NAMED(SO_PEERCRED),
        NAMED(SO_RCVLOWAT),
        NAMED(SO_RCVTIMEO),
        NAMED(SO_SNDTIMEO),
        NAMED(SO_BINDTODEVICE),
        NAMED(SO_ATTACH_FILTER),
        NAMED(SO_DETACH_FILTER),
        NAMED(SO_TIMESTAMP),
        NAMED(SO_TIMESTAMPNS),
        NAMED(SO_TIMESTAMPING),
        NAMED(SO_MARK),
        NAMED(SO_SNDBUFFORCE),
        NAMED(SO_RCVBUFFORCE),
        NAMED(SO_RXQ_OVFL),
        NAMED(SO_BUSY_POLL),
        NAMED(SO_ATTACH_REUSEPORT_CBPF),
        NAMED(SO_ATTACH_REUSEPORT_EBPF),
        NAMED(SO_INCOMING_CPU),
        NAMED(SO_ZEROCOPY),
        NAMED(SO_TXTIME),
        NAMED(SO_BINDTOIFINDEX),
        NAMED(SO_MAX_PACING_RATE),
        NAMED(SO_PEEK_OFF),
        {"SO_PASSPIDFD", 76},
        {"SO_PASSRIGHTS", 83},
        // level IPPROTO_IP
        NAMED(IP_TOS),
        NAMED(IP_TTL),
        NAMED(IP_OPTIONS),
        NAMED(IP_HDRINCL),
        NAMED(IP_RECVOPTS),
        NAMED(IP_PKTINFO),
        NAMED(IP_MTU_DISCOVER),
        NAMED(IP_RECVERR),
        NAMED(IP_RECVTTL),
        NAMED(IP_RECVTOS),
        NAMED(IP_MTU),
        NAMED(IP_FREEBIND),
        NAMED(IP_TRANSPARENT),
        NAMED(IP_RECVORIGDSTADDR),
        NAMED(IP_MINTTL),
        NAMED(IP_BIND_ADDRESS_NO_PORT),
        NAMED(IP_RECVFRAGSIZE),
        NAMED(IP_MULTICAST_IF),
        NAMED(IP_MULTICAST_TTL),
        NAMED(IP_MULTICAST_LOOP),
        NAMED(IP_ADD_MEMBERSHIP),
        NAMED(IP_DROP_MEMBERSHIP),
        NAMED(IP_MULTICAST_ALL),
        NAMED(IP_UNICAST_IF),
        {"IP_LOCAL_PORT_RANGE", 51},
        // level IPPROTO_IPV6
        NAMED(IPV6_UNICAST_HOPS),
        NAMED(IPV6_MULTICAST_IF),
        NAMED(IPV6_MULTICAST_HOPS),
        NAMED(IPV6_MULTICAST_LOOP),
        NAMED(IPV6_ADD_MEMBERSHIP),
        NAMED(IPV6_DROP_MEMBERSHIP),
        NAMED(IPV6_MTU_DISCOVER),
        NAMED(IPV6_MTU),
        NAMED(IPV6_RECVERR),
        NAMED(IPV6_V6ONLY),
        NAMED(IPV6_RECVPKTINFO),
        NAMED(IPV6_PKTINFO),
        NAMED(IPV6_RECVHOPLIMIT),
        NAMED(IPV6_TCLASS),
        NAMED(IPV6_RECVTCLASS),
        NAMED(IPV6_TRANSPARENT),
        NAMED(IPV6_FREEBIND),
        NAMED(IPV6_DONTFRAG),
        NAMED(IPV6_RECVORIGDSTADDR),
        NAMED(IPV6_ADDR_PREFERENCES),
        NAMED(IPV6_RECVFRAGSIZE),
        NAMED(IPV6_UNICAST_IF),
        NAMED(IPV6_AUTOFLOWLABEL),
        NAMED(IPV6_MULTICAST_ALL),
        // levels IPPROTO_TCP and IPPROTO_UDP
        NAMED(TCP_NODELAY),
        NAMED(TCP_MAXSEG),
        NAMED(TCP_CORK),
        NAMED(TCP_KEEPIDLE),
        NAMED(TCP_KEEPINTVL),
        NAMED(TCP_KEEPCNT),
        NAMED(TCP_SYNCNT),
        NAMED(TCP_LINGER2),
        NAMED(TCP_DEFER_ACCEPT),
        NAMED(TCP_WINDOW_CLAMP),
        NAMED(TCP_QUICKACK),
        NAMED(TCP_CONGESTION),
        NAMED(TCP_USER_TIMEOUT),
        NAMED(TCP_FASTOPEN),
        NAMED(TCP_FASTOPEN_CONNECT),
        NAMED(TCP_FASTOPEN_KEY),
        NAMED(TCP_NOTSENT_LOWAT),
        NAMED(TCP_REPAIR),
        NAMED(TCP_ULP),
        NAMED(TCP_MD5SIG),
        NAMED(TCP_SAVE_SYN),
        NAMED(TCP_INQ),
        NAMED(TCP_TX_DELAY),
        NAMED(UDP_CORK),
        NAMED(UDP_ENCAP),
        NAMED(UDP_SEGMENT),
        NAMED(UDP_GRO),
        {"SOL_TLS", 282},
        // mmap(2), mprotect(2)
        NAMED(PROT_READ),
        NAMED(PROT_WRITE),
        NAMED(PROT_EXEC),
        NAMED(MAP_SHARED),
        NAMED(MAP_PRIVATE),
        NAMED(MAP_FIXED),
        NAMED(MAP_ANONYMOUS),
        // clone(2), unshare(2)
        NAMED(CLONE_VM),
        NAMED(CLONE_FS),
        NAMED(CLONE_FILES),
        NAMED(CLONE_SIGHAND),
        NAMED(CLONE_PTRACE),
        NAMED(CLONE_VFORK),
        NAMED(CLONE_PARENT),
        NAMED(CLONE_THREAD),
        NAMED(CLONE_SYSVSEM),
        NAMED(CLONE_SETTLS),
        NAMED(CLONE_PARENT_SETTID),
        NAMED(CLONE_CHILD_CLEARTID),
        NAMED(CLONE_CHILD_SETTID),
        NAMED(CLONE_NEWNS),
        NAMED(CLONE_NEWCGROUP),
        NAMED(CLONE_NEWUTS),
        NAMED(CLONE_NEWIPC),
        NAMED(CLONE_NEWUSER),
        NAMED(CLONE_NEWPID),
        NAMED(CLONE_NEWNET),
        NAMED(CLONE_NEWTIME),
        // prctl(2)
        NAMED(PR_SET_PDEATHSIG),
        NAMED(PR_GET_PDEATHSIG),
        NAMED(PR_GET_DUMPABLE),
        NAMED(PR_SET_DUMPABLE),
        NAMED(PR_GET_KEEPCAPS),
        NAMED(PR_SET_KEEPCAPS),
        NAMED(PR_SET_NAME),
        NAMED(PR_GET_NAME),
        NAMED(PR_GET_SECCOMP),
        NAMED(PR_SET_SECCOMP),
        NAMED(PR_CAPBSET_READ),
        NAMED(PR_CAPBSET_DROP),
        NAMED(PR_GET_SECUREBITS),
        NAMED(PR_SET_SECUREBITS),
        NAMED(PR_SET_TIMERSLACK),
        NAMED(PR_GET_TIMERSLACK),
        NAMED(PR_SET_MM),
        NAMED(PR_SET_CHILD_SUBREAPER),
        NAMED(PR_GET_CHILD_SUBREAPER),
        NAMED(PR_SET_NO_NEW_PRIVS),
        NAMED(PR_GET_NO_NEW_PRIVS),
        NAMED(PR_SET_THP_DISABLE),
        NAMED(PR_GET_THP_DISABLE),
        NAMED(PR_CAP_AMBIENT),
        NAMED(PR_SET_PTRACER),
        NAMED(PR_SET_VMA),
        NAMED(PR_GET_SPECULATION_CTRL),
        NAMED(PR_SET_SPECULATION_CTRL),
        NAMED(PR_MCE_KILL),
        // fcntl(2)
        NAMED(F_DUPFD),
        NAMED(F_GETFD),
        NAMED(F_SETFD),
        NAMED(F_GETFL),
        NAMED(F_SETFL),
        NAMED(F_GETLK),
        NAMED(F_SETLK),
        NAMED(F_SETLKW),
        NAMED(F_SETOWN),
        NAMED(F_GETOWN),
        NAMED(F_SETSIG),
        NAMED(F_GETSIG),
        NAMED(F_SETOWN_EX),
        NAMED(F_GETOWN_EX),
        NAMED(F_OFD_GETLK),
        NAMED(F_OFD_SETLK),
        NAMED(F_OFD_SETLKW),
        NAMED(F_SETLEASE),
        NAMED(F_GETLEASE),
        NAMED(F_NOTIFY),
        NAMED(F_DUPFD_CLOEXEC),
        NAMED(F_SETPIPE_SZ),
        NAMED(F_GETPIPE_SZ),
        {"F_DUPFD_QUERY", 1027},
        NAMED(F_ADD_SEALS),
        NAMED(F_GET_SEALS),
        // ioctl(2)
        NAMED(FIONREAD),
        NAMED(FIONBIO),
        NAMED(FIOCLEX),
        NAMED(FIONCLEX),
        NAMED(FIOASYNC),
        NAMED(TCGETS),
        {"PIDFD_GET_INFO", 0xc040ff0b},  // kernel 6.13
        NAMED(TCSETS),
        NAMED(TCSETSW),
        NAMED(TCSETSF),
        NAMED(TIOCGWINSZ),
        NAMED(TIOCSTI),
        NAMED(TIOCGPGRP),
        NAMED(TIOCSPGRP),
        NAMED(TIOCLINUX),
        NAMED(SIOCATMARK),
        NAMED(SIOCOUTQ),
        NAMED(SIOCINQ),
        NAMED(SIOCGIFCONF),
        NAMED(SIOCGIFNAME),
        NAMED(SIOCGIFINDEX),
        NAMED(SIOCGIFFLAGS),
        NAMED(SIOCGIFADDR),
        NAMED(SIOCGIFMTU),
        NAMED(SIOCGSTAMP),
        // bpf(2)
        NAMED(BPF_MAP_CREATE),
        NAMED(BPF_MAP_LOOKUP_ELEM),
        NAMED(BPF_MAP_UPDATE_ELEM),
        NAMED(BPF_MAP_DELETE_ELEM),
        NAMED(BPF_MAP_GET_NEXT_KEY),
        NAMED(BPF_PROG_LOAD),
        NAMED(BPF_OBJ_PIN),
        NAMED(BPF_OBJ_GET),
        NAMED(BPF_PROG_ATTACH),
        NAMED(BPF_PROG_DETACH),
        NAMED(BPF_PROG_TEST_RUN),
        NAMED(BPF_PROG_GET_NEXT_ID),
        NAMED(BPF_MAP_GET_NEXT_ID),
        NAMED(BPF_PROG_GET_FD_BY_ID),
        NAMED(BPF_MAP_GET_FD_BY_ID),
        NAMED(BPF_OBJ_GET_INFO_BY_FD),
        NAMED(BPF_PROG_QUERY),
        NAMED(BPF_RAW_TRACEPOINT_OPEN),
        NAMED(BPF_BTF_LOAD),
        NAMED(BPF_BTF_GET_FD_BY_ID),
        NAMED(BPF_TASK_FD_QUERY),
        NAMED(BPF_MAP_LOOKUP_AND_DELETE_ELEM),
        NAMED(BPF_MAP_FREEZE),
        NAMED(BPF_BTF_GET_NEXT_ID),
        NAMED(BPF_MAP_LOOKUP_BATCH),
        NAMED(BPF_MAP_LOOKUP_AND_DELETE_BATCH),
        NAMED(BPF_MAP_UPDATE_BATCH),
        NAMED(BPF_MAP_DELETE_BATCH),
        NAMED(BPF_LINK_CREATE),
        NAMED(BPF_LINK_UPDATE),
        NAMED(BPF_LINK_GET_FD_BY_ID),
        NAMED(BPF_LINK_GET_NEXT_ID),
        NAMED(BPF_ENABLE_STATS),
        NAMED(BPF_ITER_CREATE),
        NAMED(BPF_LINK_DETACH),
        NAMED(BPF_PROG_BIND_MAP),
        // others
        NAMED(SECCOMP_SET_MODE_FILTER),
        NAMED(SECCOMP_GET_ACTION_AVAIL),
        NAMED(MEMBARRIER_CMD_GLOBAL),
        NAMED(NETLINK_ROUTE),
        NAMED(SO_PASSSEC),
        NAMED(O_RDONLY),
        NAMED(O_EXCL),
        NAMED(O_CLOEXEC),
        NAMED(O_CREAT),
        NAMED(O_WRONLY),
        NAMED(O_RDWR),
        NAMED(O_ACCMODE),
        NAMED(O_TRUNC),
        NAMED(O_APPEND),
        NAMED(MFD_CLOEXEC),
        NAMED(MSG_PEEK),
        NAMED(MSG_DONTWAIT),
        NAMED(SIGCHLD),
        NAMED(SIGKILL),
        NAMED(S_ISUID),
        NAMED(S_ISGID),
};

#undef NAMED

constexpr std::array<std::uint32_t, 14> kArchitectures = {
        SCMP_ARCH_X86,  SCMP_ARCH_X86_64, SCMP_ARCH_X32,       SCMP_ARCH_ARM,     SCMP_ARCH_AARCH64,
        SCMP_ARCH_MIPS, SCMP_ARCH_MIPS64, SCMP_ARCH_MIPS64N32, SCMP_ARCH_PPC,     SCMP_ARCH_PPC64LE,
        SCMP_ARCH_S390, SCMP_ARCH_S390X,  SCMP_ARCH_PARISC,    SCMP_ARCH_RISCV64,
};

}  // namespace

std::optional<std::uint64_t> constant(std::string_view name) {
        const auto found = kConstants.find(name);
        return found == kConstants.end() ? std::nullopt : std::optional(found->second);
}

std::optional<int> errno_of(std::string_view name) {
        constexpr int kMax = 134;  // EHWPOISON, the last one, 133
        for (int number = 1; number < kMax; ++number) {
                if (const char* const known = ::strerrorname_np(number); known != nullptr && name == known) {
                        return number;
                }
        }
        return std::nullopt;
}

CallKind kind_of_call(const std::string& name) {
        // Calls that only other architectures have are negative pseudo numbers here.
        if (::seccomp_syscall_resolve_name(name.c_str()) >= 0) {
                return CallKind::kHere;
        }
        for (const std::uint32_t architecture : kArchitectures) {
                if (::seccomp_syscall_resolve_name_arch(architecture, name.c_str()) >= 0) {
                        return CallKind::kElsewhere;
                }
        }
        return CallKind::kNowhere;
}

}  // namespace sockbroker::sandbox
