// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/holds/unit_watch.h"

#include <cerrno>
#include <cstdlib>

#include "broker/base/net.h"
#include "broker/base/system_bus.h"

namespace sockbroker {

namespace {

constexpr const char* kManager = "org.freedesktop.systemd1";
constexpr const char* kManagerPath = "/org/freedesktop/systemd1";
constexpr const char* kManagerInterface = "org.freedesktop.systemd1.Manager";
constexpr const char* kUnitInterface = "org.freedesktop.systemd1.Unit";
constexpr const char* kSocketInterface = "org.freedesktop.systemd1.Socket";
constexpr const char* kUnitPrefix = "/org/freedesktop/systemd1/unit";
constexpr const char* kProperties = "org.freedesktop.DBus.Properties";
constexpr const char* kBus = "org.freedesktop.DBus";
constexpr std::uint64_t kRetryUsec = 2'000'000;
constexpr std::uint64_t kAnswerUsec = 5'000'000;

// Every user may send any signal to any connection, and sd_bus_match_signal(3) takes what has a unique name for what
// has the name that it is to match. But the bus itself writes down who has sent a message.
std::string_view sender_of(sd_bus_message* message) {
        const char* const sender = sd_bus_message_get_sender(message);
        return sender != nullptr ? sender : "";
}

void read_names(sd_bus_message* reply, const std::function<void(std::string_view unit)>& take) {
        if (sd_bus_message_enter_container(reply, SD_BUS_TYPE_VARIANT, "as") <= 0 ||
            sd_bus_message_enter_container(reply, SD_BUS_TYPE_ARRAY, "s") < 0) {
                return;
        }
        const char* unit = nullptr;
        while (sd_bus_message_read_basic(reply, SD_BUS_TYPE_STRING, static_cast<void*>(&unit)) > 0) {
                take(unit);
        }
        sd_bus_message_exit_container(reply);
        sd_bus_message_exit_container(reply);
}

void read_listening(sd_bus_message* reply, std::vector<Listening>& listens) {
        if (sd_bus_message_enter_container(reply, SD_BUS_TYPE_VARIANT, "a(ss)") <= 0 ||
            sd_bus_message_enter_container(reply, SD_BUS_TYPE_ARRAY, "(ss)") < 0) {
                return;
        }
        const char* type = nullptr;
        const char* address = nullptr;
        while (sd_bus_message_read(reply, "(ss)", &type, &address) > 0) {
                listens.push_back({type, address});
        }
        sd_bus_message_exit_container(reply);
        sd_bus_message_exit_container(reply);
}

void read_property(sd_bus_message* reply, std::string_view name, UnitState& state) {
        const char* text = nullptr;
        std::uint64_t usec = 0;
        if (name == "ActiveState" || name == "SubState") {
                if (sd_bus_message_read(reply, "v", "s", &text) > 0) {
                        (name == "SubState" ? state.sub : state.active) = text;
                }
        } else if (name == "Job") {
                std::uint32_t id = 0;
                if (sd_bus_message_read(reply, "v", "(uo)", &id, &text) > 0) {
                        state.has_job = id != 0;
                }
        } else if (name == "InactiveExitTimestampMonotonic" || name == "ActiveExitTimestampMonotonic") {
                if (sd_bus_message_read(reply, "v", "t", &usec) > 0) {
                        (name.starts_with("Active") ? state.ended_usec : state.began_usec) =
                                static_cast<std::int64_t>(usec);
                }
        } else if (name == "TriggeredBy") {
                read_names(reply, [&](std::string_view unit) {
                        if (unit.ends_with(".socket")) {
                                state.triggered_by.emplace_back(unit);
                        }
                });
        } else if (name == "Triggers") {
                read_names(reply, [&](std::string_view unit) { state.triggers.emplace_back(unit); });
        } else {
                sd_bus_message_skip(reply, "v");
        }
}

bool read_state(sd_bus_message* reply, UnitState& state) {
        if (sd_bus_message_is_method_error(reply, nullptr) > 0 ||
            sd_bus_message_enter_container(reply, SD_BUS_TYPE_ARRAY, "{sv}") < 0) {
                return false;
        }
        while (sd_bus_message_enter_container(reply, SD_BUS_TYPE_DICT_ENTRY, "sv") > 0) {
                const char* name = nullptr;
                if (sd_bus_message_read_basic(reply, SD_BUS_TYPE_STRING, static_cast<void*>(&name)) <= 0) {
                        return false;
                }
                read_property(reply, name, state);
                if (sd_bus_message_exit_container(reply) < 0) {
                        return false;
                }
        }
        return !state.active.empty();
}

// Whether PID 1 has answered: that there is nothing of the kind is an answer too.
bool read_listens(sd_bus_message* reply, UnitState& state) {
        if (sd_bus_message_is_method_error(reply, nullptr) > 0) {
                const int r = sd_bus_message_get_errno(reply);
                return r != ETIMEDOUT && r != EHOSTUNREACH && r != ENXIO;
        }
        read_listening(reply, state.listens);
        return true;
}

}  // namespace

void UnitWatch::want() {
        if (!std::exchange(wanted_, true) && connect() < 0) {
                try_again();
        }
}

void UnitWatch::settle(bool connected) {
        connected_ = connected;
        pending_ = false;
        hooks_.settled();
        ask_next();
}

void UnitWatch::try_again() {
        sd_event_source* source = nullptr;
        timer_.reset();
        const int r = sd_event_add_time_relative(
                event_, &source, CLOCK_MONOTONIC, kRetryUsec, 0,
                [](sd_event_source*, std::uint64_t, void* self) {
                        return guarded([&] {
                                auto* watch = static_cast<UnitWatch*>(self);
                                if (watch->connect() < 0) {
                                        watch->try_again();
                                }
                        });
                },
                this);
        timer_.reset(r < 0 ? nullptr : source);
        settle(false);
}

int UnitWatch::connect() {
        bus_.reset();
        asked_ = 0;
        manager_.clear();
        sd_bus* bus = nullptr;
        int r = open_system_bus(&bus);
        bus_.reset(bus);
        if (r < 0) {
                bus_.reset();
                return r;
        }
        const std::string unit_match = std::string("type='signal',sender='") + kManager + "',interface='" +
                                       kProperties + "',member='PropertiesChanged',path_namespace='" + kUnitPrefix +
                                       "',arg0='" + kUnitInterface + "'";
        // Never the blocking kind: PID 1 may wait for the bus, and the bus for PID 1.
        r = sd_bus_attach_event(bus, event_, 0);
        if (r >= 0) {
                r = sd_bus_match_signal(bus, nullptr, "org.freedesktop.DBus.Local", "/org/freedesktop/DBus/Local",
                                        "org.freedesktop.DBus.Local", "Disconnected", on_lost, this);
        }
        if (r >= 0) {
                r = sd_bus_add_match_async(bus, nullptr, unit_match.c_str(), on_changed, nullptr, this);
        }
        if (r >= 0) {
                r = sd_bus_match_signal_async(bus, nullptr, kBus, "/org/freedesktop/DBus", kBus, "NameOwnerChanged",
                                              on_owner, nullptr, this);
        }
        if (r >= 0) {
                r = sd_bus_call_method_async(bus, nullptr, kManager, kManagerPath, kProperties, "Get", on_version, this,
                                             "ss", kManagerInterface, "Version");
        }
        if (r >= 0) {
                r = sd_bus_call_method_async(bus, nullptr, kManager, kManagerPath, kManagerInterface, "Subscribe",
                                             on_hello, this, "");
        }
        if (r < 0) {
                bus_.reset();
        }
        pending_ = r >= 0;
        return r;
}

// PID 1 sends signals only while somebody has subscribed.
int UnitWatch::on_hello(sd_bus_message* reply, void* self, sd_bus_error*) {
        return guarded([&] {
                auto* watch = static_cast<UnitWatch*>(self);
                if (sd_bus_message_is_method_error(reply, nullptr) > 0 &&
                    sd_bus_message_is_method_error(reply, "org.freedesktop.systemd1.AlreadySubscribed") <= 0) {
                        return watch->try_again();
                }
                watch->manager_ = sender_of(reply);
                watch->settle(true);
        });
}

int UnitWatch::on_version(sd_bus_message* reply, void* self, sd_bus_error*) {
        const char* text = nullptr;
        if (sd_bus_message_is_method_error(reply, nullptr) <= 0 && sd_bus_message_read(reply, "v", "s", &text) > 0) {
                static_cast<UnitWatch*>(self)->version_ = static_cast<unsigned>(std::strtoul(text, nullptr, 10));
        }
        return 0;
}

int UnitWatch::on_changed(sd_bus_message* signal, void* self, sd_bus_error*) {
        return guarded([&] {
                if (sender_of(signal) != static_cast<UnitWatch*>(self)->manager_) {
                        return;
                }
                char* raw = nullptr;
                if (sd_bus_path_decode(sd_bus_message_get_path(signal), kUnitPrefix, &raw) > 0) {
                        const std::unique_ptr<char, decltype(&std::free)> unit(raw, &std::free);
                        static_cast<UnitWatch*>(self)->hooks_.changed(unit.get());
                }
        });
}

// A new PID 1 (daemon-reexec) knows nothing of who subscribed to the old one.
int UnitWatch::on_owner(sd_bus_message* signal, void* self, sd_bus_error*) {
        const char* name = nullptr;
        const char* before = nullptr;
        const char* after = nullptr;
        if (sender_of(signal) == kBus && sd_bus_message_read(signal, "sss", &name, &before, &after) > 0 &&
            std::string_view(name) == kManager && *after != '\0') {
                auto* watch = static_cast<UnitWatch*>(self);
                (void)sd_bus_call_method_async(watch->bus_.get(), nullptr, kManager, kManagerPath, kManagerInterface,
                                               "Subscribe", on_hello, watch, "");
        }
        return 0;
}

int UnitWatch::on_lost(sd_bus_message*, void* self, sd_bus_error*) {
        return guarded([&] { static_cast<UnitWatch*>(self)->try_again(); });
}

int UnitWatch::on_state(sd_bus_message* reply, void* userdata, sd_bus_error*) {
        auto* question = static_cast<Question*>(userdata);
        question->watch->asked_--;
        return guarded([&] {
                UnitState state;
                const bool known =
                        question->what == What::kListens ? read_listens(reply, state) : read_state(reply, state);
                for (const auto& then : question->askers) {
                        then(known ? &state : nullptr);
                }
                question->watch->ask_next();
        });
}

void UnitWatch::ask(const std::string& unit, What what, Then then) {
        if (!connected_) {
                return then(nullptr);
        }
        to_ask_[{unit, what}].push_back(std::move(then));
        ask_next();
}

void UnitWatch::ask_next() {
        while (!to_ask_.empty() && asked_ < kMaxQuestions) {
                auto next = to_ask_.extract(to_ask_.begin());
                const auto& [unit, what] = next.key();
                auto question = std::make_unique<Question>(Question{this, what, std::move(next.mapped())});
                if (!connected_ || send(unit, what, question) < 0) {
                        for (const auto& then : question->askers) {
                                then(nullptr);
                        }
                }
        }
}

// On success the question belongs to its slot, and that to the bus.
int UnitWatch::send(const std::string& unit, What what, std::unique_ptr<Question>& question) {
        char* raw = nullptr;
        if (const int r = sd_bus_path_encode(kUnitPrefix, unit.c_str(), &raw); r < 0) {
                return r;
        }
        const std::unique_ptr<char, decltype(&std::free)> path(raw, &std::free);
        sd_bus_message* call = nullptr;
        sd_bus_slot* slot = nullptr;
        int r = sd_bus_message_new_method_call(bus_.get(), &call, kManager, path.get(), kProperties,
                                               what == What::kListens ? "Get" : "GetAll");
        if (r >= 0) {
                r = what == What::kListens ? sd_bus_message_append(call, "ss", kSocketInterface, "Listen")
                                           : sd_bus_message_append(call, "s", kUnitInterface);
        }
        if (r >= 0) {
                r = sd_bus_call_async(bus_.get(), &slot, call, on_state, question.get(), kAnswerUsec);
        }
        sd_bus_message_unref(call);
        if (r < 0) {
                return r;
        }
        sd_bus_slot_set_destroy_callback(slot, [](void* userdata) { delete static_cast<Question*>(userdata); });
        (void)question.release();
        asked_++;
        sd_bus_slot_set_floating(slot, 1);
        sd_bus_slot_unref(slot);
        return 0;
}

}  // namespace sockbroker
