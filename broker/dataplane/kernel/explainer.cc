// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/kernel/explainer.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include "broker/dataplane/kernel/libbpf_log.h"
#include "broker/dataplane/kernel/test_run.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wold-style-cast"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include "explain.skel.h"
#pragma GCC diagnostic pop

namespace sockbroker {

namespace {

constexpr const char* kExplainPin = "explain";
constexpr const char* kTracePin = "explain_trace";

}  // namespace

Result<void> Explainer::load(const PinDir& pins, const KernelObjects& objects) {
        const LibbpfLog log;
        const std::unique_ptr<::explain, void (*)(::explain*)> skeleton(explain__open(), explain__destroy);
        if (!skeleton) {
                return fail_errno("cannot open the program that explains");
        }
        static_assert(sizeof(*skeleton->bss) == sizeof(sb_trace));
        const auto maps = in_order(skeleton->maps);
        for (std::size_t i = 0; i < kMaps; i++) {
                if (bpf_map__reuse_fd(maps[i], objects.maps[i].get()) != 0) {
                        return fail_errno(
                                fmt::format("cannot give the map {} to the program that explains", kMapPins[i]));
                }
        }
        if (explain__load(skeleton.get()) != 0) {
                return fail_errno(fmt::format("cannot load the program that explains: {}", LibbpfLog::tail()));
        }
        auto done = pins.replace(kExplainPin, bpf_program__fd(skeleton->progs.dispatch));
        return done ? pins.replace(kTracePin, bpf_map__fd(skeleton->maps.bss)) : done;
}

Result<Explainer> Explainer::open(const PinDir& pins) {
        auto program = pins.get(kExplainPin);
        const auto map = pins.get(kTracePin);
        if (!program || !map) {
                return std::unexpected((program ? map : program).error());
        }
        auto trace = Mapping<sb_trace>::create(map->get(), 1, kTracePin);
        if (!trace) {
                return std::unexpected(trace.error());
        }
        Explainer explainer;
        explainer.program_ = std::move(*program);
        explainer.trace_ = std::move(*trace);
        return explainer;
}

namespace {

bpf_sk_lookup context_of(const LookUp& look_up) {
        const bool ipv4 = look_up.local.address.family == Family::kIpv4;
        const std::size_t bytes = ipv4 ? 4 : 16;
        bpf_sk_lookup context{};
        context.family = ipv4 ? AF_INET : AF_INET6;
        context.protocol = look_up.protocol == Protocol::kTcp ? IPPROTO_TCP : IPPROTO_UDP;
        std::memcpy(ipv4 ? &context.local_ip4 : &context.local_ip6[0], look_up.local.address.bytes.data(), bytes);
        std::memcpy(ipv4 ? &context.remote_ip4 : &context.remote_ip6[0], look_up.remote.address.bytes.data(), bytes);
        context.local_port = look_up.local.port;
        context.remote_port = htons(look_up.remote.port);
        return context;
}

Explained::Step step_of(std::size_t at, std::uint32_t service, std::uint32_t outcome) {
        const auto has = [&](std::uint32_t bit) { return (outcome & bit) != 0; };
        return {.at = at,
                .service = service,
                .delivered = has(SB_TRACE_DELIVERED),
                .wrong_protocol = has(SB_TRACE_PROTOCOL),
                .wrong_family = has(SB_TRACE_FAMILY),
                .wrong_state = has(SB_TRACE_STATE),
                .other_error = has(SB_TRACE_OTHER),
                .shared = has(SB_TRACE_SHARE),
                .stayed = has(SB_TRACE_STAYED),
                .kernel_chooses = has(SB_TRACE_REUSEPORT)};
}

}  // namespace

Result<Explained> Explainer::run(const LookUp& look_up) const {
        if (look_up.local.address.family != look_up.remote.address.family) {
                return fail(EINVAL, "the client's address and the one that it asks are of two families");
        }
        sb_trace& trace = trace_[0];
        trace = {};
        trace.ifindex = look_up.ifindex;
        trace.no_client = look_up.no_client ? 1 : 0;
        const auto run = test_run(program_.get(), context_of(look_up));
        if (!run) {
                return fail(run.error().errnum, "cannot run the program that explains");
        }
        Explained result{.refused = run->cookie == 0 && run->verdict == SK_DROP, .cookie = run->cookie, .steps = {}};
        const auto told = std::min<std::uint32_t>(trace.steps, SB_TRACE_STEPS);
        for (std::uint32_t i = 0; i < told; i++) {
                const std::size_t at = i + 1 == told ? trace.steps - 1 : i;
                result.steps.push_back(step_of(at, trace.step[i].service, trace.step[i].outcome));
        }
        return result;
}

}  // namespace sockbroker
