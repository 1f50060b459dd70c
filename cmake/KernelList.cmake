# THE registry of kernels. A kernel is one word, and that word names a file in every room:
#   kernels/include/hadal/K.h  kernels/K.cpp  kernels/K.md  shaders/layout/K.h  shaders/K.comp
#   kernels/include/hadal/reference/K.h  kernels/reference/K.cpp  tests/K_test.cpp  bench/K_bench.cpp
# A missing file is an error here, at configure time, so that no kernel is ever half in the house.
set(HADAL_KERNELS
    fp8_quantize
    fp8_gemm
    fp8_grouped_gemm
    bf16_gemm
    bf16_grouped_gemm
    rms_norm
    swiglu
    rope
    embedding
    mla_cache_write
    mla_cache_read
    mla_prefill
    mla_absorb
    mla_decode
    moe_gate
    moe_permute
    moe_tiles
    logit_adjust
    sample
    top_logprobs)

foreach(kernel IN LISTS HADAL_KERNELS)
  foreach(file IN ITEMS
      kernels/include/hadal/${kernel}.h kernels/${kernel}.cpp kernels/${kernel}.md
      shaders/layout/${kernel}.h shaders/${kernel}.comp
      kernels/include/hadal/reference/${kernel}.h kernels/reference/${kernel}.cpp
      tests/${kernel}_test.cpp bench/${kernel}_bench.cpp)
    if(NOT EXISTS "${CMAKE_CURRENT_LIST_DIR}/../${file}")
      message(FATAL_ERROR "kernel '${kernel}' is registered but has no ${file}")
    endif()
  endforeach()
endforeach()
