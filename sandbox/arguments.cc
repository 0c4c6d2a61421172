// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See arguments.h. Conditional jumps of BPF reach 255 instructions, JA all of a program: so conditional ones here only
// step over the next few instructions, and the way is in the JA.
#include "sandbox/arguments.h"

#include <linux/seccomp.h>
#include <seccomp.h>

#include <algorithm>
#include <cstddef>
#include <span>

namespace sockbroker::sandbox {

namespace {

class Code {
public:
        void put(unsigned code, std::uint32_t k, std::uint8_t jt = 0, std::uint8_t jf = 0) {
                program_.push_back({static_cast<std::uint16_t>(code), jt, jf, k});
        }
        void load(std::size_t offset) { put(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(offset)); }
        void answer(std::uint32_t value) { put(BPF_RET | BPF_K, value); }
        // A jump to a place that is not known yet.
        [[nodiscard]] std::size_t jump() {
                put(BPF_JMP | BPF_JA, 0);
                return program_.size() - 1;
        }
        void land(std::size_t jump) { program_[jump].k = static_cast<std::uint32_t>(program_.size() - jump - 1); }

        // Half of an argument, of which the bits of the mask are left.
        void load_half(unsigned argument, bool upper, std::uint32_t mask) {
                constexpr bool kLittle = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;
                load(offsetof(seccomp_data, args) + argument * sizeof(std::uint64_t) + (upper == kLittle ? 4 : 0));
                if (mask != 0xffffffff) {
                        put(BPF_ALU | BPF_AND | BPF_K, mask);
                }
        }

        [[nodiscard]] Filter::Program take() { return std::move(program_); }

private:
        Filter::Program program_;
};

// Falls through if the condition holds; returns the jump that is taken if not.
std::size_t check(Code& code, const Condition& condition) {
        const auto lower = static_cast<std::uint32_t>(condition.mask);
        const auto upper = static_cast<std::uint32_t>(condition.mask >> 32);
        std::vector<std::size_t> matches;
        if (upper == 0) {
                code.load_half(condition.argument, false, lower);
        }
        for (const std::uint64_t value : condition.values) {
                if (upper != 0) {
                        code.load_half(condition.argument, true, upper);
                        // Over the rest of this value: a load, perhaps a mask, a comparison and a jump.
                        const std::uint8_t rest = lower == 0xffffffff ? 3 : 4;
                        code.put(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(value >> 32), 0, rest);
                        code.load_half(condition.argument, false, lower);
                }
                code.put(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(value), 0, 1);
                matches.push_back(code.jump());
        }
        const std::size_t none = code.jump();
        for (const std::size_t match : matches) {
                code.land(match);
        }
        return none;
}

struct Call {
        std::uint32_t number;
        const Rule* rule;
};

class Blocks {
public:
        Blocks(Code& code, std::uint32_t refusal) : code_(code), refusal_(refusal) {}

        // Of calls in the order of their numbers: a binary search, the number being loaded.
        void put(std::span<const Call> calls) {
                if (calls.empty()) {
                        passes_.push_back(code_.jump());
                } else if (calls.size() == 1) {
                        put(calls.front());
                } else {
                        const std::size_t half = calls.size() / 2;
                        code_.put(BPF_JMP | BPF_JGE | BPF_K, calls[half].number, 1, 0);
                        const std::size_t lower = code_.jump();
                        put(calls.subspan(half));
                        code_.land(lower);
                        put(calls.first(half));
                }
        }

        // What goes on from here: calls that no block is for, or that it does not decide.
        void pass() { passes_.push_back(code_.jump()); }
        void land() {
                for (const std::size_t pass : passes_) {
                        code_.land(pass);
                }
        }

private:
        void put(const Call& call) {
                code_.put(BPF_JMP | BPF_JEQ | BPF_K, call.number, 1, 0);
                pass();
                for (const Line& line : call.rule->lines) {
                        std::vector<std::size_t> fails;
                        fails.reserve(line.conditions.size());
                        for (const Condition& condition : line.conditions) {
                                fails.push_back(check(code_, condition));
                        }
                        // Only `allow` has conditions, and what follows would say the same of the name.
                        code_.answer(SECCOMP_RET_ALLOW);
                        for (const std::size_t fail : fails) {
                                code_.land(fail);
                        }
                }
                code_.answer(refusal_);
        }

        Code& code_;
        std::uint32_t refusal_;
        std::vector<std::size_t> passes_;
};

}  // namespace

Filter::Program arguments_program(const Profile& profile, std::uint32_t refusal) {
        std::vector<Call> calls;
        for (const auto& [name, rule] : profile.rules) {
                const int number = ::seccomp_syscall_resolve_name(name.c_str());
                if (number >= 0 && rule.conditional()) {
                        calls.push_back({static_cast<std::uint32_t>(number), &rule});
                }
        }
        std::ranges::sort(calls, {}, &Call::number);
        Code code;
        Blocks blocks(code, refusal);
        code.load(offsetof(seccomp_data, arch));
        code.put(BPF_JMP | BPF_JEQ | BPF_K, ::seccomp_arch_native(), 1, 0);
        blocks.pass();
        code.load(offsetof(seccomp_data, nr));
        blocks.put(calls);
        blocks.land();
        return code.take();
}

}  // namespace sockbroker::sandbox
