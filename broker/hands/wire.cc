// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/hands/wire.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace sockbroker::hands {

namespace {

constexpr std::int32_t kMaxErrno = 4095;

bool is_bool(std::uint8_t value) {
        return value <= 1;
}

bool is_errno(std::int32_t value) {
        return value >= 0 && value <= kMaxErrno;
}

std::optional<Found> from_wire(const Facts& facts) {
        if (!is_bool(facts.listening) || !is_bool(facts.connected) || !is_errno(facts.errnum) ||
            facts.protocol > static_cast<std::uint8_t>(Protocol::kUdp) ||
            facts.family > static_cast<std::uint8_t>(SocketFamily::kDual) ||
            facts.address_family > static_cast<std::uint8_t>(Family::kIpv6) ||
            facts.staging > static_cast<std::uint8_t>(Staging::kKept)) {
                return std::nullopt;
        }
        Found found;
        found.facts = {.domain = facts.domain,
                       .type = facts.type,
                       .protocol_number = facts.protocol_number,
                       .listening = facts.listening != 0,
                       .connected = facts.connected != 0,
                       .cookie = facts.cookie,
                       .netns_cookie = facts.netns_cookie,
                       .protocol = static_cast<Protocol>(facts.protocol),
                       .family = static_cast<SocketFamily>(facts.family),
                       .bound = {.address = {.family = static_cast<Family>(facts.address_family)}, .port = facts.port}};
        std::memcpy(found.facts.bound.address.bytes.data(), facts.address, sizeof facts.address);
        found.staging = static_cast<Staging>(facts.staging);
        found.errnum = facts.errnum;
        found.waiting = facts.waiting;
        return found;
}

bool is_plausible(const Answer& answer) {
        const std::size_t facts = answer.has_facts != 0 ? answer.count : 0;
        if (answer.count > kMaxMessageFds || !is_bool(answer.truncated) || !is_bool(answer.has_facts) ||
            !is_errno(answer.errnum) || answer.size != sizeof answer + facts * sizeof(Facts)) {
                return false;
        }
        switch (answer.kind) {
        case AnswerKind::kDone:
                return true;
        case AnswerKind::kTaken:
        case AnswerKind::kBusy:
        case AnswerKind::kIdle:
        case AnswerKind::kForgotten:
                return answer.has_facts == 0;
        }
        return false;
}

}  // namespace

std::string_view to_string(Role role) {
        switch (role) {
        case Role::kIntake:
                return "intake";
        case Role::kDisposal:
                return "disposal";
        case Role::kHolder:
                return "holder";
        case Role::kQuarantine:
                return "quarantine";
        case Role::kDoor:
                break;
        }
        return "door";
}

Parsed parse_answer(std::span<const std::byte> bytes) {
        Answer answer;
        if (bytes.size() < sizeof answer) {
                return {};
        }
        std::memcpy(&answer, bytes.data(), sizeof answer);
        if (!is_plausible(answer)) {
                return {.wrong = true};
        }
        if (bytes.size() < answer.size) {
                return {};
        }
        ParsedAnswer parsed{.kind = answer.kind,
                            .job = answer.job,
                            .errnum = answer.errnum,
                            .uid = answer.uid,
                            .offender = answer.offender,
                            .count = answer.count,
                            .truncated = answer.truncated != 0};
        if (answer.has_facts != 0) {
                parsed.found.reserve(answer.count);
        }
        for (std::size_t at = sizeof answer; at < answer.size; at += sizeof(Facts)) {
                Facts facts;
                std::memcpy(&facts, bytes.data() + at, sizeof facts);
                auto found = from_wire(facts);
                if (!found) {
                        return {.wrong = true};
                }
                parsed.found.push_back(*found);
        }
        return {.used = answer.size, .answer = std::move(parsed)};
}

Facts to_wire(const Found& found) {
        const SocketFacts& facts = found.facts;
        Facts wire{.domain = facts.domain,
                   .type = facts.type,
                   .protocol_number = facts.protocol_number,
                   .errnum = found.errnum,
                   .cookie = facts.cookie,
                   .netns_cookie = facts.netns_cookie,
                   .waiting = found.waiting,
                   .port = facts.bound.port,
                   .listening = facts.listening,
                   .connected = facts.connected,
                   .protocol = static_cast<std::uint8_t>(facts.protocol),
                   .family = static_cast<std::uint8_t>(facts.family),
                   .address_family = static_cast<std::uint8_t>(facts.bound.address.family),
                   .staging = static_cast<std::uint8_t>(found.staging)};
        std::memcpy(wire.address, facts.bound.address.bytes.data(), sizeof wire.address);
        return wire;
}

std::optional<ZygoteReport> parse_zygote_report(std::span<const std::byte> bytes) {
        ZygoteReport report;
        if (bytes.size() != sizeof report) {
                return std::nullopt;
        }
        std::memcpy(&report, bytes.data(), sizeof report);
        if (report.kind < ZygoteReportKind::kClosed || report.kind > ZygoteReportKind::kExited) {
                return std::nullopt;
        }
        return report;
}

std::optional<RefusedReport> parse_refused_report(std::span<const std::byte> bytes) {
        RefusedReport report;
        if (bytes.size() != sizeof report) {
                return std::nullopt;
        }
        std::memcpy(&report, bytes.data(), sizeof report);
        if (static_cast<std::size_t>(report.why) >= kDoorRefusals || report.count == 0) {
                return std::nullopt;
        }
        return report;
}

int send_bytes(int socket, std::span<const std::byte> bytes, std::span<const int> fds, bool wait) {
        if (fds.size() > kMaxMessageFds) {
                return EINVAL;
        }
        // sendmsg(2) only reads through the pointer.
        iovec vector = {.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()};
        msghdr header{.msg_iov = &vector, .msg_iovlen = 1};
        alignas(cmsghdr) char control[CMSG_SPACE(kMaxMessageFds * sizeof(int))];
        if (!fds.empty()) {
                header.msg_control = control;
                header.msg_controllen = CMSG_SPACE(fds.size_bytes());
                cmsghdr* part = CMSG_FIRSTHDR(&header);
                part->cmsg_level = SOL_SOCKET;
                part->cmsg_type = SCM_RIGHTS;
                part->cmsg_len = CMSG_LEN(fds.size_bytes());
                std::memcpy(CMSG_DATA(part), fds.data(), fds.size_bytes());
        }
        ssize_t sent = -1;
        do {
                sent = sendmsg(socket, &header, MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT));
        } while (sent < 0 && errno == EINTR);
        return sent < 0 ? errno : 0;
}

}  // namespace sockbroker::hands
