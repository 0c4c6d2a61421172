// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Routes in the kernel, by rtnetlink(7) and libmnl: lists, changes in batches, and the notifications of changes by
// others. What the messages say is in messages.h.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "broker/base/net.h"
#include "broker/base/owned_fd.h"
#include "broker/base/result.h"
#include "broker/routes/messages.h"
#include "broker/routes/route.h"

struct mnl_socket;
struct nlmsghdr;

namespace sockbroker::routes {

class KernelRoutes {
public:
        [[nodiscard]] static Result<KernelRoutes> open(Numbers numbers);

        // The broker's own of a kind, sorted.
        [[nodiscard]] Result<std::vector<Prefix>> list(Kind kind);
        // Networks that interfaces other than the loopback are connected to, sorted, each once.
        [[nodiscard]] Result<std::vector<Prefix>> connected_networks();
        // Calls `failed` for each that the kernel did not take: EEXIST, somebody else has that route.
        using Failed = std::function<void(const Prefix& prefix, int errnum)>;
        [[nodiscard]] Result<void> add(Kind kind, std::span<const Prefix> prefixes, const Failed& failed);
        // One that is not there any more is no failure.
        [[nodiscard]] Result<void> remove(Kind kind, std::span<const Prefix> prefixes, const Failed& failed);

        // The number of the sender that notifications of its own changes carry.
        [[nodiscard]] std::uint32_t port() const;
        [[nodiscard]] int fd() const;

private:
        struct Close {
                void operator()(mnl_socket* socket) const;
        };
        using Socket = std::unique_ptr<mnl_socket, Close>;
        KernelRoutes(Socket socket, Numbers numbers) : socket_(std::move(socket)), numbers_(numbers) {}
        [[nodiscard]] Result<void> change(std::uint16_t type, std::uint16_t flags, Kind kind,
                                          std::span<const Prefix> prefixes, const Failed& failed);
        using Take = std::function<void(const nlmsghdr*)>;
        [[nodiscard]] Result<bool> dump_once(std::span<const char> request, std::uint32_t sequence, const Take& take);
        // `again` before each try: what was taken counts for nothing.
        [[nodiscard]] Result<void> dump(std::span<char> request, const Take& take, const std::function<void()>& again);

        Socket socket_;
        Numbers numbers_;
        std::uint32_t sequence_ = 0;
};

// What others do to routes and addresses of this network namespace.
class RouteEvents {
public:
        // `own`: whose changes are none of others.
        [[nodiscard]] static Result<RouteEvents> open(Numbers numbers, std::uint32_t own);

        struct Seen {
                bool routes = false;     // those of the tables in question changed, or may have
                bool addresses = false;  // networks that interfaces are connected to may have changed
        };
        // Reads what there is, without waiting.
        [[nodiscard]] Seen read();
        [[nodiscard]] int fd() const { return fd_.get(); }

private:
        RouteEvents(OwnedFd fd, Numbers numbers, std::uint32_t own)
                : fd_(std::move(fd)), numbers_(numbers), own_(own) {}
        void look_at(const nlmsghdr* message, Seen& seen) const;

        OwnedFd fd_;
        Numbers numbers_;
        std::uint32_t own_;
};

}  // namespace sockbroker::routes
