// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The C face, second part: what is asked of the broker. The blocking functions are those without blocking, run to their
// end.
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>

#include <fmt/format.h>

#include "broker/client/register.h"
#include "broker/client/remove.h"
#include "broker/client/retrieve.h"
#include "broker/client/wait.h"
#include "broker/lib/arrays.h"
#include "broker/lib/client.h"
#include "broker/protocol/request.h"
#include "broker/protocol/service_name.h"

namespace sockbroker {

int refuse(sockbroker_client& client, int errnum, std::string message) {
        client.answered = false;
        client.answer = {.result = "", .errnum = errnum, .message = std::move(message), .warnings = {}};
        return errnum > 0 ? -errnum : -EIO;
}

namespace {

// Microseconds from now on; too many for the clock are for ever.
std::optional<Conversation::Clock::time_point> deadline_after(std::uint64_t usec) {
        constexpr std::uint64_t kMost = std::uint64_t{1'000'000} * 3600 * 24 * 365 * 100;
        if (usec > kMost) {
                return std::nullopt;
        }
        return Conversation::Clock::now() + std::chrono::microseconds(usec);
}

// The rules that all share, before `make` makes the operation. It returns none where it has refused by itself.
template <class Make>
int begin(sockbroker_client* client, const Make& make) {
        if (const int bad = usable(client); bad < 0) {
                return bad;
        }
        return guarded([&] {
                if (client->conversation.busy()) {
                        return -EALREADY;
                }
                (void)refuse(*client, 0, "");  // of the last request
                client->lent.clear();
                client->fds.clear();
                client->taker = {};
                std::unique_ptr<Operation> operation = make();
                if (!operation) {
                        return client->answer.errnum > 0 ? -client->answer.errnum : -EIO;
                }
                client->conversation.begin(std::move(operation), deadline_after(client->timeout_usec));
                return 0;
        });
}

std::nullptr_t refused(sockbroker_client& client, int errnum, std::string message) {
        (void)refuse(client, errnum, std::move(message));  // begin() returns it
        return nullptr;
}

bool good_name(sockbroker_client& client, const char* service) {
        if (service == nullptr || valid_service_name(service)) {
                return true;
        }
        (void)refused(client, EINVAL, "this cannot be a service, names are 1 to 40 of A-Z a-z 0-9 . _ -");
        return false;
}

std::string name_of(const char* service) {
        return service == nullptr ? "" : service;
}

enum class Sockets : std::uint8_t { kBorrowed, kDuplicated };

int begin_register(sockbroker_client* broker, const char* service, const int* fds, unsigned n, Sockets how) {
        return begin(broker, [&]() -> std::unique_ptr<Operation> {
                if (!good_name(*broker, service)) {
                        return nullptr;
                }
                if (fds == nullptr || n == 0) {
                        return refused(*broker, EINVAL, "there is no socket to register");
                }
                if (n > kMaxMessageFds) {
                        return refused(*broker, E2BIG,
                                       fmt::format("{} sockets are too many for one message, which carries {}", n,
                                                   kMaxMessageFds));
                }
                std::vector<int> sockets(fds, fds + n);
                for (int& fd : sockets) {
                        if (how == Sockets::kDuplicated) {
                                OwnedFd duplicate(fd < 0 ? -1 : ::fcntl(fd, F_DUPFD_CLOEXEC, 0));
                                if (!duplicate) {
                                        const int errnum = fd < 0 ? EBADF : errno;
                                        broker->lent.clear();
                                        return refused(*broker, errnum,
                                                       fmt::format("cannot duplicate descriptor {}", fd));
                                }
                                fd = duplicate.get();
                                broker->lent.push_back(std::move(duplicate));
                        }
                }
                return std::make_unique<RegisterOperation>(name_of(service), std::move(sockets));
        });
}

std::optional<Endpoint> endpoint_of(const sockaddr* address, socklen_t length) {
        Endpoint at;
        if (address->sa_family == AF_INET && length >= sizeof(sockaddr_in)) {
                sockaddr_in four{};
                std::memcpy(&four, address, sizeof four);
                std::memcpy(at.address.bytes.data(), &four.sin_addr, sizeof four.sin_addr);
                at.port = ntohs(four.sin_port);
                return at;
        }
        if (address->sa_family == AF_INET6 && length >= sizeof(sockaddr_in6)) {
                sockaddr_in6 six{};
                std::memcpy(&six, address, sizeof six);
                at.port = ntohs(six.sin6_port);
                at.address.family = Family::kIpv6;
                std::memcpy(at.address.bytes.data(), &six.sin6_addr, sizeof six.sin6_addr);
                at.address = unmapped(at.address);
                return at;
        }
        return std::nullopt;
}

// Names with colons between them; false: one of them cannot be a service.
bool split(std::string_view list, std::vector<std::string>& names) {
        for (std::size_t end = 0; end != std::string_view::npos; list.remove_prefix(std::min(end + 1, list.size()))) {
                end = list.find(':');
                names.emplace_back(list.substr(0, end));
                if (!valid_service_name(names.back())) {
                        return false;
                }
                if (end == std::string_view::npos) {
                        break;
                }
        }
        return true;
}

// Blocks until it is over.
int finish(sockbroker_client* broker, int begun) {
        while (begun >= 0) {
                const int done = sockbroker_process(broker);
                if (done != 0) {
                        return done < 0 ? done : 0;
                }
                pollfd ready{.fd = broker->conversation.fd(), .events = POLLIN, .revents = 0};
                // The deadline is in it; after EINTR there is nothing new. Here the thread may be cancelled.
                (void)::poll(&ready, 1, -1);
        }
        return begun;
}

}  // namespace
}  // namespace sockbroker

using sockbroker::begin;
using sockbroker::finish;
using sockbroker::guarded;
using sockbroker::refused;
using sockbroker::usable;

int sockbroker_begin_register(sockbroker_client* broker, const char* service, const int* fds, unsigned n) {
        return sockbroker::begin_register(broker, service, fds, n, sockbroker::Sockets::kDuplicated);
}

int sockbroker_begin_remove(sockbroker_client* broker, const char* service) {
        return begin(broker, [&]() -> std::unique_ptr<sockbroker::Operation> {
                if (!sockbroker::good_name(*broker, service)) {
                        return nullptr;
                }
                return std::make_unique<sockbroker::RemoveOperation>(sockbroker::name_of(service));
        });
}

int sockbroker_begin_retrieve(sockbroker_client* broker, const char* service) {
        return begin(broker, [&]() -> std::unique_ptr<sockbroker::Operation> {
                if (!sockbroker::good_name(*broker, service)) {
                        return nullptr;
                }
                return std::make_unique<sockbroker::RetrieveOperation>(sockbroker::name_of(service), broker->fds);
        });
}

int sockbroker_begin_match(sockbroker_client* broker, const char* services, int protocol,
                           const struct sockaddr* address, socklen_t length) {
        return begin(broker, [&]() -> std::unique_ptr<sockbroker::Operation> {
                sockbroker::WantedBind wanted;
                if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP) {
                        return refused(*broker, EINVAL, "the protocol is IPPROTO_TCP or IPPROTO_UDP");
                }
                wanted.protocol = protocol == IPPROTO_TCP ? sockbroker::Protocol::kTcp : sockbroker::Protocol::kUdp;
                if (address == nullptr || length < sizeof(sa_family_t)) {
                        return refused(*broker, EINVAL, "there is no address");
                }
                const auto at = sockbroker::endpoint_of(address, length);
                if (!at) {
                        return refused(*broker, EAFNOSUPPORT, "the address is neither sockaddr_in nor sockaddr_in6");
                }
                if (at->port == 0) {
                        return refused(*broker, EINVAL, "a port is wanted, from 1 to 65535");
                }
                wanted.at = *at;
                if (services != nullptr && !sockbroker::split(services, wanted.services)) {
                        return refused(*broker, EINVAL, "these cannot be services: names with colons between them");
                }
                return std::make_unique<sockbroker::MatchOperation>(std::move(wanted), broker->taker);
        });
}

int sockbroker_begin_wait(sockbroker_client* broker, const char* service, int what) {
        return begin(broker, [&]() -> std::unique_ptr<sockbroker::Operation> {
                if (!sockbroker::good_name(*broker, service)) {
                        return nullptr;
                }
                if (service == nullptr || (what != SOCKBROKER_LIVE && what != SOCKBROKER_DRAINED)) {
                        return refused(*broker, EINVAL,
                                       "wait for a service to be SOCKBROKER_LIVE or SOCKBROKER_DRAINED");
                }
                return std::make_unique<sockbroker::WaitOperation>(
                        service, what == SOCKBROKER_LIVE ? sockbroker::WaitFor::kLive : sockbroker::WaitFor::kDrained);
        });
}

int sockbroker_get_fd(sockbroker_client* broker) {
        const int bad = usable(broker);
        return bad < 0 ? bad : broker->conversation.fd();
}

int sockbroker_process(sockbroker_client* broker) {
        if (const int bad = usable(broker); bad < 0) {
                return bad;
        }
        if (!broker->conversation.busy()) {
                return -ENODATA;
        }
        const int done = guarded([&] {
                auto came = broker->conversation.step();
                if (came && !*came) {
                        return 0;
                }
                broker->lent.clear();
                if (!came) {
                        broker->fds.clear();
                        return sockbroker::refuse(*broker, came.error().errnum, came.error().text());
                }
                broker->answered = true;
                broker->answer = std::move(**came);
                if (broker->answer.result == "ok") {
                        return 1;
                }
                broker->fds.clear();
                return broker->answer.errnum > 0 ? -broker->answer.errnum : -EIO;
        });
        if (done < 0) {
                const sockbroker::Uncancelled all_the_while;
                broker->conversation.cancel();  // where it ran out of memory halfway
        }
        return done;
}

int sockbroker_cancel(sockbroker_client* broker) {
        if (const int bad = usable(broker); bad < 0) {
                return bad;
        }
        return guarded([&] {
                broker->conversation.cancel();
                broker->lent.clear();
                broker->fds.clear();
                return 0;
        });
}

int sockbroker_take_fds(sockbroker_client* broker, int** ret_fds) {
        if (const int bad = usable(broker); bad < 0) {
                return bad;
        }
        if (ret_fds == nullptr) {
                return -EINVAL;
        }
        if (broker->conversation.busy()) {
                return -EALREADY;
        }
        return sockbroker::give_away(broker->fds, ret_fds);
}

int sockbroker_register(sockbroker_client* broker, const char* service, const int* fds, unsigned n) {
        return finish(broker, sockbroker::begin_register(broker, service, fds, n, sockbroker::Sockets::kBorrowed));
}

int sockbroker_remove(sockbroker_client* broker, const char* service) {
        return finish(broker, sockbroker_begin_remove(broker, service));
}

int sockbroker_retrieve(sockbroker_client* broker, const char* service, int** ret_fds) {
        if (ret_fds == nullptr) {
                return -EINVAL;
        }
        const int done = finish(broker, sockbroker_begin_retrieve(broker, service));
        return done < 0 ? done : sockbroker_take_fds(broker, ret_fds);
}

int sockbroker_match(sockbroker_client* broker, const char* services, int protocol, const struct sockaddr* address,
                     socklen_t length, char** ret_service) {
        if (ret_service == nullptr) {
                return -EINVAL;
        }
        if (const int done = finish(broker, sockbroker_begin_match(broker, services, protocol, address, length));
            done < 0) {
                return done;
        }
        char* name = ::strdup(broker->taker.service.c_str());
        if (name == nullptr) {
                return -ENOMEM;
        }
        *ret_service = name;
        return 0;
}

int sockbroker_wait(sockbroker_client* broker, const char* service, int what) {
        return finish(broker, sockbroker_begin_wait(broker, service, what));
}
