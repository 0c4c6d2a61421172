// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/kernel/copier.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <sys/socket.h>

#include <memory>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "broker/dataplane/kernel/libbpf_log.h"
#include "broker/dataplane/kernel/test_run.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wold-style-cast"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include "copy.skel.h"
#pragma GCC diagnostic pop

namespace sockbroker {

namespace {

std::string result_of(const char* name) {
        return std::string(name) + "_result";
}

}  // namespace

Result<SocketCopier> SocketCopier::load(int before, int after) {
        const LibbpfLog log;
        const std::unique_ptr<::copy, void (*)(::copy*)> skeleton(copy__open(), copy__destroy);
        if (!skeleton) {
                return fail_errno("cannot open the program that copies sockets");
        }
        static_assert(sizeof(*skeleton->bss) == sizeof(std::int64_t));
        if (bpf_map__reuse_fd(skeleton->maps.before, before) != 0 ||
            bpf_map__reuse_fd(skeleton->maps.after, after) != 0 || copy__load(skeleton.get()) != 0) {
                return fail_errno(fmt::format("cannot load the program that copies sockets: {}", LibbpfLog::tail()));
        }
        SocketCopier copier;
        copier.program_.reset(fcntl(bpf_program__fd(skeleton->progs.copy), F_DUPFD_CLOEXEC, 3));
        copier.result_.reset(fcntl(bpf_map__fd(skeleton->maps.bss), F_DUPFD_CLOEXEC, 3));
        if (!copier.program_ || !copier.result_) {
                return fail_errno("cannot keep the program that copies sockets");
        }
        auto mapped = copier.map();
        return mapped ? Result<SocketCopier>(std::move(copier)) : std::unexpected(mapped.error());
}

Result<SocketCopier> SocketCopier::open(const PinDir& pins, const char* name) {
        auto program = pins.get(name);
        auto result = pins.get(result_of(name).c_str());
        if (!program || !result) {
                return std::unexpected((program ? result : program).error());
        }
        SocketCopier copier;
        copier.program_ = std::move(*program);
        copier.result_ = std::move(*result);
        auto mapped = copier.map();
        return mapped ? Result<SocketCopier>(std::move(copier)) : std::unexpected(mapped.error());
}

Result<void> SocketCopier::pin(const PinDir& pins, const char* name) const {
        auto done = pins.replace(name, program_.get());
        return done ? pins.replace(result_of(name).c_str(), result_.get()) : done;
}

Result<void> SocketCopier::map() {
        auto mapped = Mapping<std::int64_t>::create(result_.get(), 1, "of the program that copies sockets");
        if (!mapped) {
                return std::unexpected(mapped.error());
        }
        error_ = std::move(*mapped);
        return {};
}

Result<void> SocketCopier::copy(std::uint32_t from, std::uint32_t to) const {
        bpf_sk_lookup context{};
        context.family = AF_INET;
        context.remote_ip4 = from;
        context.local_ip4 = to;
        if (const auto run = test_run(program_.get(), context); !run) {
                return fail(run.error().errnum,
                            fmt::format("cannot run the program that copies the socket in slot {}", from));
        }
        if (const auto error = static_cast<int>(error_[0]); error != 0) {
                return fail(-error, fmt::format("cannot copy the socket in slot {}", from));
        }
        return {};
}

}  // namespace sockbroker
