// SPDX-License-Identifier: LGPL-2.1-or-later
//
// See evaluator.h. The instructions are those of kernel/seccomp.c, seccomp_check_filter().
#include "sandbox/evaluator.h"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <optional>

namespace sockbroker::sandbox {

namespace {

struct Machine {
        std::uint32_t a = 0;
        std::uint32_t x = 0;
        std::array<std::uint32_t, BPF_MEMWORDS> memory{};
};

std::optional<std::uint32_t> load(const seccomp_data& data, std::uint32_t offset) {
        if (offset % 4 != 0 || offset + 4 > sizeof data) {
                return std::nullopt;
        }
        std::uint32_t word = 0;
        std::memcpy(&word, reinterpret_cast<const char*>(&data) + offset, sizeof word);
        return word;
}

bool compare(std::uint16_t operation, std::uint32_t a, std::uint32_t operand) {
        switch (operation) {
        case BPF_JEQ:
                return a == operand;
        case BPF_JGT:
                return a > operand;
        case BPF_JGE:
                return a >= operand;
        default:  // BPF_JSET
                return (a & operand) != 0;
        }
}

std::optional<std::uint32_t> compute(std::uint16_t operation, std::uint32_t a, std::uint32_t operand) {
        switch (operation) {
        case BPF_ADD:
                return a + operand;
        case BPF_SUB:
                return a - operand;
        case BPF_AND:
                return a & operand;
        case BPF_OR:
                return a | operand;
        case BPF_XOR:
                return a ^ operand;
        case BPF_LSH:
                return a << (operand & 31);
        case BPF_RSH:
                return a >> (operand & 31);
        default:
                return std::nullopt;
        }
}

// Kernel: ACTION_ONLY() compares as signed numbers, so that KILL_PROCESS (0x80000000) is the strictest.
std::int32_t strictness(std::uint32_t answer) {
        return static_cast<std::int32_t>(answer & SECCOMP_RET_ACTION_FULL);
}

}  // namespace

Result<std::uint32_t> evaluate(const Filter::Program& program, const seccomp_data& data) {
        Machine machine;
        const auto bad = [&](std::size_t at) {
                return fail(EINVAL, fmt::format("instruction {} is none of a seccomp filter", at));
        };
        for (std::size_t at = 0; at < program.size(); ++at) {
                const sock_filter& instruction = program[at];
                const std::uint32_t k = instruction.k;
                const std::uint16_t operation = BPF_OP(instruction.code);
                const std::uint32_t operand = BPF_SRC(instruction.code) == BPF_X ? machine.x : k;
                switch (BPF_CLASS(instruction.code)) {
                case BPF_RET:
                        return BPF_RVAL(instruction.code) == BPF_A ? machine.a : k;
                case BPF_LD:
                        if (BPF_MODE(instruction.code) == BPF_ABS) {
                                const auto word = load(data, k);
                                if (!word) {
                                        return bad(at);
                                }
                                machine.a = *word;
                        } else if (BPF_MODE(instruction.code) == BPF_IMM) {
                                machine.a = k;
                        } else if (BPF_MODE(instruction.code) == BPF_MEM && k < BPF_MEMWORDS) {
                                machine.a = machine.memory[k];
                        } else {
                                return bad(at);
                        }
                        break;
                case BPF_LDX:
                        if (BPF_MODE(instruction.code) == BPF_IMM) {
                                machine.x = k;
                        } else if (BPF_MODE(instruction.code) == BPF_MEM && k < BPF_MEMWORDS) {
                                machine.x = machine.memory[k];
                        } else {
                                return bad(at);
                        }
                        break;
                case BPF_ST:
                case BPF_STX:
                        if (k >= BPF_MEMWORDS) {
                                return bad(at);
                        }
                        machine.memory[k] = BPF_CLASS(instruction.code) == BPF_ST ? machine.a : machine.x;
                        break;
                case BPF_MISC:
                        (BPF_MISCOP(instruction.code) == BPF_TAX ? machine.x : machine.a) =
                                BPF_MISCOP(instruction.code) == BPF_TAX ? machine.a : machine.x;
                        break;
                case BPF_ALU: {
                        const auto result = compute(operation, machine.a, operand);
                        if (!result) {
                                return bad(at);
                        }
                        machine.a = *result;
                        break;
                }
                case BPF_JMP:
                        if (operation == BPF_JA) {
                                at += k;
                        } else {
                                at += compare(operation, machine.a, operand) ? instruction.jt : instruction.jf;
                        }
                        break;
                default:
                        return bad(at);
                }
        }
        return fail(EINVAL, "the filter ends without an answer");
}

Result<std::uint32_t> evaluate(const Filter& filter, const seccomp_data& data) {
        std::uint32_t answer = SECCOMP_RET_ALLOW;
        for (auto program = filter.programs.rbegin(); program != filter.programs.rend(); ++program) {
                const auto one = evaluate(*program, data);
                if (!one) {
                        return one;
                }
                if (strictness(*one) < strictness(answer)) {
                        answer = *one;
                }
        }
        return answer;
}

}  // namespace sockbroker::sandbox
