// keccak-256 as the EVM computes it: rate 136, padding 0x01 (SHA-3 pads with 0x06 instead).
#pragma once
#include <cstddef>
#include <cstdint>

namespace gv {

void keccak256(const uint8_t* data, size_t n, uint8_t out[32]);

}  // namespace gv
