// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/daemon/places.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <systemd/sd-daemon.h>

#include <filesystem>

#include <fmt/format.h>

#include "broker/base/file_lock.h"
#include "broker/daemon/links.h"
#include "broker/protocol/peek.h"

namespace sockbroker {

namespace {

// As Backlog= of the unit. Whoever floods the socket waits in connect(2), in turn with everybody else, instead of
// standing in the kernel's queue before them: with a queue of 4096 they waited 0.4 s.
constexpr int kBacklog = 64;
constexpr std::string_view kLabelsName = "tubular";  // FileDescriptorName= of sockbrokerd-tubular.socket

// -1: it has none. Never waits; fstat(2), with which sd_is_socket(3) begins, may for a file.
int option_of(int fd, int option) {
        int value = -1;
        socklen_t size = sizeof value;
        return getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : -1;
}

Result<IntakeSockets> adopt_passed_sockets(const std::vector<std::string>& names) {
        IntakeSockets sockets;
        int next = SD_LISTEN_FDS_START;
        for (const auto& name : names) {
                OwnedFd fd(next++);
                const int domain = option_of(fd.get(), SO_DOMAIN);
                const int type = option_of(fd.get(), SO_TYPE);
                if (name == kLinksName && domain == AF_UNIX) {
                        fd.reset();  // what came by it was taken: see take_netns_sockets()
                } else if (domain == AF_INET || domain == AF_INET6) {
                        sockets.stored.push_back({name, std::move(fd)});
                } else if (domain == AF_UNIX && type == SOCK_DGRAM && !sockets.notify) {
                        sockets.notify = std::move(fd);
                } else if (domain == AF_UNIX && type == SOCK_SEQPACKET && option_of(fd.get(), SO_ACCEPTCONN) == 1 &&
                           !(name == kLabelsName ? sockets.labels : sockets.control)) {
                        (name == kLabelsName ? sockets.labels : sockets.control) = std::move(fd);
                } else {
                        sockets.strangers.push_back({name, std::move(fd)});
                }
        }
        if (!sockets.notify || !sockets.control) {
                return fail(
                        "systemd passed only one of the notify (datagram) and control (seqpacket) sockets, or none: "
                        "compare the .socket unit with the one that was installed");
        }
        return sockets;
}

Result<OwnedFd> bind_socket(const std::string& path, int type) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        if (path.size() >= sizeof address.sun_path) {
                return fail(fmt::format("socket path {} is longer than {} bytes, choose a shorter --runtime-dir", path,
                                        sizeof address.sun_path - 1));
        }
        path.copy(address.sun_path, path.size());
        // The lock on the pin directory says that no other broker serves here: what is left is stale.
        if (unlink(path.c_str()) != 0 && errno != ENOENT) {
                return fail_errno(fmt::format("cannot remove the old socket {}", path));
        }
        OwnedFd fd(socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        if (!fd || bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
            chmod(path.c_str(), 0666) != 0) {
                return fail_errno(fmt::format("cannot make the socket {}", path));
        }
        return fd;
}

Result<void> make_directory(const std::string& path, mode_t mode) {
        std::error_code ignored;  // mkdir() below tells what is wrong
        std::filesystem::create_directories(std::filesystem::path(path).parent_path(), ignored);
        if (mkdir(path.c_str(), mode) != 0 && errno != EEXIST) {
                return fail_errno(fmt::format("cannot make the directory {}", path));
        }
        return {};
}

bool is_bpffs(const std::string& path) {
        struct statfs fs {};
        return statfs(path.c_str(), &fs) == 0 && static_cast<unsigned long>(fs.f_type) == BPF_FS_MAGIC;
}

}  // namespace

Result<IntakeSockets> open_intake_sockets(const std::string& runtime_dir) {
        IntakeSockets sockets;
        char** raw = nullptr;
        const int count = sd_listen_fds_with_names(1, &raw);
        if (count < 0) {
                return fail(count, "cannot take the sockets passed by systemd");
        }
        std::vector<std::string> names;
        for (int i = 0; i < count; i++) {
                names.emplace_back(raw[i]);
                std::free(raw[i]);
        }
        std::free(static_cast<void*>(raw));
        if (count > 0) {
                auto passed = adopt_passed_sockets(names);
                if (!passed) {
                        return passed;
                }
                sockets = std::move(*passed);
        } else {
                if (auto made = make_directory(runtime_dir, 0755); !made) {
                        return std::unexpected(made.error());
                }
                auto notify = bind_socket(runtime_dir + "/notify", SOCK_DGRAM);
                auto control = bind_socket(runtime_dir + "/control", SOCK_SEQPACKET);
                if (!notify || !control) {
                        return std::unexpected(!notify ? notify.error() : control.error());
                }
                sockets = {.notify = std::move(*notify), .control = std::move(*control)};
        }
        for (const auto* fd : {&sockets.notify, &sockets.control, &sockets.labels}) {
                if (!*fd) {
                        continue;
                }
                if (auto ready = prepare_for_peeking(fd->get()); !ready) {
                        return std::unexpected(ready.error());
                }
                if (fd != &sockets.notify && listen(fd->get(), kBacklog) != 0) {
                        return fail_errno("cannot listen on a socket of the broker");
                }
        }
        return sockets;
}

Result<void> check_netns(const std::string& name) {
        struct stat named {};
        struct stat own {};
        if (name.empty() || stat(("/run/netns/" + name).c_str(), &named) != 0) {
                return {};
        }
        if (stat("/proc/self/ns/net", &own) != 0) {
                return fail_errno("cannot look at /proc/self/ns/net");
        }
        if (named.st_dev != own.st_dev || named.st_ino != own.st_ino) {
                return fail(
                        fmt::format("--netns {0} names another network namespace than the one in which sockbrokerd was "
                                    "started; use sockbrokerd@{0}.service, or "
                                    "nsenter --net=/run/netns/{0}",
                                    name));
        }
        return {};
}

Result<void> make_state_dir(const std::string& state_dir) {
        return make_directory(state_dir, 0700);
}

Result<OwnedFd> open_pin_dir(const DaemonOptions& options) {
        if (!is_bpffs(options.bpffs)) {
                if (auto made = make_directory(options.bpffs, 0755); !made) {
                        return std::unexpected(made.error());
                }
        }
        if (!is_bpffs(options.bpffs)) {  // nor is it a directory on one
                if (mount("bpf", options.bpffs.c_str(), "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0755") != 0) {
                        return fail_errno(
                                fmt::format("no BPF file system on {0} and it cannot be mounted; as root: "
                                            "mount -t bpf bpf {0}",
                                            options.bpffs));
                }
        }
        const std::string path = options.pin_dir();
        if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
                return fail_errno(fmt::format("cannot make the directory of pins {}", path));
        }
        OwnedFd directory(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        struct stat status {};
        if (!directory || fstat(directory.get(), &status) != 0) {
                return fail_errno(fmt::format("cannot open the directory of pins {}", path));
        }
        // Whoever may enter it holds the traffic of the machine.
        if (geteuid() == 0 && status.st_uid != 0 && (status.st_mode & 077) == 0) {
                // Not to be made root's: the broker whose it is could not open its pins again.
                return fail(
                        fmt::format("the directory of pins {} is that of the broker with uid {}: start that one "
                                    "(systemctl start sockbrokerd.service), or another one elsewhere (--bpffs, "
                                    "--runtime-dir, --state-dir)",
                                    path, status.st_uid));
        }
        if (status.st_uid != geteuid() || (status.st_mode & 077) != 0) {
                return fail(
                        fmt::format("the directory of pins {0} must belong to uid {1} alone; as root: chown {1} {0} "
                                    "&& chmod 0700 {0}",
                                    path, geteuid()));
        }
        // An unload, which has it too, is over in no time.
        if (const auto locked = lock_file(directory.get(), std::chrono::milliseconds(500)); !locked) {
                return fail(locked.error().errnum, fmt::format("another sockbrokerd keeps {}", path));
        }
        return directory;
}

}  // namespace sockbroker
