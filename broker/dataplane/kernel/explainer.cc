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

#include <fmt/format.h>

#include "bpf/trace.h"
#include "broker/dataplane/kernel/libbpf_log.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wold-style-cast"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include "explain.skel.h"
#pragma GCC diagnostic pop

namespace sockbroker {

struct Explainer::State {
        std::unique_ptr<::explain, void (*)(::explain*)> skeleton{explain__open(), explain__destroy};
};

Explainer::Explainer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Explainer::~Explainer() = default;

Result<std::unique_ptr<Explainer>> Explainer::load(const KernelObjects& objects) {
        const LibbpfLog log;
        auto state = std::make_unique<State>();
        auto* skeleton = state->skeleton.get();
        if (skeleton == nullptr) {
                return fail_errno("cannot open the program that explains");
        }
        const auto& maps = skeleton->maps;
        const std::array<bpf_map*, kMaps> all{
                maps.header,   maps.arena,   maps.tables,      maps.services, maps.records,
                maps.counters, maps.sockets, maps.registrants, maps.names,    maps.binding_counters,
                maps.counted,  maps.slots,   maps.flows,       maps.replies,  maps.units};
        for (std::size_t i = 0; i < kMaps; i++) {
                if (bpf_map__reuse_fd(all[i], objects.maps[i].get()) != 0) {
                        return fail_errno(
                                fmt::format("cannot give the map {} to the program that explains", kMapPins[i]));
                }
        }
        if (explain__load(skeleton) != 0) {
                return fail_errno(fmt::format("cannot load the program that explains: {}", LibbpfLog::tail()));
        }
        return std::unique_ptr<Explainer>(new Explainer(std::move(state)));
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

Explained::Step step_of(std::uint32_t service, std::uint32_t outcome) {
        const auto has = [&](std::uint32_t bit) { return (outcome & bit) != 0; };
        return {.service = service,
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
        sb_trace& trace = state_->skeleton->bss->trace;
        trace = {};
        trace.ifindex = look_up.ifindex;
        bpf_sk_lookup context = context_of(look_up);
        bpf_sk_lookup answer{};
        bpf_test_run_opts options{};
        options.sz = sizeof options;
        options.ctx_in = &context;
        options.ctx_size_in = sizeof context;
        options.ctx_out = &answer;
        options.ctx_size_out = sizeof answer;
        if (bpf_prog_test_run_opts(bpf_program__fd(state_->skeleton->progs.dispatch), &options) != 0) {
                return fail_errno("cannot run the program that explains");
        }
        Explained result{.refused = answer.cookie == 0 && options.retval == SK_DROP,
                         .cookie = answer.cookie,
                         .steps = {},
                         .more_steps = trace.steps > SB_TRACE_STEPS};
        for (std::uint32_t i = 0; i < std::min<std::uint32_t>(trace.steps, SB_TRACE_STEPS); i++) {
                result.steps.push_back(step_of(trace.step[i].service, trace.step[i].outcome));
        }
        return result;
}

}  // namespace sockbroker
