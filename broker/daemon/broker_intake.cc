// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What class Broker makes of a message before its request is judged: how often its sender may ask, who that is, whether
// its descriptors are worth a look and who is to keep them, and what came of that look.
#include <cerrno>
#include <utility>

#include <fmt/format.h>

#include "broker/daemon/broker.h"
#include "broker/peer/on_behalf.h"

namespace sockbroker {

namespace {

constexpr uid_t kUnknownSender = static_cast<uid_t>(-1);  // counts for itself, not for root

uid_t uid_of(const Message& message) {
        const auto& sender = message.credentials;
        return sender ? sender->uid : kUnknownSender;
}

}  // namespace

Peer Broker::claimed_by(const Message& message) {
        Peer peer;
        if (const auto& sender = message.credentials) {
                peer = {.pid = sender->pid, .uid = sender->uid, .gid = sender->gid};
        }
        return peer;
}

// On `notify` before anything else, each message; on `control` those that change something.
const std::optional<Refusal>& Broker::rate_of(Channel channel, Incoming& message) {
        if (!std::exchange(message.counted, true)) {
                message.over_rate = over_rate(channel, uid_of(message));
        }
        return message.over_rate;
}

const std::expected<Peer, Refusal>& Broker::sender_of(Incoming& message, const Request& request) {
        if (!message.identified) {
                auto sender = senders_.identify(message);
                const bool names_another = sender && request.pid != 0;
                message.identified = names_another ? on_behalf_of(*sender, request.pid) : std::move(sender);
                message.pid_not_believed = names_another && !*message.identified;
        }
        return *message.identified;
}

// A program that root runs for a user may have a connection of this user for its standard output, and write there what
// the user likes. Who registers gives descriptors, which nobody does by mistake. Root gains nothing where it has
// connected for others.
std::optional<Refusal> Broker::on_connection_of_another(const Incoming& message, Verb verb) {
        const auto by = message.connected_by;
        if (!by || *by == 0 || *by == uid_of(message)) {
                return std::nullopt;
        }
        ResultCode code{};
        switch (verb) {
        case Verb::kReload:
        case Verb::kDiff:
        case Verb::kKeep:
        case Verb::kUnload:
        case Verb::kMonitor:
        case Verb::kDrain:
        case Verb::kUndrain:
                code = ResultCode::kNotRoot;
                break;
        case Verb::kRemove:
        case Verb::kUnregister:
        case Verb::kHold:
        case Verb::kRetrieve:
                code = ResultCode::kNotPermitted;
                break;
        default:
                return std::nullopt;
        }
        return Refusal{code,
                       fmt::format("uid {} asks this on a connection that uid {} has made, connect as the one who asks",
                                   uid_of(message), *by),
                       {}};
}

void Broker::plan(Channel channel, const IncomingPtr& message, const std::function<void(const Intake&)>& then) {
        Intake intake;
        intake.charge.uid = uid_of(*message);
        if ((channel == Channel::kNotify && rate_of(channel, *message)) || message->truncated) {
                return then(intake);
        }
        const auto request = parse_request(channel, message->text, 1);
        if (!request || request->verb != Verb::kStore || rate_of(channel, *message)) {
                // Whatever it says, what comes with it counts for the unit too.
                if (const auto sender = senders_.identify(*message)) {
                        intake.charge.unit = sender->unit;
                }
                return then(intake);
        }
        const auto& peer = sender_of(*message, *request);
        if (!peer) {
                return then(intake);
        }
        intake.charge.unit = peer->unit;
        const auto judged = [this, message, intake](const Admissions::Verdict& verdict) {
                Intake judged_intake = intake;
                judged_intake.charge.admitted = judged_intake.probe = verdict.has_value();
                if (verdict && verdict->service->hold_usec > 0) {
                        judged_intake.holder = verdict->service->name;
                        message->in_holder = held_.in_holder(judged_intake.holder);
                }
                return judged_intake;
        };
        if (channel == Channel::kNotify) {
                Intake known = judged(admit(*policy_, *peer, request->service, names_.last_known()));
                known.probe = known.probe || !names_that_matter(*policy_, *peer, request->service).empty();
                return then(known);
        }
        admissions_.judge(request->service, *peer, 1,
                          [this, message, then, judged](const Admissions::Verdict& verdict) {
                                  message->verdict = verdict;
                                  message->judged_by = policy_.shared();
                                  then(judged(verdict));
                          });
}

void Broker::park(Incoming& message) {
        message.parked.reserve(message.arrived.size());
        for (auto& one : message.arrived) {
                if (one.errnum != 0) {
                        continue;
                }
                if (auto place = dataplane_->park(one.entry)) {
                        one.entry = place->entry();
                        message.parked.push_back(std::move(*place));
                } else if (place.error().errnum == EBUSY) {
                        message.arrived.clear();
                        message.parked.clear();
                        message.not_taken = Refusal{
                                ResultCode::kBusy,
                                "too many sockets wait for the host to answer for names of User= and Group=, send it "
                                "again when it does",
                                {}};
                        return;
                } else {
                        one.errnum = place.error().errnum;
                }
        }
}

bool Broker::may_wait(Incoming& message, bool has_room) {
        if (!has_room) {
                message.counted = true;
                message.over_rate = Refusal{
                        ResultCode::kRateLimited,
                        fmt::format("too many messages of uid {} wait already, or of all, with what they brought",
                                    uid_of(message)),
                        {}};
        }
        return !rate_of(Channel::kNotify, message);
}

std::optional<Refusal> Broker::over_rate(Channel channel, uid_t uid) {
        const bool notify = channel == Channel::kNotify;
        const auto wait = (notify ? notify_rates_ : uid_rates_).take(uid, steady_usec());
        if (wait == 0) {
                return std::nullopt;
        }
        return Refusal{ResultCode::kRateLimited,
                       fmt::format("uid {} has sent too many {}, ask again in {} ms ({}RateLimitBurst= in "
                                   "sockbrokerd.conf)",
                                   uid, notify ? "messages" : "requests", wait / 1000 + 1, notify ? "Notify" : ""),
                       {}};
}

}  // namespace sockbroker
