// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/kernel/copier.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sys/socket.h>

#include <fmt/format.h>

#include "broker/dataplane/kernel/libbpf_log.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wold-style-cast"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include "copy.skel.h"
#pragma GCC diagnostic pop

namespace sockbroker {

struct SocketCopier::State {
        std::unique_ptr<::copy, void (*)(::copy*)> skeleton{copy__open(), copy__destroy};
};

SocketCopier::SocketCopier(std::unique_ptr<State> state) : state_(std::move(state)) {}
SocketCopier::~SocketCopier() = default;

Result<std::unique_ptr<SocketCopier>> SocketCopier::load(int before, int after) {
        const LibbpfLog log;
        auto state = std::make_unique<State>();
        auto* skeleton = state->skeleton.get();
        if (skeleton == nullptr) {
                return fail_errno("cannot open the program that copies sockets");
        }
        if (bpf_map__reuse_fd(skeleton->maps.before, before) != 0 ||
            bpf_map__reuse_fd(skeleton->maps.after, after) != 0 || copy__load(skeleton) != 0) {
                return fail_errno(fmt::format("cannot load the program that copies sockets: {}", LibbpfLog::tail()));
        }
        return std::unique_ptr<SocketCopier>(new SocketCopier(std::move(state)));
}

Result<void> SocketCopier::copy(std::uint32_t from, std::uint32_t to) const {
        bpf_sk_lookup context{};
        context.family = AF_INET;
        context.remote_ip4 = from;
        context.local_ip4 = to;
        bpf_test_run_opts options{};
        options.sz = sizeof options;
        options.ctx_in = &context;
        options.ctx_size_in = sizeof context;
        if (bpf_prog_test_run_opts(bpf_program__fd(state_->skeleton->progs.copy), &options) != 0) {
                return fail_errno(fmt::format("cannot run the program that copies the socket in slot {}", from));
        }
        if (const auto error = static_cast<int>(state_->skeleton->bss->error); error != 0) {
                return fail(-error, fmt::format("cannot copy the socket in slot {}", from));
        }
        return {};
}

}  // namespace sockbroker
