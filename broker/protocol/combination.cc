// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One function for each kind of request.
#include "broker/protocol/combination.h"

#include <fmt/format.h>

namespace sockbroker {
namespace {

std::expected<Request, Refusal> judge_barrier(const Fields& fields, std::size_t fds) {
        for (std::size_t i = 0; i < kKeys; i++) {
                if (i != kBarrierKey && fields.values[i]) {
                        return malformed(
                                fmt::format("BARRIER=1 stands alone in its message, here with {}=; send it as a "
                                            "message of its own",
                                            key_name(static_cast<Key>(i))));
                }
        }
        if (!fields.foreign.empty()) {
                return malformed(
                        fmt::format("BARRIER=1 stands alone in its message, here with {}; send it as a message of "
                                    "its own",
                                    quoted(fields.foreign)));
        }
        if (fds != 1) {
                return malformed(
                        fmt::format("BARRIER=1 takes exactly one descriptor, not {}; send the write end of a pipe "
                                    "and wait for its hang-up",
                                    fds));
        }
        return Request{Verb::kBarrier, {}};
}

// The keys that say what to do exclude each other.
std::expected<std::optional<Key>, Refusal> find_action(const Fields& fields) {
        std::optional<Key> action;
        for (const Key key : {kFdStore, kFdStoreRemove, kFdRetrieve, kVerbKey}) {
                if (!fields.has(key)) {
                        continue;
                }
                if (action) {
                        return malformed(fmt::format("{}= and {}= exclude each other; send two messages",
                                                     key_name(*action), key_name(key)));
                }
                action = key;
        }
        return action;
}

std::expected<Request, Refusal> judge_match(const Fields& fields) {
        if (!fields.has(kProtocol) || !fields.has(kAddress) || !fields.has(kPort)) {
                return malformed("VERB=match needs PROTOCOL=, ADDRESS= and PORT=, where a socket is to be bound");
        }
        Request request{.verb = Verb::kMatch, .pid = fields.pid};
        request.bind = {.protocol = fields.protocol, .at = {.address = fields.address, .port = fields.port}};
        if (fields.has(kFdName)) {
                request.bind.services = split_names(fields.values[kFdName].value_or(""));
        }
        return request;
}

std::expected<Request, Refusal> judge_explain(const Fields& fields) {
        if (!fields.has(kProtocol) || !fields.has(kAddress) || !fields.has(kPort)) {
                return malformed("VERB=explain needs PROTOCOL=, ADDRESS= and PORT=, where the packet goes");
        }
        if (fields.has(kFrom) && fields.from.address.family != fields.address.family) {
                return malformed("FROM= and ADDRESS= are of two families, a packet has one");
        }
        Request request{.verb = Verb::kExplain};
        request.bind = {.protocol = fields.protocol, .at = {.address = fields.address, .port = fields.port}};
        if (fields.has(kFrom)) {
                request.client.from = fields.from;
        }
        request.client.interface = fields.values[kInterface].value_or("");
        return request;
}

std::expected<Request, Refusal> judge_verb(const Fields& fields, std::size_t fds) {
        const auto name = fields.values[kVerbKey].value_or("");
        if (fds != 0) {
                return malformed(fmt::format("VERB={} takes no descriptors, {} came", name, fds));
        }
        if (fields.verb == Verb::kUnregister && !fields.has(kFdName)) {
                return malformed("VERB=unregister needs FDNAME=, the service whose sockets to remove");
        }
        const bool drains = fields.verb == Verb::kDrain || fields.verb == Verb::kUndrain;
        if (drains && !fields.has(kFdName)) {
                return malformed(fmt::format("VERB={} needs FDNAME=, the service", name));
        }
        if (fields.verb == Verb::kHold && !(fields.has(kFdName) && fields.has(kTimeout))) {
                return malformed("VERB=hold needs FDNAME=, the service, and TIMEOUT_USEC=, how long");
        }
        if (fields.verb == Verb::kMatch) {
                return judge_match(fields);
        }
        if (fields.verb == Verb::kExplain && !fields.has(kFdName)) {
                return judge_explain(fields);
        }
        if (fields.verb != Verb::kUnregister && fields.verb != Verb::kHold && fields.verb != Verb::kPrepare &&
            !drains && fields.has(kFdName)) {
                return malformed(
                        fmt::format("VERB={} takes no FDNAME=, of the verbs only unregister, hold, drain, undrain, "
                                    "match and prepare do",
                                    name));
        }
        return Request{fields.verb, fields.service(), fields.timeout_usec, fields.pid};
}

// Keys that only some requests have.
std::expected<void, Refusal> check_companions(const Fields& fields, std::optional<Key> action) {
        if (fields.has(kFdPoll) && action != kFdStore) {
                return malformed("FDPOLL=0 needs FDSTORE=1 beside it");
        }
        if (fields.has(kTimeout) && fields.verb != Verb::kHold && fields.verb != Verb::kReload) {
                return malformed("TIMEOUT_USEC= needs VERB=hold or VERB=reload beside it");
        }
        for (const Key key : {kMigrate, kInherit, kFamily}) {
                if (fields.has(key) && action != kFdStore) {
                        return malformed(fmt::format("{}= needs FDSTORE=1 beside it", key_name(key)));
                }
        }
        if (fields.has(kPid) && action != kFdStore && action != kFdRetrieve && fields.verb != Verb::kMatch &&
            fields.verb != Verb::kPrepare) {
                return malformed("PID= needs FDSTORE=1, FDRETRIEVE=1, VERB=match or VERB=prepare beside it");
        }
        for (const Key key : {kProtocol, kAddress, kPort}) {
                if (fields.has(key) && fields.verb != Verb::kMatch && fields.verb != Verb::kExplain) {
                        return malformed(fmt::format("{}= needs VERB=match or VERB=explain beside it", key_name(key)));
                }
        }
        for (const Key key : {kFrom, kInterface}) {
                if (fields.has(key) && fields.verb != Verb::kExplain) {
                        return malformed(fmt::format("{}= needs VERB=explain beside it", key_name(key)));
                }
        }
        const auto name = fields.values[kFdName].value_or("");
        if (fields.verb != Verb::kMatch && name.find(':') != std::string_view::npos) {
                return no_service_name(name);
        }
        return {};
}

}  // namespace

std::expected<Request, Refusal> to_request(Channel channel, const Fields& fields, std::size_t fds) {
        if (fields.has(kBarrierKey)) {
                return judge_barrier(fields, fds);
        }
        const auto found = find_action(fields);
        if (!found) {
                return std::unexpected(found.error());
        }
        const std::optional<Key> action = *found;
        if (auto fit = check_companions(fields, action); !fit) {
                return std::unexpected(fit.error());
        }
        if (!action) {
                if (fields.has(kFdName)) {
                        return malformed(channel == Channel::kNotify
                                                 ? "FDNAME= needs FDSTORE=1 or FDSTOREREMOVE=1 beside it"
                                                 : "FDNAME= needs FDSTORE=1, FDSTOREREMOVE=1, FDRETRIEVE=1 or "
                                                   "VERB=unregister beside it");
                }
                if (fds != 0) {
                        return malformed(
                                fmt::format("{} descriptors came without FDSTORE=1 or BARRIER=1, and were closed; "
                                            "FDSTORE=1 hands sockets over",
                                            fds));
                }
                if (channel == Channel::kControl) {
                        return malformed(
                                "the request is empty; it needs FDSTORE=1, FDSTOREREMOVE=1, FDRETRIEVE=1, "
                                "BARRIER=1 or VERB=");
                }
                return Request{};
        }
        if (*action == kVerbKey) {
                return judge_verb(fields, fds);
        }
        if (*action == kFdStore) {
                if (fds == 0) {
                        return malformed(
                                "FDSTORE=1 came without a descriptor; send the socket with it as SCM_RIGHTS "
                                "(sd_pid_notify_with_fds(), systemd-notify --fd=)");
                }
                return Request{.verb = Verb::kStore,
                               .service = fields.service(),
                               .pid = fields.pid,
                               .migrate = fields.has(kMigrate),
                               .inherit = fields.has(kInherit),
                               .family = fields.has(kFamily) ? std::optional(fields.family) : std::nullopt};
        }
        if (fds != 0) {
                return malformed(fmt::format("{}=1 takes no descriptors, {} came", key_name(*action), fds));
        }
        return Request{.verb = *action == kFdStoreRemove ? Verb::kRemove : Verb::kRetrieve,
                       .service = fields.service(),
                       .pid = fields.pid};
}

}  // namespace sockbroker
