// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The filters of the two processes beside the broker: the one that asks NSS, and the one that has a capability.
#include <gtest/gtest.h>
#include <linux/bpf.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <vector>

#include "broker/names/process.h"
#include "broker/routes/server.h"
#include "tests/unit/support/filtered_call.h"

namespace sockbroker {
namespace {

using namespace sandbox::test;

// Whoever widens a filter sees it here, and so does the reviewer; see broker_filter_test.cc.
TEST(NamesFilter, IsTheOneThatWasReviewed) {
        EXPECT_EQ(describe_names_filter().value_or(""), text_of(kRoot + "/tests/data/names_filter.txt"));
}

TEST(RoutesFilter, IsTheOneThatWasReviewed) {
        EXPECT_EQ(routes::describe_routes_filter().value_or(""), text_of(kRoot + "/tests/data/routes_filter.txt"));
}

TEST(RoutesFilter, SpeaksToTheKernelAndToTheBrokerAndToNobodyElse) {
        const sandbox::Filter filter = filter_of("routes");
        constexpr std::uint64_t kRouteSocket = 4, kEvents = 5, kConnection = 6, kAnAddress = 0x7f0000000000;
        const std::vector<Call> calls{
                {"sendto", {kRouteSocket, 0, 100}, Fate::kAllowed},
                {"sendto", {kRouteSocket, 0, 100, 0, kAnAddress}, Fate::kEperm},
                {"sendto", {kEvents, 0, 100}, Fate::kEperm},
                {"sendto", {kConnection, 0, 100}, Fate::kAllowed},
                {"sendmsg", {kRouteSocket}, Fate::kEnosys},
                {"sendmmsg", {kRouteSocket}, Fate::kEnosys},
                {"write", {kRouteSocket}, Fate::kEperm},
                {"write", {2}, Fate::kAllowed},
                {"accept4", {3}, Fate::kAllowed},
                {"accept4", {kConnection}, Fate::kEperm},
                {"socket", {AF_NETLINK, SOCK_RAW}, Fate::kEnosys},
                {"connect", {kRouteSocket}, Fate::kEnosys},
                {"bind", {kRouteSocket}, Fate::kEnosys},
                {"setsockopt", {kRouteSocket}, Fate::kEnosys},
                {"ioctl", {kRouteSocket}, Fate::kEnosys},
                {"openat", {}, Fate::kEnosys},
                {"dup", {kRouteSocket}, Fate::kEnosys},
                {"fcntl", {kRouteSocket}, Fate::kEnosys},
                {"clone", {}, Fate::kEnosys},
                {"setns", {}, Fate::kEnosys},
                {"unshare", {}, Fate::kEnosys},
                {"mount", {}, Fate::kEnosys},
                {"kill", {}, Fate::kEnosys},
                {"bpf", {}, Fate::kKilled},
                {"execve", {}, Fate::kKilled},
                {"ptrace", {}, Fate::kKilled},
                {"mmap", {0, 0, PROT_READ | PROT_EXEC}, Fate::kEperm},
        };
        for (const Call& call : calls) {
                EXPECT_EQ(sandbox::evaluate(filter, data_of(call)), answer(call.fate)) << text_of(call);
        }
}

TEST(NamesFilter, MakesNoProcessOfAnotherProgramAndChangesNoFile) {
        const sandbox::Filter filter = filter_of("names");
        const std::vector<Call> calls{
                {"execve", {}, Fate::kKilled},
                {"bpf", {BPF_OBJ_GET}, Fate::kKilled},
                {"ptrace", {}, Fate::kKilled},
                {"kill", {}, Fate::kEperm},
                {"clone", {kThread}, Fate::kAllowed},
                {"clone", {CLONE_NEWUSER}, Fate::kEperm},
                {"openat", {kIn, 0, O_RDONLY | O_CLOEXEC}, Fate::kAllowed},
                {"openat", {kIn, 0, O_WRONLY}, Fate::kEperm},
                {"openat", {kIn, 0, kCopy}, Fate::kEperm},
                {"unlink", {}, Fate::kEnosys},
                {"chmod", {}, Fate::kEnosys},
                {"rename", {}, Fate::kEnosys},
                {"mount", {}, Fate::kEnosys},
                {"mmap", {0, 0, PROT_READ | PROT_EXEC}, Fate::kAllowed},
                {"mmap", {0, 0, PROT_WRITE | PROT_EXEC}, Fate::kEperm},
                {"socket", {AF_UNIX, SOCK_STREAM}, Fate::kAllowed},
                {"socket", {AF_PACKET, SOCK_RAW}, Fate::kEperm},
        };
        for (const Call& call : calls) {
                EXPECT_EQ(sandbox::evaluate(filter, data_of(call)), answer(call.fate)) << text_of(call);
        }
}

}  // namespace
}  // namespace sockbroker
