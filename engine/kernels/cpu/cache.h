// Where the numbers of one kv head of one block lie, in either cache (pagestream.h has the layout of caches).
#pragma once
#include <cstdint>
#include <type_traits>

#include "pagestream.h"

template <class T>
struct Head {
  T* data;
  float* scales;  // of the block's tokens, for int8; else nothing is there

  static int64_t bytes(int hd, int block_size) {
    return (hd * sizeof(T) + (std::is_same_v<T, int8_t> ? sizeof(float) : 0)) * block_size;
  }
  /* index: block * hkv + head */
  Head(ps_ptr cache, int64_t index, int hd, int block_size)
      : data(reinterpret_cast<T*>(cache + index * bytes(hd, block_size))),
        scales(reinterpret_cast<float*>(data + int64_t(hd) * block_size)) {}
};
