// keccak-256 as the EVM computes it: rate 136, padding 0x01 (SHA-3 pads with 0x06 instead), and the Merkle root over
// it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace gv {

void keccak256(const uint8_t* data, size_t n, uint8_t out[32]);

// The root of gensyn_verify/program/merkle.py over leaves of any length.
void merkle_root(const std::vector<std::string_view>& leaves, uint8_t out[32]);

}  // namespace gv
