// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/routes/withdraw.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <array>

#include <fmt/format.h>

#include "broker/base/owned_fd.h"
#include "broker/routes/kernel.h"
#include "broker/routes/wire.h"

namespace sockbroker::routes {

namespace {

const char* name_of(Kind kind) {
        return kind == Kind::kLocal ? "local routes" : "announced prefixes";
}

Result<void> remove(Numbers numbers, Kind kind) {
        auto kernel = KernelRoutes::open(numbers);
        if (!kernel) {
                return std::unexpected(kernel.error());
        }
        const auto standing = kernel->list(kind);
        if (!standing) {
                return std::unexpected(standing.error());
        }
        int errnum = 0;
        const auto removed = kernel->remove(kind, *standing, [&](const Prefix&, int failed) { errnum = failed; });
        return removed && errnum != 0 ? fail(errnum, fmt::format("cannot remove {}", name_of(kind))) : removed;
}

}  // namespace

Result<void> withdraw(const std::string& socket_path, Numbers numbers, Kind kind, std::chrono::microseconds timeout) {
        const auto failed = [&] {
                return fail_errno(fmt::format("cannot have {} withdrawn by {}", name_of(kind), socket_path));
        };
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        if (socket_path.size() >= sizeof address.sun_path) {
                return fail(fmt::format("{} is too long for the path of a socket", socket_path));
        }
        socket_path.copy(address.sun_path, socket_path.size());
        const OwnedFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
        const auto usec = timeout.count();
        const timeval patience{.tv_sec = usec / 1'000'000, .tv_usec = usec % 1'000'000};
        if (!fd || setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0 ||
            setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) != 0) {
                return failed();
        }
        if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
                return errno == ENOENT || errno == ECONNREFUSED ? remove(numbers, kind) : failed();
        }
        constexpr std::uint32_t kNumber = 1;
        for (const auto& record : {encode_begin(kind), encode_end(kind, kNumber)}) {
                if (send(fd.get(), record.data(), record.size(), MSG_NOSIGNAL) < 0) {
                        return failed();
                }
        }
        std::array<char, 1024> buffer{};
        while (true) {
                const auto size = recv(fd.get(), buffer.data(), buffer.size(), 0);
                if (size < 0) {
                        return failed();
                }
                const auto report = decode_report({buffer.data(), static_cast<std::size_t>(size)});
                if (!report) {
                        return fail(fmt::format("{} has hung up", socket_path));
                }
                if (report->kind == kind && report->number == kNumber) {
                        return report->refused == 0 ? Result<void>()
                                                    : fail(static_cast<int>(report->errnum),
                                                           fmt::format("{} could not be withdrawn", name_of(kind)));
                }
        }
}

}  // namespace sockbroker::routes
