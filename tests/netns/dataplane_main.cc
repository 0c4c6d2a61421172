// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Everything happens in a network namespace and a mount namespace that are made here and vanish with the process.
#include <gtest/gtest.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace sockbroker {
std::string bpffs;
}

int main(int argc, char** argv) {
        testing::InitGoogleTest(&argc, argv);
        if (testing::GTEST_FLAG(list_tests)) {
                return RUN_ALL_TESTS();
        }
        char directory[] = "/tmp/sockbroker-dataplane-XXXXXX";
        if (unshare(CLONE_NEWNET | CLONE_NEWNS) != 0 ||
            mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 || mkdtemp(directory) == nullptr ||
            mount("bpf", directory, "bpf", 0, "mode=0755") != 0) {
                perror("cannot make the namespaces of this test; it needs root");
                return 1;
        }
        chmod(directory, 0755);
        const int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        ifreq request{.ifr_ifrn = {.ifrn_name = "lo"}};
        request.ifr_flags = IFF_UP;
        if (ioctl(control, SIOCSIFFLAGS, &request) != 0) {
                perror("cannot bring up lo");
                return 1;
        }
        close(control);
        sockbroker::bpffs = directory;
        const int result = RUN_ALL_TESTS();
        umount2(directory, MNT_DETACH);
        rmdir(directory);
        return result;
}
