// SPDX-License-Identifier: LGPL-2.1-or-later
#include "sandbox/supervise/trap.h"

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sys/syscall.h>

#include <bit>
#include <cerrno>
#include <cstddef>

namespace sockbroker::supervise {

namespace {

#if defined(__x86_64__)
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#elif defined(__riscv) && __riscv_xlen == 64
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_RISCV64;
#elif defined(__powerpc64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_PPC64LE;
#elif defined(__s390x__)
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_S390X;
#else
#error "an architecture whose calls are not known here"
#endif

constexpr std::uint32_t kX32 = 0x40000000;  // of x86 alone; no other architecture has such numbers
constexpr std::uint32_t kMptcp = 262;       // IPPROTO_MPTCP

constexpr sock_filter load(std::size_t offset) {
        return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(offset));
}

constexpr sock_filter answer(std::uint32_t what) {
        return BPF_STMT(BPF_RET | BPF_K, what);
}

constexpr std::uint32_t refuse(int errnum) {
        return SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(errnum);
}

// The next instruction if the accumulator is the value, else the one after `skip` more.
constexpr sock_filter unless_equal(std::uint32_t value, std::uint8_t skip) {
        return BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, skip);
}

// The low half, which is all that the kernel takes of an int.
constexpr std::size_t low_half(unsigned argument) {
        return offsetof(seccomp_data, args) + std::size_t{8} * argument +
               (std::endian::native == std::endian::little ? 0 : 4);
}

}  // namespace

sandbox::Filter::Program trap_program(bool names) {
        // A number that no call has, where it is not wanted.
        const std::uint32_t getsockname = names ? SYS_getsockname : kX32;
        return {
                load(offsetof(seccomp_data, arch)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0),
                answer(refuse(ENOSYS)),
                load(offsetof(seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, kX32, 0, 1),
                answer(refuse(ENOSYS)),
                unless_equal(SYS_bind, 1),
                answer(SECCOMP_RET_USER_NOTIF),
                unless_equal(SYS_listen, 1),
                answer(SECCOMP_RET_USER_NOTIF),
                unless_equal(getsockname, 1),
                answer(SECCOMP_RET_USER_NOTIF),
                // A ring may be inherited from outside, and IORING_OP_BIND (6.11) passes no filter.
                unless_equal(SYS_io_uring_setup, 1),
                answer(refuse(ENOSYS)),
                unless_equal(SYS_io_uring_enter, 1),
                answer(refuse(ENOSYS)),
                unless_equal(SYS_io_uring_register, 1),
                answer(refuse(ENOSYS)),
#ifdef SYS_socketcall
                unless_equal(SYS_socketcall, 1),  // the same three calls, with arguments in memory
                answer(refuse(ENOSYS)),
#endif
                unless_equal(SYS_socket, 3),
                load(low_half(2)),
                unless_equal(kMptcp, 1),
                answer(refuse(EPROTONOSUPPORT)),
                answer(SECCOMP_RET_ALLOW),
        };
}

}  // namespace sockbroker::supervise
