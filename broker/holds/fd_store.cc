// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/holds/fd_store.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cstddef>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "broker/base/net.h"

namespace sockbroker {

std::size_t fd_store_capacity() {
        const char* const said = std::getenv("FDSTORE");
        const auto number = said == nullptr ? std::nullopt : parse_number(said, 1U << 20);
        return number ? static_cast<std::size_t>(*number) : kUsualStoreCapacity;
}

Result<void> reach_manager(int socket) {
        const char* const said = std::getenv("NOTIFY_SOCKET");
        const std::string_view path(said == nullptr ? "" : said);
        sockaddr_un address{.sun_family = AF_UNIX};
        if (path.size() < 2 || path.size() >= sizeof address.sun_path || (path[0] != '/' && path[0] != '@')) {
                return fail(fmt::format("$NOTIFY_SOCKET is neither a path nor an abstract socket: {}", path));
        }
        path.copy(address.sun_path, path.size());
        if (path[0] == '@') {
                address.sun_path[0] = 0;
        }
        const auto size =
                static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + (path[0] == '/' ? 1 : 0));
        if (connect(socket, reinterpret_cast<const sockaddr*>(&address), size) != 0) {
                return fail_errno(fmt::format("cannot reach the manager at $NOTIFY_SOCKET, {}", path));
        }
        return {};
}

Result<OwnedFd> connect_to_manager() {
        if (std::getenv("NOTIFY_SOCKET") == nullptr) {
                return OwnedFd();
        }
        OwnedFd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        if (!fd) {
                return fail_errno("cannot make a socket for the manager");
        }
        auto reached = reach_manager(fd.get());
        return reached ? Result<OwnedFd>(std::move(fd)) : std::unexpected(reached.error());
}

}  // namespace sockbroker
