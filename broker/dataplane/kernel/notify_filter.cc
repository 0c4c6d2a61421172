// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/kernel/notify_filter.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sys/socket.h>

#include <memory>
#include <utility>

#include <fmt/format.h>

#include "broker/dataplane/kernel/libbpf_log.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wold-style-cast"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include "notify.skel.h"
#pragma GCC diagnostic pop

namespace sockbroker {

namespace {

constexpr const char* kFilterPin = "notify";
constexpr const char* kUnheardPin = "unheard";

}  // namespace

Result<void> NotifyFilter::load(const PinDir& pins) {
        const LibbpfLog log;
        const std::unique_ptr<::notify, void (*)(::notify*)> skeleton(notify__open(), notify__destroy);
        if (!skeleton || notify__load(skeleton.get()) != 0) {
                return fail_errno(fmt::format("cannot load the filter of the notify socket: {}", LibbpfLog::tail()));
        }
        auto done = pins.replace(kFilterPin, bpf_program__fd(skeleton->progs.notify));
        return done ? pins.replace(kUnheardPin, bpf_map__fd(skeleton->maps.unheard)) : done;
}

Result<NotifyFilter> NotifyFilter::open(const std::string& pin_dir) {
        const auto pins = PinDir::open(pin_dir);
        if (!pins) {
                return std::unexpected(pins.error());
        }
        auto program = pins->get(kFilterPin);
        auto unheard = pins->get(kUnheardPin);
        if (!program || !unheard) {
                return std::unexpected((program ? unheard : program).error());
        }
        NotifyFilter filter;
        filter.program_ = std::move(*program);
        filter.unheard_ = std::move(*unheard);
        std::uint32_t uid = 0;
        while (bpf_map_get_next_key(filter.unheard_.get(), nullptr, &uid) == 0 &&
               bpf_map_delete_elem(filter.unheard_.get(), &uid) == 0) {
        }
        return filter;
}

Result<void> NotifyFilter::attach(int socket) const {
        const int program = program_.get();
        if (setsockopt(socket, SOL_SOCKET, SO_ATTACH_BPF, &program, sizeof program) != 0) {
                return fail_errno("cannot attach the filter of the notify socket");
        }
        return {};
}

void NotifyFilter::silence(uid_t uid) noexcept {
        const std::uint64_t none = 0;
        (void)bpf_map_update_elem(unheard_.get(), &uid, &none, BPF_NOEXIST);  // where it is full: as without
}

std::uint64_t NotifyFilter::hear(uid_t uid) noexcept {
        std::uint64_t dropped = 0;
        (void)bpf_map_lookup_elem(unheard_.get(), &uid, &dropped);
        (void)bpf_map_delete_elem(unheard_.get(), &uid);
        return dropped;
}

}  // namespace sockbroker
