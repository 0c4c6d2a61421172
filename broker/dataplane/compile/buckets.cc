// SPDX-License-Identifier: LGPL-2.1-or-later
#include "broker/dataplane/compile/buckets.h"

#include "broker/base/huge_pages.h"

#include <cstring>
#include <utility>

namespace sockbroker {

namespace {

// Places that are hashed all over memory are fetched so long before their turn.
constexpr std::uint32_t kKeysAhead = 16;
constexpr std::uint32_t kLinesAhead = 6;

enum class Shape : std::uint8_t { kV4, kV6, kV6Long };

Shape shape_of(Family family, unsigned length) {
        return family == Family::kIpv4 ? Shape::kV4 : length <= 64 ? Shape::kV6 : Shape::kV6Long;
}

constexpr unsigned places(Shape shape) {
        return shape == Shape::kV4 ? 4 : shape == Shape::kV6 ? 3 : 2;
}

// Word of the line at which the rule of a place stands.
constexpr unsigned rule_word(Shape shape, unsigned place) {
        return (shape == Shape::kV4 ? 4 : shape == Shape::kV6 ? 6 : 8) + 3 * place;
}

void write_key(sb_line& line, Shape shape, unsigned place, const Key& key) {
        switch (shape) {
        case Shape::kV4:
                line.v4.key[place] = static_cast<std::uint32_t>(key.high);
                line.v4.rule[place].flags = SB_RULE_USED;
                break;
        case Shape::kV6:
                line.v6.key[place] = key.high;
                line.v6.rule[place].flags = SB_RULE_USED;
                break;
        case Shape::kV6Long:
                line.v6_long.key[place][0] = key.high;
                line.v6_long.key[place][1] = key.low;
                line.v6_long.rule[place].flags = SB_RULE_USED;
                break;
        }
}

// splitmix64: the seeds to be tried, one after another.
std::uint64_t seed_number(std::uint64_t n) {
        std::uint64_t z = (n + 1) * 0x9e3779b97f4a7c15;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        return (z ^ (z >> 31)) | 1;
}

std::uint32_t hash_of(Shape shape, const Key& key, std::uint64_t seed) {
        return shape == Shape::kV6Long ? sb_hash_long(key.high, key.low, seed) : sb_hash(key.high, seed);
}

// Which key stands where, for one size and seed.
class CuckooTable {
public:
        CuckooTable(Shape shape, std::span<const Key> keys, std::uint32_t lines, std::uint64_t seed)
                : places_(places(shape)),
                  lines_(lines),
                  hashes_(keys.size()),
                  cells_(std::size_t{lines} * places_, kEmpty),
                  random_(seed) {
                for (std::size_t i = 0; i < keys.size(); i++) {
                        hashes_[i] = hash_of(shape, keys[i], seed);
                }
        }

        [[nodiscard]] std::uint32_t first_line(std::uint32_t key) const { return sb_scale(hashes_[key], lines_); }
        [[nodiscard]] std::uint32_t second_line(std::uint32_t key) const {
                return sb_scale(sb_second(hashes_[key]), lines_);
        }

        // Where both lines are full, a key of one of them has to move to its other line, and so on.
        [[nodiscard]] bool insert(std::uint32_t key) {
                std::uint32_t line = first_line(key);
                if (take_free(line, key) || take_free(second_line(key), key)) {
                        return true;
                }
                for (unsigned kicks = 0; kicks < 500; kicks++) {
                        random_ = random_ * 6364136223846793005U + 1442695040888963407U;
                        std::swap(key, cells_[std::size_t{line} * places_ + (random_ >> 33) % places_]);
                        line = line == first_line(key) ? second_line(key) : first_line(key);
                        if (take_free(line, key)) {
                                return true;
                        }
                }
                return false;
        }

        void fetch(std::uint32_t key) const { __builtin_prefetch(&cells_[std::size_t{first_line(key)} * places_], 1); }

        static constexpr std::uint32_t kEmpty = UINT32_MAX;
        [[nodiscard]] std::uint32_t at(std::uint32_t line, unsigned place) const {
                return cells_[std::size_t{line} * places_ + place];
        }

private:
        bool take_free(std::uint32_t line, std::uint32_t key) {
                for (unsigned place = 0; place < places_; place++) {
                        std::uint32_t& cell = cells_[std::size_t{line} * places_ + place];
                        if (cell == kEmpty) {
                                cell = key;
                                return true;
                        }
                }
                return false;
        }

        unsigned places_;
        std::uint32_t lines_;
        Scratch<std::uint32_t> hashes_;
        Scratch<std::uint32_t> cells_;  // index of the key
        std::uint64_t random_;
};

bool insert_all(CuckooTable& table, std::size_t keys) {
        for (std::uint32_t key = 0; key < keys; key++) {
                if (key + kKeysAhead < keys) {
                        table.fetch(key + kKeysAhead);
                }
                if (!table.insert(key)) {
                        return false;
                }
        }
        return true;
}

void write_region(std::span<sb_line> region, Shape shape, std::span<const Key> keys, const CuckooTable& table,
                  std::uint32_t first, std::span<std::uint32_t> references) {
        std::vector<std::uint32_t> marked;
        for (std::uint32_t line = 0; line < region.size(); line++) {
                for (unsigned place = 0; line + kLinesAhead < region.size() && place < places(shape); place++) {
                        if (const std::uint32_t key = table.at(line + kLinesAhead, place); key != CuckooTable::kEmpty) {
                                __builtin_prefetch(&keys[key]);
                                __builtin_prefetch(&references[key], 1);
                        }
                }
                for (unsigned place = 0; place < places(shape); place++) {
                        const std::uint32_t key = table.at(line, place);
                        if (key == CuckooTable::kEmpty) {
                                continue;
                        }
                        write_key(region[line], shape, place, keys[key]);
                        references[key] = (first + line) * SB_LINE_WORDS + rule_word(shape, place);
                        if (table.first_line(key) != line) {
                                marked.push_back(table.first_line(key));
                        }
                }
        }
        // A key stands in its second line only if the first is full, so a rule is there to carry the mark.
        for (const std::uint32_t line : marked) {
                region[line].words[rule_word(shape, 0) + 1] |= SB_RULE_OVERFLOW;
        }
}

std::uint64_t half_of(const std::uint8_t* bytes) {
        std::uint32_t words[2];
        std::memcpy(words, bytes, sizeof words);
        return sb_half(words[0], words[1]);
}

}  // namespace

Key key_of(const Address& address) {
        if (address.family == Family::kIpv4) {
                std::uint32_t word = 0;
                std::memcpy(&word, address.bytes.data(), sizeof word);
                return {.high = word};
        }
        return {.high = half_of(address.bytes.data()), .low = half_of(address.bytes.data() + 8)};
}

Key mask_of(Family family, unsigned length) {
        Address ones;
        ones.family = family;
        ones.bytes.fill(0xff);
        return key_of(masked(ones, length));
}

bool place_keys(RuleMemory& lines, Family family, unsigned length, std::span<const Key> keys, sb_length& description,
                std::span<std::uint32_t> references) {
        const Shape shape = shape_of(family, length);
        const Key mask = mask_of(family, length);
        description.mask = length > 64 ? mask.low : mask.high;
        description.first = static_cast<std::uint32_t>(lines.size());

        // Three quarters full: most keys then stand in their first line. Another seed is tried before more room.
        std::size_t size = keys.size() <= places(shape) ? 1 : keys.size() * 4 / (std::size_t{3} * places(shape)) + 1;
        for (std::uint64_t attempt = 0;; attempt++) {
                if (description.first + size > lines.room()) {
                        return false;
                }
                description.lines = static_cast<std::uint32_t>(size);
                description.seed = seed_number(attempt);
                CuckooTable table(shape, keys, description.lines, description.seed);
                if (insert_all(table, keys.size())) {
                        lines.resize(description.first + size);
                        write_region(lines.lines(description.first, size), shape, keys, table, description.first,
                                     references);
                        return true;
                }
                size += attempt % 2 == 0 ? 0 : size / 16 + 1;
        }
}

}  // namespace sockbroker
