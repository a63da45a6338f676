#include "commit.h"

#include <string_view>

#include "keccak.h"

namespace gv {
namespace {

using Bytes = std::vector<uint8_t>;

void put(Bytes& out, const void* data, size_t n) {
    const uint8_t* p = static_cast<const uint8_t*>(data);
    out.insert(out.end(), p, p + n);
}

void put_u64(Bytes& out, uint64_t x) {
    for (int shift = 56; shift >= 0; shift -= 8) out.push_back(uint8_t(x >> shift));
}

Digest keccak(const Bytes& data) {
    Digest out;
    keccak256(data.data(), data.size(), out.data());
    return out;
}

Digest inner(const Digest& left, const Digest& right) {
    Bytes data{0x01};
    put(data, left.data(), 32);
    put(data, right.data(), 32);
    return keccak(data);
}

}  // namespace

Digest group_root(const std::vector<GroupEntry>& entries) {
    std::vector<Bytes> records;
    std::vector<std::string_view> leaves;
    records.reserve(entries.size());
    for (const GroupEntry& e : entries) {
        Bytes r{uint8_t(e.name->size())};
        put(r, e.name->data(), e.name->size());
        r.push_back(uint8_t(e.type->dtype));
        r.push_back(uint8_t(e.type->shape.size()));
        for (int64_t d : e.type->shape) put_u64(r, uint64_t(d));
        put(r, e.root.data(), 32);
        records.push_back(std::move(r));
        leaves.emplace_back(reinterpret_cast<const char*>(records.back().data()), records.back().size());
    }
    Digest root;
    merkle_root(leaves, root.data());
    return root;
}

void Log::append(const void* data, size_t n) {
    Bytes leaf{0x00};
    put(leaf, data, n);
    Digest node = keccak(leaf);
    for (uint64_t full = size_; full & 1; full >>= 1) {
        node = inner(peaks_.back(), node);
        peaks_.pop_back();
    }
    peaks_.push_back(node);
    size_++;
}

Digest Log::root() const {
    Digest top{};  // of no leaves: zeros
    for (size_t i = peaks_.size(); i-- > 0;) top = i + 1 == peaks_.size() ? peaks_[i] : inner(peaks_[i], top);
    Bytes data{0x02};
    put_u64(data, size_);
    put(data, top.data(), 32);
    return keccak(data);
}

void append_step(Log& log, const StepRoots& roots) {
    Bytes entry;
    put_u64(entry, log.size());
    for (const Digest* d : {&roots.state, &roots.batch, &roots.scalars}) put(entry, d->data(), 32);
    log.append(entry.data(), entry.size());
}

Digest run_commitment(const uint8_t task[32], const uint8_t solver[20], const uint8_t salt[32], const Log& log) {
    constexpr std::string_view domain = "gensyn_verify.run.1";
    Bytes data;
    put(data, domain.data(), domain.size());
    put(data, task, 32);
    put(data, solver, 20);
    put(data, salt, 32);
    put_u64(data, log.size());
    const Digest root = log.root();
    put(data, root.data(), 32);
    return keccak(data);
}

}  // namespace gv
