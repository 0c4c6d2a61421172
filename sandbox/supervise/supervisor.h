// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The supervisor's work: one call of the program after another. Every bind is made here, on a copy of the program's
// descriptor and with bytes that were read once; nothing is left to the kernel to read again.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sandbox/supervise/broker_link.h"
#include "sandbox/supervise/chosen_ports.h"
#include "sandbox/supervise/heirs.h"
#include "sandbox/supervise/notification.h"
#include "sandbox/supervise/plan.h"
#include "sandbox/supervise/spares.h"
#include "sandbox/supervise/table.h"
#include "sandbox/supervise/target.h"
#include "sandbox/supervise/zombie.h"

namespace sockbroker::supervise {

// SO_COOKIE; 0: it is no socket.
[[nodiscard]] std::uint64_t cookie_of(int fd);

// To a port, TCP or UDP.
[[nodiscard]] bool is_bound(int fd);

struct Settings {
        std::string runtime_dir;
        std::vector<std::string> services;  // of --service=; none: any that admits
        std::vector<Limit> limits;          // of --bind=; none: all
        bool registers = true;
        bool names = false;  // getsockname(2) tells what was asked
};

class Supervisor {
public:
        // `program`: the first process.
        Supervisor(Settings settings, Notifications notifications, Spares spares, pid_t program);

        // Until no process that lives has the filter any more.
        void run();

private:
        // The socket of one call.
        struct Call {
                std::uint64_t id;
                const Target& target;
                int number;  // in the program
                int fd;      // the copy
                SocketKind kind;
        };

        // Among the sockets of its service: the newest serves.
        enum class Place : std::uint8_t { kFirst, kAsItIs };

        // Milliseconds, -1: for as long as nothing happens.
        [[nodiscard]] int patience() const;
        void find_heirs();
        void handle(const seccomp_notif& request);
        // The errno that the program hears, 0: done.
        [[nodiscard]] int work(const seccomp_notif& request);
        // None: the kernel shall answer.
        [[nodiscard]] std::optional<int> name(const seccomp_notif& request);
        [[nodiscard]] int bind(const Call& call, std::uint64_t address, int size);
        [[nodiscard]] int listen(const Call& call, int backlog);
        [[nodiscard]] int listen_again(Known& known, const Call& call);

        [[nodiscard]] int take_over(const Call& call, Known known);
        [[nodiscard]] int put_in_place(const Call& call, Given spare, Known known);
        [[nodiscard]] int hand_over(Known& known, int fd, pid_t pid, Place place);
        // False: the broker answers nobody now.
        [[nodiscard]] bool inherit(const Heirs::Heir& heir);
        // `holding`: those of known.services that have HoldSec=.
        using Names = std::vector<std::string>;
        [[nodiscard]] int find_takers(Known& known, pid_t pid, Names& holding);
        // An error where what is held would be lost if the program had another socket. `spare` may be none.
        [[nodiscard]] int find_spare(const Known& known, pid_t pid, const Names& holding,
                                     std::span<const std::uint16_t> ports, Given& spare);
        [[nodiscard]] Reply retrieve(const std::string& service, pid_t pid);

        Settings settings_;
        Notifications notifications_;
        Spares spares_;
        BrokerLink broker_;
        Table table_;
        ChosenPorts chosen_ports_;
        unsigned first_unprivileged_ = 1024;
        Zombie zombie_;
        Heirs heirs_;
        std::chrono::milliseconds between_searches_{};
        std::chrono::steady_clock::time_point find_heirs_at_;
};

}  // namespace sockbroker::supervise
