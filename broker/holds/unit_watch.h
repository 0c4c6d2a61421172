// SPDX-License-Identifier: LGPL-2.1-or-later
//
// States of system units, as PID 1 tells over the system bus. Never blocks: every call is answered later or not at all.
// A bus that is not there yet, or goes, is looked for again. Changes nothing and asks for no privilege.
#pragma once

#include <systemd/sd-bus.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "broker/base/turns.h"
#include "broker/holds/unit_state.h"

namespace sockbroker {

class UnitWatch {
public:
        struct Hooks {
                std::function<void(const std::string& unit)> changed;  // something about it; ask() tells what
                std::function<void()> settled;                         // connected or not: that is known now
        };
        UnitWatch(sd_event* event, Hooks hooks) : event_(event), hooks_(std::move(hooks)) {}
        ~UnitWatch() = default;  // whoever asked hears nothing any more
        UnitWatch(const UnitWatch&) = delete;
        UnitWatch& operator=(const UnitWatch&) = delete;

        // From now on the bus is wanted.
        void want();
        [[nodiscard]] bool connected() const { return connected_; }
        [[nodiscard]] bool pending() const { return pending_; }  // on its way to the first answer
        // The major version of the system manager; 0: not known.
        [[nodiscard]] unsigned version() const { return version_; }

        // Null: nobody knows, now. May be called before this returns. Many may ask of one unit: one question to PID 1
        // that begins after them answers them all, and few are on their way at a time (dbus-daemon allows 128).
        using Then = std::function<void(const UnitState* state)>;
        void ask(const std::string& unit, Then then) { ask(unit, What::kState, std::move(then)); }
        // What a .socket unit listens on; nothing else of its state is told.
        void ask_listens(const std::string& socket, Then then) { ask(socket, What::kListens, std::move(then)); }

private:
        struct FreeBus {
                void operator()(sd_bus* bus) const { sd_bus_close_unref(bus); }
        };
        static constexpr std::size_t kMaxQuestions = 32;
        enum class What : std::uint8_t { kState, kListens };
        struct Question {
                UnitWatch* watch;
                What what;
                std::vector<Then> askers;
        };
        void ask(const std::string& unit, What what, Then then);
        [[nodiscard]] int connect();
        void ask_next();
        [[nodiscard]] int send(const std::string& unit, What what, std::unique_ptr<Question>& question);
        static int on_state(sd_bus_message* reply, void* question, sd_bus_error*);
        void try_again();
        void settle(bool connected);
        static int on_hello(sd_bus_message* reply, void* self, sd_bus_error*);
        static int on_version(sd_bus_message* reply, void* self, sd_bus_error*);
        static int on_changed(sd_bus_message* signal, void* self, sd_bus_error*);
        static int on_owner(sd_bus_message* signal, void* self, sd_bus_error*);
        static int on_lost(sd_bus_message* signal, void* self, sd_bus_error*);

        sd_event* event_;
        Hooks hooks_;
        bool wanted_ = false;
        bool connected_ = false;
        bool pending_ = false;
        unsigned version_ = 0;
        std::string manager_;  // PID 1's connection, the only one that tells of units
        std::map<std::pair<std::string, What>, std::vector<Then>> to_ask_;
        std::size_t asked_ = 0;  // on their way
        OwnedSource timer_;
        std::unique_ptr<sd_bus, FreeBus> bus_;
};

}  // namespace sockbroker
