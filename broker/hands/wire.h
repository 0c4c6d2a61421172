// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the core and its hands say to each other, in structs of fixed layout. Orders go to a hand as one record of a
// seqpacket socket, with the descriptors that they are about; answers come back through a pipe, which cannot carry a
// descriptor. The parser of the answers believes nothing: a hand may have been taken over by what it was given.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "broker/protocol/request.h"
#include "broker/socket/facts.h"

namespace sockbroker::hands {

enum class Role : std::uint8_t {
        kIntake = 0,      // takes messages, probes and offers the sockets in them
        kDisposal = 1,    // takes messages and closes what was in them; closes connections
        kHolder = 2,      // as kIntake, and keeps what it was given
        kDoor = 3,        // accepts connections
        kQuarantine = 4,  // takes messages and closes nothing of them while it lives
};
inline constexpr std::size_t kRoles = 5;
[[nodiscard]] std::string_view to_string(Role role);

// Numbers of the descriptors that every process of these starts with, beside 0 to 2.
inline constexpr int kAnswers = 3;  // the pipe to the core; of the door: the socket, in both directions
inline constexpr int kOrders = 4;   // of the door: the socket that it listens on
inline constexpr int kFirst = 5;    // by role: the staging map; the notify socket (kDisposal, kQuarantine)
inline constexpr int kSecond = 6;   // the notify socket (kIntake); the queue from the door (kDisposal); PID 1 (kHolder)
inline constexpr int kThird = 7;    // the notify socket (kHolder)
inline constexpr int kBetween = 5;  // of the door: its end of the queue to the disposal hands
inline constexpr int kLabels = 6;   // of the door: the other socket that it listens on, if there is one

// --- core to hand

enum class OrderKind : std::uint32_t {
        kTake = 1,     // consume one message
        kAdopt = 2,    // keep what is attached under these cookies, unseen
        kPut = 3,      // the attached connections are to be closed, when the next order comes
        kRelease = 4,  // close the kept sockets of these cookies
        kSend = 5,     // the kept sockets of these cookies, with the text, into the attached connection
        kStore = 6,    // one kept socket into PID 1's store, the text is its name
        kUnstore = 7,  // the text is the name of what PID 1 is to forget; then the kept socket of the cookie is closed
        kSample = 8,   // how much waits in the kept sockets of these cookies
};

enum class Source : std::uint8_t {
        kAttached = 0,  // the connection that came with the order
        kNotify = 1,    // the notify socket
};

struct Order {
        OrderKind kind{};
        std::uint32_t job = 0;
        std::uint32_t staging = 0;  // slot of the first descriptor
        std::uint16_t cookies = 0;  // how many follow
        std::uint16_t text = 0;     // bytes that follow these
        Source source{};
        bool probe = false;  // else everything is closed
        bool keep = false;   // a holder: what could be brokered
        std::uint8_t reserved = 0;
};
static_assert(sizeof(Order) == 20);

inline constexpr std::size_t kMaxOrder = sizeof(Order) + kMaxMessageFds * sizeof(std::uint64_t) + kMaxMessageBytes;

// --- hand to core

enum class AnswerKind : std::uint32_t {
        kTaken = 1,  // the message is consumed, the answer follows; for the notify socket only
        kDone = 2,
        kBusy = 3,       // a hand of disposal has got connections from the door, those of one user
        kIdle = 4,       // and has closed them
        kForgotten = 5,  // PID 1 has forgotten what a job of kUnstore named, which was done long ago
};

enum class Staging : std::uint8_t {
        kNone = 0,     // another descriptor of the message cannot be brokered, so none is offered; or not asked for
        kOffered = 1,  // in the slot of the staging map that is its own
        kAgain = 2,    // the same socket came before in this message
        kFailed = 3,   // errnum says why
        kKept = 4,     // adopted
};

// SocketFacts, and what became of the descriptor.
struct Facts {
        std::int32_t domain = -1;
        std::int32_t type = 0;
        std::int32_t protocol_number = 0;
        std::int32_t errnum = 0;
        std::uint64_t cookie = 0;
        std::uint64_t netns_cookie = 0;
        std::uint64_t waiting = 0;
        std::uint8_t address[16] = {};
        std::uint16_t port = 0;
        std::uint8_t listening = 0;
        std::uint8_t connected = 0;
        std::uint8_t protocol = 0;
        std::uint8_t family = 0;
        std::uint8_t address_family = 0;
        std::uint8_t staging = 0;
};
static_assert(sizeof(Facts) == 64);

struct Answer {
        std::uint32_t size = 0;  // of all, with the facts that follow
        AnswerKind kind{};
        std::uint32_t job = 0;
        std::int32_t errnum = 0;  // of the order as a whole
        std::uint32_t uid = 0;    // kBusy
        std::uint32_t offender = 0;
        std::uint16_t count = 0;  // descriptors of the message; of kBusy: connections
        std::uint8_t truncated = 0;
        std::uint8_t has_facts = 0;  // one for each descriptor
};
static_assert(sizeof(Answer) == 28);

inline constexpr std::size_t kMaxAnswer = sizeof(Answer) + kMaxMessageFds * sizeof(Facts);

struct Found {
        SocketFacts facts;
        Staging staging = Staging::kNone;
        int errnum = 0;
        std::uint64_t waiting = 0;  // kSample, as waiting_in() says
};

struct ParsedAnswer {
        AnswerKind kind{};
        std::uint32_t job = 0;
        int errnum = 0;
        std::uint32_t uid = 0;
        std::uint32_t offender = 0;
        std::size_t count = 0;
        bool truncated = false;
        std::vector<Found> found;
};

struct Parsed {
        std::size_t used = 0;  // bytes of this answer; 0: more have to come first
        std::optional<ParsedAnswer> answer;
        bool wrong = false;  // no hand of ours wrote that
};

// The first answer of what was read. Pure.
[[nodiscard]] Parsed parse_answer(std::span<const std::byte> bytes);

[[nodiscard]] Facts to_wire(const Found& found);

// --- core and zygote

enum class ZygoteOrderKind : std::uint32_t { kFork = 1, kKill = 2 };

inline constexpr std::size_t kMaxGiven = 5;  // descriptors that a child starts with

struct ZygoteOrder {
        ZygoteOrderKind kind{};
        std::uint32_t child = 0;
        Role role{};
        std::uint8_t fds = 0;       // bit N: descriptor kAnswers + N is attached, in this order
        bool for_the_door = false;  // a hand of disposal gets the queue from the door
        std::uint8_t reserved = 0;
};
static_assert(sizeof(ZygoteOrder) == 12);

enum class ZygoteReportKind : std::uint32_t {
        kClosed = 1,  // it has nothing of the core's any more; value: errno of Landlock, 0 or what this kernel lacks
        kForked = 2,  // and its own copies are closed; value: the pid
        kFailed = 3,  // value: errno
        kExited = 4,  // reaped; value: as of wait(2)
};

struct ZygoteReport {
        ZygoteReportKind kind{};
        std::uint32_t child = 0;
        std::int32_t value = 0;
};
static_assert(sizeof(ZygoteReport) == 12);

[[nodiscard]] std::optional<ZygoteReport> parse_zygote_report(std::span<const std::byte> bytes);

// --- core and door

inline constexpr std::size_t kMaxConnectionsPerUid = 32;  // root: not counted
// What the core has at most, plus some that it is to close.
inline constexpr std::size_t kMaxConnections = 512;
inline constexpr std::size_t kMaxAccepted = kMaxConnections + 64;

enum class DoorOrderKind : std::uint32_t {
        kClose = 1,  // these connections
        kKeep = 2,   // these too, but only when their offender is forgiven: not before may a hand see them
        kForgive = 3,
        // No connection of this uid is passed on, and what it has sent is kept as by kKeep. kNobody: everybody's is
        // kept.
        kBar = 4,
        kUnbar = 5,
};

struct DoorOrder {
        DoorOrderKind kind{};
        std::uint32_t count = 0;  // of connections that follow
        std::uint32_t offender = 0;
        std::uint32_t uid = 0;
        // A hand may be taking a message from them, so their queues are not to be looked at: another hand closes them.
        std::uint32_t in_use = 0;
};
static_assert(sizeof(DoorOrder) == 20);
inline constexpr std::size_t kMaxDoorIds = 128;
inline constexpr std::size_t kMaxDoorOrder = sizeof(DoorOrder) + kMaxDoorIds * sizeof(std::uint64_t);

// With a duplicate of the connection.
struct DoorReport {
        std::uint64_t id = 0;
        std::uint32_t uid = 0;  // of who connected
        std::int32_t pid = 0;
        std::uint32_t labels = 0;  // 1: it came by kLabels
        std::uint32_t reserved = 0;
};
static_assert(sizeof(DoorReport) == 24);

// Why the door tells a peer that it is not let in, and closes its connection.
enum class DoorRefusal : std::uint32_t {
        kTooMany = 0,         // of this user, and as many as may wait
        kTooManyClosing = 1,  // of this user wait to be closed
        kBarred = 2,          // DoorOrderKind::kBar
};
inline constexpr std::size_t kDoorRefusals = 3;

// Of so many connections since the last one, without a descriptor. Its size tells it from a DoorReport.
struct RefusedReport {
        std::uint32_t uid = 0;  // of who connected; kNobody: of many
        DoorRefusal why{};
        std::uint32_t count = 0;
};
static_assert(sizeof(RefusedReport) == 12);
// None: no door of ours wrote that.
[[nodiscard]] std::optional<RefusedReport> parse_refused_report(std::span<const std::byte> bytes);

// --- door to hands of disposal: connections of one user, to be closed

struct Discarded {
        std::uint32_t uid = 0;
        std::uint32_t offender = 0;
        std::uint32_t door = 0;    // ClosedByDoor::door
        std::uint32_t number = 0;  // of this record, from 1
};
static_assert(sizeof(Discarded) == 16);
inline constexpr std::size_t kMaxDiscarded = 32;

// Memory that the zygote, the door and the hands of disposal share; the latter only read. A hand closes nothing before
// the door has closed its copies, which so are never the last.
struct ClosedByDoor {
        std::atomic<std::uint32_t> door = 0;    // which one there is
        std::atomic<std::uint32_t> number = 0;  // of the last record whose connections it has closed
};
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

// --- how they are put into records

template <class T>
[[nodiscard]] std::span<const std::byte> as_bytes_of(const T& value) {
        return std::as_bytes(std::span(&value, 1));
}

// One record with descriptors, without SIGPIPE; with `wait`: until there is room. errno, 0 if it is sent.
[[nodiscard]] int send_bytes(int socket, std::span<const std::byte> bytes, std::span<const int> fds = {},
                             bool wait = false);

}  // namespace sockbroker::hands
